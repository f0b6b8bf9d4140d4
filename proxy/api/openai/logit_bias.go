package openai

import (
	"errors"
	"math"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// logitBias is an object from token ids, written as strings, to what is added to their logits. llama-server's form, a
// list of pairs, is not taken.
type logitBias []api.TokenBias

const maxLogitBias = 100

var errLogitBias = errors.New("not an object from token ids to numbers")

// UnmarshalJSONFrom reads at most api.MaxLogitBias entries.
func (l *logitBias) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '{':
	default:
		return errLogitBias
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		if len(*l) == api.MaxLogitBias {
			return errLogitBias
		}
		b, err := readTokenBias(dec)
		if err != nil {
			return err
		}
		*l = append(*l, b)
	}
	_, err := dec.ReadToken()
	return err
}

func readTokenBias(dec *jsontext.Decoder) (api.TokenBias, error) {
	name, err := dec.ReadToken()
	if err != nil {
		return api.TokenBias{}, err
	}
	id, ok := api.ParseWholeNumber(name.String())
	if !ok || id > math.MaxInt32 || dec.PeekKind() != '0' {
		return api.TokenBias{}, errLogitBias
	}
	value, err := dec.ReadToken()
	if err != nil {
		return api.TokenBias{}, err
	}
	bias, err := value.Float()
	if err != nil || !(math.Abs(bias) <= maxLogitBias) {
		return api.TokenBias{}, errLogitBias
	}
	return api.TokenBias{Token: int32(id), Bias: float32(bias)}, nil
}
