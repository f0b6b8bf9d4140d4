package anthropic

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// smallestTopP stands for a top_p of 0, which Anthropic allows: only the most likely token is left.
const smallestTopP = 1e-6

// messagesBody is the body of POST /v1/messages. Fields that aren't here are ignored.
type messagesBody struct {
	Model         string           `json:"model"`
	MaxTokens     *api.WholeNumber `json:"max_tokens"`
	System        jsontext.Value   `json:"system"`
	Messages      messageList      `json:"messages"`
	Tools         toolList         `json:"tools"`
	ToolChoice    *toolChoice      `json:"tool_choice"`
	Thinking      *thinking        `json:"thinking"`
	StopSequences api.StopStrings  `json:"stop_sequences"`
	Stream        bool             `json:"stream"`
	Temperature   *float32         `json:"temperature"`
	TopK          *api.WholeNumber `json:"top_k"`
	TopP          *float32         `json:"top_p"`
	OutputConfig  struct {
		Format *outputFormat `json:"format"`
	} `json:"output_config"`
	OutputFormat *outputFormat `json:"output_format"` // where output_config.format was before
	// These are not in Anthropic's API.
	StreamOptions api.ResumeOption `json:"stream_options"`
	Timings       bool             `json:"timings_per_token"`

	Unknown jsontext.Value `json:",embed"`
}

// ignoredFields are Anthropic's fields that have no effect here on purpose.
var ignoredFields = map[string]bool{
	"metadata": true, "service_tier": true, "mcp_servers": true, "container": true, "context_management": true, "betas": true, "inference_geo": true,
}

func (b *messagesBody) request(limits api.Limits) (*api.Request, *api.Error) {
	if err := b.checkRanges(); err != nil {
		return nil, err
	}
	r, err := b.prompt(limits)
	if err != nil {
		return nil, err
	}
	if r.JSONSchema, err = b.schema(limits.MaxSchemaBytes()); err != nil {
		return nil, err
	}
	if err := checkBegunAnswer(r); err != nil {
		return nil, err
	}
	r.MaxNewTokens = new(int(min(*b.MaxTokens, api.MaxNewTokens)))
	r.FitContext, r.PlainSampling = true, true
	r.Temperature, r.TopK = b.Temperature, api.ConvertWholeNumber[int](b.TopK)
	if b.TopP != nil {
		r.TopP = new(max(*b.TopP, smallestTopP))
	}
	if len(b.StopSequences) > 0 {
		r.Stop = b.StopSequences
	}
	r.Stream, r.Timings = b.Stream, b.Timings
	b.StreamOptions.Apply(r)
	return r, nil
}

// prompt makes a request of what the prompt is made of.
func (b *messagesBody) prompt(limits api.Limits) (*api.Request, *api.Error) {
	model, version, _ := strings.Cut(b.Model, ":")
	if len(model) > api.MaxNameBytes || len(version) > api.MaxNameBytes {
		return nil, invalidField("model")
	}
	var c conversation
	if err := c.addSystem(b.System); err != nil {
		return nil, err
	}
	if err := c.addMessages(b.Messages); err != nil {
		return nil, err
	}
	r := &api.Request{Model: model, Version: version, Messages: c.list, SplitOutput: true, UnknownFields: api.UnknownFields(b.Unknown, ignoredFields)}
	if err := b.ToolChoice.apply(r, b.Tools); err != nil {
		return nil, err
	}
	if bytes, limit := r.TextBytes(), limits.MaxPromptBytes(); bytes > limit {
		return nil, api.Invalid("messages", "messages, system and tools have %d bytes of text together, more than the limit of %d; shorten them", bytes, limit)
	}
	var err *api.Error
	r.TemplateOptions, err = b.Thinking.templateOptions(isBegun(r))
	return r, err
}

// isBegun reports whether the answer goes on with the last message.
func isBegun(r *api.Request) bool {
	last := &r.Messages[len(r.Messages)-1]
	return last.Role == "assistant" && last.Content != "" && len(last.ToolCalls) == 0 && !mustCall(r)
}

func mustCall(r *api.Request) bool {
	return r.ToolChoice.Mode == api.ToolsRequired || r.ToolChoice.Mode == api.ToolsNamed
}

// checkBegunAnswer returns an error for a last message of the assistant with which no answer goes on.
func checkBegunAnswer(r *api.Request) *api.Error {
	const ends = "messages end with one of the assistant, "
	switch last := &r.Messages[len(r.Messages)-1]; {
	case last.Role != "assistant":
	case mustCall(r):
		return api.Invalid("messages", ends+"but tool_choice asks for a call; end with one of the user")
	case !isBegun(r):
		return api.Invalid("messages", ends+"with whose text the answer would go on, but it has none, or tool_use blocks without results")
	case len(r.JSONSchema) > 0:
		return api.Invalid("messages", ends+"but a schema is that of a whole answer; end with one of the user")
	}
	return nil
}

func (b *messagesBody) checkRanges() *api.Error {
	if b.MaxTokens == nil {
		return missingField("max_tokens")
	}
	for _, c := range []struct {
		field string
		holds bool
	}{
		{"max_tokens", *b.MaxTokens >= 1},
		{"temperature", isShare(b.Temperature)},
		{"top_p", isShare(b.TopP)},
		{"top_k", b.TopK == nil || *b.TopK <= api.MaxTopK},
		{"stop_sequences", areStops(b.StopSequences)},
		{"stream_options.resume", b.StreamOptions.IsInRange()},
	} {
		if !c.holds {
			return invalidField(c.field)
		}
	}
	return nil
}

// isShare reports whether a number is from 0 to 1, if there is one.
func isShare(v *float32) bool { return v == nil || *v >= 0 && *v <= 1 }

func areStops(stops []string) bool {
	for _, s := range stops {
		if s == "" || len(s) > api.MaxStopBytes {
			return false
		}
	}
	return true
}

// thinking says whether the model is to think before it answers. How much is up to the model: budget_tokens and display
// have no counterpart.
type thinking struct {
	Type string `json:"type"`
}

// templateOptions are those of a model that can do both. As in Anthropic's API a model thinks when it is asked to.
// begun: the answer goes on with the last message.
func (t *thinking) templateOptions(begun bool) ([]byte, *api.Error) {
	options := `{"enable_thinking":false`
	if t != nil {
		switch t.Type {
		case "enabled", "adaptive":
			options = `{"enable_thinking":true`
		case "disabled":
		default:
			return nil, invalidField("thinking.type")
		}
	}
	if begun {
		options += `,"` + api.ContinueOption + `":true`
	}
	return []byte(options + "}"), nil
}

// outputFormat is the form that the answer is to have.
type outputFormat struct {
	Type   string         `json:"type"`
	Schema jsontext.Value `json:"schema"`
}

// schema is the JSON schema of the answer, of at most limitBytes; nil for plain text.
func (b *messagesBody) schema(limitBytes int) ([]byte, *api.Error) {
	format, at := b.OutputConfig.Format, "output_config.format"
	if format == nil {
		format, at = b.OutputFormat, "output_format"
	}
	switch {
	case format == nil:
		return nil, nil
	case format.Type != "json_schema":
		return nil, invalidField(at + ".type")
	case format.Schema.Kind() != '{':
		return nil, invalidField(at + ".schema")
	case len(format.Schema) > limitBytes:
		return nil, api.Invalid(at+".schema", "%s.schema has %d bytes, more than the limit of %d; simplify it", at, len(format.Schema), limitBytes)
	}
	return format.Schema, nil
}
