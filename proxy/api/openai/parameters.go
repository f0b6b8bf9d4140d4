package openai

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// smallestTopP stands for a top_p of 0, which OpenAI allows: only the most likely token is left.
const smallestTopP = 1e-6

// parameters are the fields that both endpoints have. A null counts as absent.
type parameters struct {
	Model             string           `json:"model"`
	MaxTokens         *api.WholeNumber `json:"max_tokens"`
	Temperature       *float32         `json:"temperature"`
	TopP              *float32         `json:"top_p"`
	TopK              *api.WholeNumber `json:"top_k"`
	MinP              *float32         `json:"min_p"`
	RepeatPenalty     *float32         `json:"repeat_penalty"`
	RepetitionPenalty *float32         `json:"repetition_penalty"` // another name of repeat_penalty
	PresencePenalty   *float32         `json:"presence_penalty"`
	FrequencyPenalty  *float32         `json:"frequency_penalty"`
	Seed              *api.Seed        `json:"seed"`
	Stop              api.StopStrings  `json:"stop"`
	Stream            bool             `json:"stream"`
	StreamOptions     streamOptions    `json:"stream_options"`
	ResponseFormat    *responseFormat  `json:"response_format"`

	N         *api.WholeNumber `json:"n"`
	LogitBias logitBias        `json:"logit_bias"`
	IgnoreEnd bool             `json:"ignore_eos"`
	Grammar   string           `json:"grammar"`
	// JSONSchema is another way to write response_format, and Timings asks for the engine's times, both as llama-server
	// has them.
	JSONSchema jsontext.Value `json:"json_schema"`
	Timings    bool           `json:"timings_per_token"`
}

type streamOptions struct {
	api.ResumeOption
	IncludeUsage bool `json:"include_usage"`
}

// request makes a request of the parameters, without its prompt.
func (p *parameters) request(limits api.Limits) (*api.Request, *api.Error) {
	if err := p.checkRanges(); err != nil {
		return nil, err
	}
	schema, err := p.schema(limits.MaxSchemaBytes())
	if err != nil {
		return nil, err
	}
	switch {
	case p.Grammar != "" && schema != nil:
		return nil, api.Invalid("grammar", "grammar can't be combined with response_format; leave one of them out")
	case len(p.Grammar) > limits.MaxSchemaBytes():
		return nil, api.Invalid("grammar", "grammar has %d bytes, more than the limit of %d; simplify it", len(p.Grammar), limits.MaxSchemaBytes())
	}
	model, version, _ := strings.Cut(p.Model, ":")
	r := &api.Request{
		Model: model, Version: version,
		JSONSchema:   schema,
		MaxNewTokens: p.maxNewTokens(), FitContext: true,
		PlainSampling: true,
		Temperature:   p.Temperature, TopP: p.topP(), MinP: p.MinP, TopK: api.ConvertWholeNumber[int](p.TopK),
		RepeatPenalty: p.RepetitionPenalty, PresencePenalty: p.PresencePenalty, FrequencyPenalty: p.FrequencyPenalty,
		Seed: (*uint64)(p.Seed), Grammar: p.Grammar, LogitBias: p.LogitBias, IgnoreEnd: p.IgnoreEnd, Timings: p.Timings,
		Stream: p.Stream, IncludeUsage: p.StreamOptions.IncludeUsage,
	}
	if schema != nil && p.JSONSchema.Kind() != '{' {
		r.SchemaField = "response_format"
	}
	p.StreamOptions.Apply(r)
	if p.N != nil {
		r.Choices = int(*p.N)
	}
	if p.RepeatPenalty != nil {
		r.RepeatPenalty = p.RepeatPenalty
	}
	if len(p.Stop) > 0 {
		r.Stop = p.Stop
	}
	return r, nil
}

// schema is that of response_format or json_schema.
func (p *parameters) schema(limitBytes int) ([]byte, *api.Error) {
	switch p.JSONSchema.Kind() {
	case jsontext.KindInvalid, 'n':
		return p.ResponseFormat.schema(limitBytes)
	case '{':
	default:
		return nil, invalidField("json_schema")
	}
	if p.ResponseFormat != nil && p.ResponseFormat.Type != "text" {
		return nil, api.Invalid("json_schema", "json_schema can't be combined with response_format; leave one of them out")
	}
	return checkSchema(p.JSONSchema, "json_schema", limitBytes)
}

func (p *parameters) checkRanges() *api.Error {
	for _, c := range []struct {
		field string
		holds bool
	}{
		{"model", isModelLength(p.Model)},
		{"max_tokens", p.MaxTokens == nil || *p.MaxTokens >= 1},
		{"temperature", within(p.Temperature, 0, api.MaxTemperature)},
		{"top_p", within(p.TopP, 0, 1)},
		{"top_k", p.TopK == nil || *p.TopK <= api.MaxTopK},
		{"min_p", within(p.MinP, 0, 1)},
		{"repeat_penalty", isRepeatPenalty(p.RepeatPenalty)},
		{"repetition_penalty", isRepeatPenalty(p.RepetitionPenalty)},
		{"presence_penalty", within(p.PresencePenalty, -api.MaxPenalty, api.MaxPenalty)},
		{"frequency_penalty", within(p.FrequencyPenalty, -api.MaxPenalty, api.MaxPenalty)},
		{"stop", areStops(p.Stop)},
		{"stream_options.resume", p.StreamOptions.IsInRange()},
		{"n", p.N == nil || *p.N >= 1 && *p.N <= api.MaxChoices},
	} {
		if !c.holds {
			return invalidField(c.field)
		}
	}
	return nil
}

// maxNewTokens cuts what the client asks for to what a request can hold. The engine cuts it to the context.
func (p *parameters) maxNewTokens() *int {
	if p.MaxTokens == nil {
		return nil
	}
	return new(int(min(*p.MaxTokens, api.MaxNewTokens)))
}

func (p *parameters) topP() *float32 {
	if p.TopP == nil {
		return nil
	}
	return new(max(*p.TopP, smallestTopP))
}

func within(v *float32, low, high float32) bool { return v == nil || *v >= low && *v <= high }

func isRepeatPenalty(v *float32) bool { return v == nil || *v > 0 && *v <= api.MaxPenalty }

func isModelLength(s string) bool {
	model, version, _ := strings.Cut(s, ":")
	return len(model) <= api.MaxNameBytes && len(version) <= api.MaxNameBytes
}

func areStops(stops []string) bool {
	for _, s := range stops {
		if s == "" || len(s) > api.MaxStopBytes {
			return false
		}
	}
	return true
}
