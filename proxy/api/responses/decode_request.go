package responses

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// smallestTopP stands for a top_p of 0, which OpenAI allows: only the most likely token is left.
const smallestTopP = 1e-6

// requestBody is the body of POST /v1/responses. Fields that aren't here are ignored.
type requestBody struct {
	Model             string           `json:"model"`
	Input             input            `json:"input"`
	Instructions      *string          `json:"instructions"`
	Tools             toolList         `json:"tools"`
	ToolChoice        toolChoice       `json:"tool_choice"`
	ParallelToolCalls *bool            `json:"parallel_tool_calls"`
	MaxOutputTokens   *api.WholeNumber `json:"max_output_tokens"`
	Temperature       *float32         `json:"temperature"`
	TopP              *float32         `json:"top_p"`
	TopLogprobs       *api.WholeNumber `json:"top_logprobs"`
	Include           includes         `json:"include"`
	Text              textOptions      `json:"text"`
	Reasoning         reasoning        `json:"reasoning"`
	Truncation        string           `json:"truncation"`
	Stream            bool             `json:"stream"`
	StreamOptions     api.ResumeOption `json:"stream_options"`
	Metadata          jsontext.Value   `json:"metadata"`
	User              string           `json:"user"`
	SafetyIdentifier  string           `json:"safety_identifier"`
	PromptCacheKey    string           `json:"prompt_cache_key"`

	// These are not in OpenAI's API.
	Seed             *api.Seed        `json:"seed"`
	Stop             api.StopStrings  `json:"stop"`
	TopK             *api.WholeNumber `json:"top_k"`
	MinP             *float32         `json:"min_p"`
	PresencePenalty  *float32         `json:"presence_penalty"`
	FrequencyPenalty *float32         `json:"frequency_penalty"`
	Timings          bool             `json:"timings_per_token"`

	// These ask for what was stored, or for storing.
	PreviousResponseID jsontext.Value `json:"previous_response_id"`
	Conversation       jsontext.Value `json:"conversation"`
	Prompt             jsontext.Value `json:"prompt"`
	Background         jsontext.Value `json:"background"`

	Unknown jsontext.Value `json:",embed"`
}

type reasoning struct {
	Effort string `json:"effort"`
}

func decode(text []byte, limits api.Limits) (*api.Request, *api.Error) {
	var b requestBody
	if err := decodeBody(text, &b); err != nil {
		return nil, err
	}
	return b.request(limits)
}

// ignoredFields are OpenAI's fields that have no effect here on purpose.
var ignoredFields = map[string]bool{
	"store": true, "service_tier": true, "max_tool_calls": true, "prompt_cache_retention": true, "context_management": true,
	"client_metadata": true,
}

