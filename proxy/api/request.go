package api

import "time"

// Limits of a request that hold whatever the configuration says.
const (
	MaxPromptBytes  = 1 << 20   // decoded prompt and system text together, unless Limits says otherwise
	MaxNewTokens    = 1 << 20   // highest max_new_tokens that is accepted here; the model's context is checked later
	MaxSeed         = 1<<53 - 1 // the highest whole number that every JSON reader keeps exact
	MaxTopK         = 1000
	MaxTemperature  = 2
	MaxPenalty      = 2
	MaxStops        = 8
	MaxStopBytes    = 256
	MaxNameBytes    = 256 // base_model, adapter_version
	MaxDomainBytes  = 64
	MaxSchemaBytes  = 64 << 10
	MaxNestingDepth = 64
	MaxMessages     = 1024      // of a conversation
	MaxTools        = 256       // a grammar of some 500 everyday ones is more than llguidance takes
	MaxToolCalls    = 128       // of a message
	MaxToolName     = 128       // bytes, as in Anthropic's API
	MaxToolBytes    = 512 << 10 // of all tools in AppendTools' form; engines take no more
	MaxChoices      = 32        // n
	MaxInputs       = 2048
	MaxTopLogprobs  = 20
	MaxLogitBias    = 1024
	MaxResumeFor    = 10 * time.Minute
)

// DefaultNewTokens is used when a request doesn't set max_new_tokens, cut to what the context has left.
const DefaultNewTokens = 256

// Request is a checked inference request. Only dialects make one, so no later code checks it again. It keeps nothing of
// the body it came from. Nil pointers are fields that the client didn't set: the model's or the engine's
// default applies.
type Request struct {
	Model   string // as requested, "" for the default; looked up by Resolve, never a path
	Version string // as requested, "" for the default

	// Messages are a conversation, which replaces Prompt and System. With it Prompt is empty.
	Messages []Message
	// Raw sends the prompt as it is: no chat template.
	Raw bool
	// PromptTokens are a prompt of tokens of the model in place of Prompt.
	PromptTokens []int32
	// Inputs are several prompts, at most MaxInputs, each with Choices answers of its own. They are raw, and Prompt,
	// PromptTokens, System and Messages are empty with them.
	Inputs []Input
	// Task is what to do with the prompt.
	Task Task
	// Dimensions is how many numbers of an embedding the client wants; 0: all. See CheckReply.
	Dimensions int

	// Tools are the functions that the model may call. With them, and with reasoning, SplitOutput is set.
	Tools             []Tool
	ToolChoice        ToolChoice
	ParallelToolCalls bool
	// SplitOutput has content, reasoning and tool calls told apart by the format of the model's chat template.
	SplitOutput bool
	// TemplateOptions is a JSON object of values for the chat template, such as enable_thinking, and ContinueOption;
	// nil: none.
	TemplateOptions []byte

	Prompt     string // empty only with Messages, PromptTokens or Inputs
	System     string
	HasSystem  bool   // an empty System counts as given: the model's template then writes none of its own
	JSONSchema []byte // a JSON object of at most MaxSchemaBytes, or nil
	// SchemaField is what the client calls JSONSchema, in dialects with several names for it; empty: json_schema, or
	// what the dialect makes of that.
	SchemaField string
	Grammar     string // GBNF of at most MaxSchemaBytes, or empty; not with JSONSchema

	MaxNewTokens *int // 1 … MaxNewTokens
	// FitContext has MaxNewTokens above the context cut to it, where it would be an error otherwise. Without
	// MaxNewTokens the answer may then take all that the prompt leaves of the context, unless the model has a default.
	FitContext bool
	// PlainSampling draws at temperature 1, without top_k, top_p and min_p, where neither request nor model sets
	// them. Without it the engine's own defaults apply.
	PlainSampling bool
	Temperature   *float32 // 0 (greedy) … 2
	TopP          *float32 // above 0 … 1 (off)
	MinP          *float32 // 0 (off) … 1
	RepeatPenalty *float32 // above 0 … 2; 1 is off
	// PresencePenalty and FrequencyPenalty are subtracted from the logits of tokens that the answer has: once, and as
	// often as it has them. -2 … 2; 0 is off.
	PresencePenalty  *float32
	FrequencyPenalty *float32
	TopK             *int     // 0 (off) … 1000
	Seed             *uint64  // 0 … MaxSeed
	Stop             []string // at most MaxStops, none empty, each at most MaxStopBytes
	LogitBias        []TokenBias
	IgnoreEnd        bool // the end token is never drawn

	Choices        int  // answers to each input; 0 is 1
	Logprobs       bool // of the answer's tokens
	TopLogprobs    int  // the most likely tokens at each place, 0 … MaxTopLogprobs
	PromptLogprobs bool // of the prompt's tokens, with TopLogprobs
	Echo           bool // the dialect repeats the prompt before the answer

	Domain string // as requested, may be empty; see Domains
	Stream bool
	// IncludeUsage asks a stream to say at its end how many tokens it took, in dialects that do so only when asked.
	IncludeUsage bool
	// Timings asks for the engine's times in the reply, in dialects that have a place for them.
	Timings bool
	// ResumeFor keeps a stream for so long without a reader, so that a client that lost its connection can read on; 0:
	// the answer is cancelled when its client leaves.
	ResumeFor time.Duration
	// UnknownFields are names in the body that the dialect doesn't know and ignored.
	UnknownFields []string
	// Extra is what the dialect's encoder needs of the body besides this.
	Extra any
}

