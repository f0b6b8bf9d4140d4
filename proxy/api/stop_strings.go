package api

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"
)

// StopStrings is a string or a list of at most MaxStops strings, as every dialect takes stop. Their lengths are checked
// by the dialect.
type StopStrings []string

var errStopStrings = errors.New("not a string or a short list of strings")

// UnmarshalJSONFrom reads either form, and of a list no more entries than are allowed.
func (s *StopStrings) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		return s.add(dec)
	case '[':
	default:
		return errStopStrings
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() == '"' && len(*s) < MaxStops {
		if err := s.add(dec); err != nil {
			return err
		}
	}
	if end, err := dec.ReadToken(); err != nil {
		return err
	} else if end.Kind() != ']' {
		return errStopStrings
	}
	return nil
}

func (s *StopStrings) add(dec *jsontext.Decoder) error {
	token, err := dec.ReadToken()
	if err != nil {
		return err
	}
	*s = append(*s, token.String())
	return nil
}
