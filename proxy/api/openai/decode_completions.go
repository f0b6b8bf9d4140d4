package openai

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// defaultCompletionTokens is max_tokens of a completion that sets none, as OpenAI documents it.
const defaultCompletionTokens = 16

// completionBody is the body of POST /v1/completions. Fields that aren't here are ignored.
type completionBody struct {
	parameters
	Prompt prompt           `json:"prompt"`
	BestOf *api.WholeNumber `json:"best_of"`
	Echo   jsontext.Value   `json:"echo"`
	Suffix jsontext.Value   `json:"suffix"`
}

func (b *completionBody) request(limits api.Limits) (*api.Request, *api.Error) {
	if b.Prompt == "" {
		return nil, api.Invalid("prompt", "prompt is required and must be %s", requirements["prompt"])
	}
	if limit := limits.MaxPromptBytes(); len(b.Prompt) > limit {
		return nil, api.Invalid("prompt", "prompt has %d bytes, more than the limit of %d; shorten it", len(b.Prompt), limit)
	}
	if err := b.refuseUnsupported(); err != nil {
		return nil, err
	}
	r, err := b.parameters.request(limits)
	if err != nil {
		return nil, err
	}
	r.Prompt, r.Raw = string(b.Prompt), true
	if r.MaxNewTokens == nil {
		r.MaxNewTokens = new(defaultCompletionTokens)
	}
	return r, nil
}

func (b *completionBody) refuseUnsupported() *api.Error {
	if b.BestOf != nil && *b.BestOf > 1 {
		return api.Invalid("best_of", "best_of must be 1; choosing among several answers is not supported yet")
	}
	return refuse([]refusal{
		{"echo", b.Echo, "", "echo is not supported; put the prompt before the answer yourself"},
		{"suffix", b.Suffix, `""`, "suffix is not supported; leave it out"},
	})
}

// prompt is a string, or a list of one string.
type prompt string

var errPrompt = errors.New("neither a string nor a list of one string")

// UnmarshalJSONFrom reads either form. Its errors about lists are *api.Error.
func (p *prompt) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		return p.readString(dec)
	case '[':
		return p.readList(dec)
	}
	return errPrompt
}

func (p *prompt) readString(dec *jsontext.Decoder) error {
	token, err := dec.ReadToken()
	if err == nil {
		*p = prompt(token.String())
	}
	return err
}

func (p *prompt) readList(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	switch dec.PeekKind() {
	case '"':
	case '0', '[':
		return api.Invalid("prompt", "prompts of token ids are not supported yet; send text")
	default:
		return errPrompt
	}
	if err := p.readString(dec); err != nil {
		return err
	}
	if dec.PeekKind() == '"' {
		return api.Invalid("prompt", "several prompts in one request are not supported yet; send a request for each")
	}
	end, err := dec.ReadToken()
	if err == nil && end.Kind() != ']' {
		return errPrompt
	}
	return err
}
