package openai

import (
	"errors"
	"math"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// defaultCompletionTokens is max_tokens of a completion that sets none, as OpenAI documents it.
const defaultCompletionTokens = 16

// completionBody is the body of POST /v1/completions. Fields that aren't here are ignored.
type completionBody struct {
	parameters
	Prompt   prompt           `json:"prompt"`
	BestOf   *api.WholeNumber `json:"best_of"`
	Echo     bool             `json:"echo"`
	Logprobs *api.WholeNumber `json:"logprobs"` // how many of the most likely tokens at each place
	Suffix   jsontext.Value   `json:"suffix"`

	Unknown jsontext.Value `json:",embed"`
}

// completionExtra is what the encoder needs besides the request.
type completionExtra struct {
	promptOnly bool // max_tokens was 0: only the prompt is shown
}

func (b *completionBody) request(limits api.Limits) (*api.Request, *api.Error) {
	if err := checkInputs("prompt", b.Prompt.inputs, limits.MaxPromptBytes()); err != nil {
		return nil, err
	}
	if err := b.refuseUnsupported(); err != nil {
		return nil, err
	}
	promptOnly := b.MaxTokens != nil && *b.MaxTokens == 0 && b.Echo
	if promptOnly { // an engine always generates a token; the encoder leaves it out
		b.MaxTokens = new(api.WholeNumber(1))
	}
	r, err := b.parameters.request(limits)
	if err != nil {
		return nil, err
	}
	r.Raw, r.Echo, r.Extra = true, b.Echo, completionExtra{promptOnly: promptOnly}
	if b.Logprobs != nil {
		r.Logprobs, r.TopLogprobs = true, int(*b.Logprobs)
	}
	b.setPrompt(r)
	r.UnknownFields = api.UnknownFields(b.Unknown, ignoredFields)
	if n := r.ChoiceCount(); n > api.MaxInputs {
		return nil, api.Invalid("n", "n times the number of prompts is %d, more than the limit of %d; send several requests", n, api.MaxInputs)
	}
	if r.MaxNewTokens == nil {
		r.MaxNewTokens = new(defaultCompletionTokens)
	}
	return r, b.checkEcho(r)
}

// setPrompt sets the prompts, and whether the engine has to say what it knows of their tokens.
func (b *completionBody) setPrompt(r *api.Request) {
	list := b.Prompt.inputs
	if len(list) == 1 {
		r.Prompt, r.PromptTokens = list[0].Text, list[0].Tokens
	} else {
		r.Inputs = list
	}
	r.PromptLogprobs = b.Echo && (r.Logprobs || len(list[0].Tokens) > 0)
}

// checkEcho refuses what isn't known before the first token of a stream is written.
func (b *completionBody) checkEcho(r *api.Request) *api.Error {
	if r.Stream && r.PromptLogprobs {
		return api.Invalid("echo", "echo with logprobs or with a prompt of token ids is not possible in a stream; set stream to false")
	}
	return nil
}

// checkInputs checks the prompts of a field: some, none empty, of at most limitBytes together.
func checkInputs(field string, inputs []api.Input, limitBytes int) *api.Error {
	if len(inputs) == 0 {
		return api.Invalid(field, "%s is required and must be %s", field, requirements[field])
	}
	bytes := 0
	for i := range inputs {
		in := &inputs[i]
		if in.Text == "" && len(in.Tokens) == 0 {
			return invalidField(field)
		}
		bytes += len(in.Text) + 4*len(in.Tokens)
	}
	if bytes > limitBytes {
		return api.Invalid(field, "%s has %d bytes, more than the limit of %d; shorten it", field, bytes, limitBytes)
	}
	return nil
}

func (b *completionBody) refuseUnsupported() *api.Error {
	n := api.WholeNumber(1)
	if b.N != nil {
		n = *b.N
	}
	switch {
	case b.BestOf != nil && *b.BestOf != n:
		return api.Invalid("best_of", "best_of must be the same as n; choosing among more answers is not supported")
	case b.Logprobs != nil && *b.Logprobs > api.MaxTopLogprobs:
		return invalidField("logprobs")
	}
	return refuse([]refusal{
		{"suffix", b.Suffix, `""`, "suffix is not supported; leave it out"},
	})
}

// prompt is a string, a list of strings, a list of token ids, or a list of such lists.
type prompt struct{ inputs []api.Input }

var errPrompt = errors.New("not a prompt")

// UnmarshalJSONFrom reads each form, and of a list no more entries than are allowed.
func (p *prompt) UnmarshalJSONFrom(dec *jsontext.Decoder) (err error) {
	p.inputs, err = readInputs(dec)
	return err
}

// readInputs reads texts or lists of tokens; nil for null.
func readInputs(dec *jsontext.Decoder) ([]api.Input, error) {
	switch dec.PeekKind() {
	case 'n':
		return nil, dec.SkipValue()
	case '"':
		text, err := dec.ReadToken()
		return []api.Input{{Text: text.String()}}, err
	case '[':
	default:
		return nil, errPrompt
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, err
	}
	if dec.PeekKind() == '0' {
		tokens, err := readTokens(dec)
		return []api.Input{{Tokens: tokens}}, err
	}
	var list []api.Input
	for dec.PeekKind() != ']' {
		if len(list) == api.MaxInputs {
			return nil, errPrompt
		}
		in, err := readInput(dec)
		if err != nil {
			return nil, err
		}
		list = append(list, in)
	}
	_, err := dec.ReadToken()
	return list, err
}

func readInput(dec *jsontext.Decoder) (api.Input, error) {
	token, err := dec.ReadToken()
	if err != nil {
		return api.Input{}, err
	}
	switch token.Kind() {
	case '"':
		return api.Input{Text: token.String()}, nil
	case '[':
		tokens, err := readTokens(dec)
		return api.Input{Tokens: tokens}, err
	}
	return api.Input{}, errPrompt
}

// readTokens reads the rest of a list of token ids.
func readTokens(dec *jsontext.Decoder) ([]int32, error) {
	var list []int32
	for dec.PeekKind() == '0' {
		token, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		id, ok := api.ParseWholeNumber(token.String())
		if !ok || id > math.MaxInt32 {
			return nil, errPrompt
		}
		list = append(list, int32(id))
	}
	end, err := dec.ReadToken()
	if err == nil && end.Kind() != ']' {
		return nil, errPrompt
	}
	return list, err
}
