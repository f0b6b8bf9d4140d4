package api

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
	MaxMessages     = 1024 // of a conversation
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

	Prompt     string // empty only with Messages
	System     string
	HasSystem  bool   // an empty System counts as given: the model's template then writes none of its own
	JSONSchema []byte // a JSON object of at most MaxSchemaBytes, or nil

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

	Domain string // as requested, may be empty; see Domains
	Stream bool
	// IncludeUsage asks a stream to say at its end how many tokens it took, in dialects that do so only when asked.
	IncludeUsage bool
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
// DefaultNewTokens, or all of the context with FitContext. contextTokens 0 means not known yet.
func (r *Request) NewTokens(contextTokens int) (int, *Error) {
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

// Message is one turn of a conversation.
type Message struct {
	Role    string // system, user or assistant
	Content string
}

// TextBytes is the size of all texts that the client sent for the prompt, the schema included.
func (r *Request) TextBytes() int {
	n := len(r.Prompt) + len(r.System) + len(r.JSONSchema)
	for _, m := range r.Messages {
		n += len(m.Role) + len(m.Content)
	}
	return n
}