// Task is what a request asks an engine for.
type Task uint8

// Tasks.
const (
	TaskGenerate Task = iota // an answer
	TaskEmbed                // an embedding of each input
	TaskScore                // how well query and document fit: Messages of each input
)

// Input is one of several prompts: a text, tokens of the model, or for TaskScore query and document.
type Input struct {
	Text     string
	Tokens   []int32
	Query    string
	Document string
}

// TokenBias is added to the logit of a token.
type TokenBias struct {
	Token int32
	Bias  float32 // -100 … 100
}

// Limits are the bounds of a request that an operator can set. A zero field means the constant of the same name.
type Limits struct {
	PromptBytes int // MaxPromptBytes
	SchemaBytes int // MaxSchemaBytes
}

// MaxPromptBytes is the limit of all texts of a prompt together.
func (l Limits) MaxPromptBytes() int { return orDefault(l.PromptBytes, MaxPromptBytes) }

// MaxSchemaBytes is the limit of a JSON schema.
func (l Limits) MaxSchemaBytes() int { return orDefault(l.SchemaBytes, MaxSchemaBytes) }

func orDefault(v, otherwise int) int {
	if v > 0 {
		return v
	}
	return otherwise
}

// NewTokens is how many tokens may be generated in a context of contextTokens, before the prompt is counted. It is an
// error to ask for more than the context holds, except with FitContext; a request that sets nothing gets
// DefaultNewTokens, or all of the context with FitContext. contextTokens 0 means not known yet. Only TaskGenerate has
// any.
func (r *Request) NewTokens(contextTokens int) (int, *Error) {
	if r.Task != TaskGenerate {
		return 0, nil
	}
	if r.MaxNewTokens == nil {
		if contextTokens > 0 && (r.FitContext || contextTokens < DefaultNewTokens) {
			return contextTokens, nil
		}
		return DefaultNewTokens, nil
	}
	if contextTokens > 0 && *r.MaxNewTokens > contextTokens {
		if r.FitContext {
			return contextTokens, nil
		}
		return 0, Invalid("max_new_tokens", "max_new_tokens is %d, but the model's context holds %d tokens; ask for fewer", *r.MaxNewTokens, contextTokens)
	}
	return *r.MaxNewTokens, nil
}

// ChoiceCount is how many answers the request has, those of all inputs together.
func (r *Request) ChoiceCount() int { return max(1, r.Choices) * max(1, len(r.Inputs)) }