func (b *requestBody) request(limits api.Limits) (*api.Request, *api.Error) {
	if err := b.refuseStored(); err != nil {
		return nil, err
	}
	if err := b.checkRanges(); err != nil {
		return nil, err
	}
	tools, err := b.Tools.check()
	if err != nil {
		return nil, err
	}
	model, version, err := api.SplitModelID(b.Model)
	if err != nil {
		return nil, err
	}
	r := &api.Request{
		UnknownFields: api.UnknownFields(b.Unknown, ignoredFields),
		Model:         model, Version: version,
		SplitOutput: true, FitContext: true, PlainSampling: true,
		Temperature: b.Temperature, TopP: b.TopP, TopK: api.ConvertWholeNumber[int](b.TopK), MinP: b.MinP,
		PresencePenalty: b.PresencePenalty, FrequencyPenalty: b.FrequencyPenalty,
		Seed: (*uint64)(b.Seed), Logprobs: b.Include.logprobs,
		TemplateOptions: b.Reasoning.templateOptions(), Stream: b.Stream, Timings: b.Timings,
	}
	if b.TopP != nil {
		r.TopP = new(max(*b.TopP, smallestTopP))
	}
	if b.MaxOutputTokens != nil { // the engine cuts it to the context
		r.MaxNewTokens = new(int(min(*b.MaxOutputTokens, api.MaxNewTokens)))
	}
	if b.Include.logprobs && b.TopLogprobs != nil {
		r.TopLogprobs = int(*b.TopLogprobs)
	}
	if len(b.Stop) > 0 {
		r.Stop = b.Stop
	}
	b.StreamOptions.Apply(r)
	if r.JSONSchema, err = b.Text.schema(limits.MaxSchemaBytes()); err != nil {
		return nil, err
	}
	if r.Messages, err = b.Input.conversation(b.Instructions, tools); err != nil {
		return nil, err
	}
	if err := b.ToolChoice.apply(r, tools); err != nil {
		return nil, err
	}
	r.SetParallelCalls(b.wantsParallelCalls())
	if err := checkTextBytes(r, limits.MaxPromptBytes()); err != nil {
		return nil, err
	}
	r.Extra, err = b.echo(r, tools)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (b *requestBody) wantsParallelCalls() bool {
	return b.ParallelToolCalls == nil || *b.ParallelToolCalls
}

// refuseStored refuses what a server without a store can't do. What a client sends by default, such as store, is no
// reason to refuse it.
func (b *requestBody) refuseStored() *api.Error {
	for _, f := range []struct {
		param string
		value jsontext.Value
		why   string
	}{
		{"previous_response_id", b.PreviousResponseID, "responses are not stored, so previous_response_id can't be used; send the whole conversation in input"},
		{"conversation", b.Conversation, "conversations are not stored; leave conversation out and send all of it in input"},
		{"prompt", b.Prompt, "prompt templates are not stored; leave prompt out and send instructions and input"},
		{"background", b.Background, "responses are not made in the background; leave background out, and use stream for long answers"},
	} {
		switch f.value.Kind() {
		case jsontext.KindInvalid, 'n', 'f': // absent, null, false
		default:
			err := api.Invalid(f.param, "%s", f.why)
			err.OwnParam = true // prompt isn't what it is in /infer
			return err
		}
	}
	return nil
}

func (b *requestBody) checkRanges() *api.Error {
	for _, c := range []struct {
		field string
		holds bool
	}{
		{"max_output_tokens", b.MaxOutputTokens == nil || *b.MaxOutputTokens >= 1},
		{"temperature", within(b.Temperature, 0, api.MaxTemperature)},
		{"top_p", within(b.TopP, 0, 1)},
		{"top_k", b.TopK == nil || *b.TopK <= api.MaxTopK},
		{"min_p", within(b.MinP, 0, 1)},
		{"presence_penalty", within(b.PresencePenalty, -api.MaxPenalty, api.MaxPenalty)},
		{"frequency_penalty", within(b.FrequencyPenalty, -api.MaxPenalty, api.MaxPenalty)},
		{"stop", areStops(b.Stop)},
		{"top_logprobs", b.TopLogprobs == nil || *b.TopLogprobs <= api.MaxTopLogprobs},
		{"stream_options.resume", b.StreamOptions.IsInRange()},
		{"reasoning.effort", len(b.Reasoning.Effort) <= api.MaxNameBytes},
		{"truncation", b.Truncation == "" || b.Truncation == "auto" || b.Truncation == "disabled"},
		{"user", len(b.User) <= maxEchoedBytes},
		{"safety_identifier", len(b.SafetyIdentifier) <= maxEchoedBytes},
		{"prompt_cache_key", len(b.PromptCacheKey) <= maxEchoedBytes},
	} {
		if !c.holds {
			return invalidField(c.field)
		}
	}
	return nil
}

func within(v *float32, low, high float32) bool { return v == nil || *v >= low && *v <= high }

func areStops(stops []string) bool {
	for _, s := range stops {
		if s == "" || len(s) > api.MaxStopBytes {
			return false
		}
	}
	return true
}

// checkTextBytes bounds all texts that reach the chat template. A schema of the answer has a limit of its own.
func checkTextBytes(r *api.Request, limit int) *api.Error {
	if n := r.TextBytes() - len(r.JSONSchema); n > limit {
		return api.Invalid("input", "input, instructions and tools have %d bytes of text together, more than the limit of %d; shorten them", n, limit)
	}
	return nil
}

// templateOptions are the values for the chat template: a model that can think takes one or the other. What a template
// doesn't know has no effect.
func (r *reasoning) templateOptions() []byte {
	switch r.Effort {
	case "":
		return nil
	case "none":
		return []byte(`{"enable_thinking":false,"reasoning_effort":"none"}`)
	}
	return append(api.AppendMember(nil, `{"reasoning_effort":`, r.Effort), '}')
}

// includes is the field include, of which only log-probabilities have a meaning here.
type includes struct{ logprobs bool }

const maxIncludes = 64

var errIncludes = errors.New("not a short list of strings")

// UnmarshalJSONFrom reads the list.
func (i *includes) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return readList(dec, maxIncludes, errIncludes, func() error {
		if dec.PeekKind() != '"' {
			return errIncludes
		}
		token, err := dec.ReadToken()
		i.logprobs = i.logprobs || token.String() == "message.output_text.logprobs"
		return err
	})
}