// ForInput is the request with one of its inputs as its only prompt; r itself when it has none.
func (r *Request) ForInput(i int) *Request {
	if len(r.Inputs) == 0 {
		return r
	}
	one, in := *r, &r.Inputs[i]
	one.Inputs = nil
	one.Prompt, one.PromptTokens, one.Raw = in.Text, in.Tokens, true
	if r.Task == TaskScore {
		one.Messages = []Message{{Role: "user", Content: in.Query}, {Role: "user", Content: in.Document}}
	}
	return &one
}

// CheckReply returns what is wrong with a request that only its reply can tell.
func (r *Request) CheckReply(reply *Reply) *Error {
	if have := len(reply.Results[0].Embedding); r.Task == TaskEmbed && r.Dimensions > have {
		return Invalid("dimensions", "dimensions is %d, but embeddings of this model have %d", r.Dimensions, have)
	}
	return nil
}

// Message is one turn of a conversation.
type Message struct {
	Role       string // system, user, assistant or tool
	Content    string
	Reasoning  string     // of an assistant
	ToolCalls  []ToolCall // of an assistant
	Name       string     // of a tool message: the function
	ToolCallID string     // of a tool message
}

// ToolCall is a call of a function that a model wants.
type ToolCall struct {
	ID        string
	Name      string
	Arguments string // JSON, as the model wrote it
}

// Tool is a function that a model may call.
type Tool struct {
	Name        string
	Description string
	Parameters  []byte // JSON schema of the arguments; nil: none
	Strict      bool   // a schema that can't be obeyed is refused
}

// ContinueOption among the TemplateOptions is true where the answer goes on with the text of the last message, which is
// the assistant's, and doesn't repeat it.
const ContinueOption = "continue_final_message"

// ToolMode is what a model may or must do with tools.
type ToolMode uint8

// Tool modes.
const (
	ToolsAuto     ToolMode = iota // calls or answers
	ToolsNone                     // answers
	ToolsRequired                 // calls at least one tool
	ToolsNamed                    // calls the named one
)

// ToolChoice is a mode with, for ToolsNamed, the function's name.
type ToolChoice struct {
	Mode ToolMode
	Name string
}

// SetParallelCalls sets ParallelToolCalls as the client wants it. A function that is asked for by its name is called
// once, as in OpenAI's and Anthropic's APIs. Tools and ToolChoice must be set.
func (r *Request) SetParallelCalls(wanted bool) {
	r.ParallelToolCalls = wanted && len(r.Tools) > 0 && r.ToolChoice.Mode != ToolsNamed
}

// GrammarField is what the answer's grammar is made of, in the order in which an engine looks for it.
func (r *Request) GrammarField() string {
	switch {
	case len(r.JSONSchema) == 0 && r.Grammar != "":
		return "grammar"
	case len(r.JSONSchema) == 0 && len(r.Tools) > 0:
		return "tools"
	}
	return "json_schema"
}

// TextBytes is the size of all texts that the client sent for the prompt, schema and tools included.
func (r *Request) TextBytes() int {
	n := len(r.Prompt) + 4*len(r.PromptTokens) + len(r.System) + len(r.JSONSchema) + len(r.Grammar) + len(r.TemplateOptions)
	for _, m := range r.Messages {
		n += m.TextBytes()
	}
	for _, t := range r.Tools {
		n += len(t.Name) + len(t.Description) + len(t.Parameters)
	}
	for _, in := range r.Inputs {
		n += len(in.Text) + 4*len(in.Tokens) + len(in.Query) + len(in.Document)
	}
	return n
}

// TextBytes is the size of the message's texts.
func (m *Message) TextBytes() int {
	n := len(m.Role) + len(m.Content) + len(m.Reasoning) + len(m.Name) + len(m.ToolCallID)
	for _, c := range m.ToolCalls {
		n += len(c.ID) + len(c.Name) + len(c.Arguments)
	}
	return n
}
