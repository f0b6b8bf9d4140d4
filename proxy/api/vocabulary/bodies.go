package vocabulary

import (
	"errors"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// TokenizeRequest is a checked body of POST /tokenize.
type TokenizeRequest struct {
	Model      string
	Version    string
	Content    string
	AddSpecial bool // the tokens that the model has around every text, too
	WithPieces bool // the text of each token, too
}

// DetokenizeRequest is a checked body of POST /detokenize.
type DetokenizeRequest struct {
	Model   string
	Version string
	Tokens  []int32
}

// MaxTokens is how many tokens a body may hold.
const MaxTokens = 1 << 20

type tokenizeBody struct {
	Model        string  `json:"model"`
	Content      *string `json:"content"`
	AddSpecial   bool    `json:"add_special"`
	WithPieces   bool    `json:"with_pieces"`
	ParseSpecial *bool   `json:"parse_special"`
}

// DecodeTokenize reads a body of POST /tokenize.
func DecodeTokenize(body []byte, limits api.Limits) (*TokenizeRequest, *api.Error) {
	var b tokenizeBody
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	switch {
	case b.Content == nil:
		return nil, api.Invalid("content", "content is required and must be a string")
	case len(*b.Content) > limits.MaxPromptBytes():
		return nil, api.Invalid("content", "content has %d bytes, more than the limit of %d; shorten it", len(*b.Content), limits.MaxPromptBytes())
	case b.ParseSpecial != nil && *b.ParseSpecial:
		return nil, api.Invalid("parse_special", "parse_special is not supported: text never becomes a control token; leave it out")
	}
	r := &TokenizeRequest{Content: *b.Content, AddSpecial: b.AddSpecial, WithPieces: b.WithPieces}
	var err *api.Error
	r.Model, r.Version, err = api.SplitModelID(b.Model)
	return r, err
}

type detokenizeBody struct {
	Model  string    `json:"model"`
	Tokens tokenList `json:"tokens"`
}

// DecodeDetokenize reads a body of POST /detokenize.
func DecodeDetokenize(body []byte) (*DetokenizeRequest, *api.Error) {
	var b detokenizeBody
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	if !b.Tokens.given {
		return nil, api.Invalid("tokens", "tokens is required and must be a list of token ids")
	}
	r := &DetokenizeRequest{Tokens: b.Tokens.ids}
	var err *api.Error
	r.Model, r.Version, err = api.SplitModelID(b.Model)
	return r, err
}

// tokenList is read one by one, so that its length is bounded while it is read.
type tokenList struct {
	ids   []int32
	given bool
}

var errTokens = errors.New("not a list of token ids")

// UnmarshalJSONFrom reads at most MaxTokens ids.
func (l *tokenList) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '[':
	default:
		return errTokens
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	l.given = true
	for dec.PeekKind() == '0' && len(l.ids) < MaxTokens {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		id, ok := api.ParseWholeNumber(token.String())
		if !ok || id > math.MaxInt32 {
			return errTokens
		}
		l.ids = append(l.ids, int32(id))
	}
	end, err := dec.ReadToken()
	if err == nil && end.Kind() != ']' {
		return errTokens
	}
	return err
}

// decodeBody reads a body into b, a pointer to a struct whose fields are at the top.
func decodeBody(body []byte, b any) *api.Error {
	if jsontext.Value(body).Kind() != '{' || api.NestedDeeperThan(body, api.MaxNestingDepth) {
		return api.Invalid("", "the body must be a JSON object")
	}
	err := json.Unmarshal(body, b)
	if err == nil {
		return nil
	}
	if meaning, ok := errors.AsType[*json.SemanticError](err); ok {
		for token := range meaning.JSONPointer.Tokens() {
			if must, known := requirements[token]; known {
				return api.Invalid(token, "%s must be %s", token, must)
			}
			break
		}
	}
	return api.Invalid("", "the body is not valid JSON, has a field twice or one of the wrong type")
}

// requirements gives for each field the words that follow "must be" in an error.
var requirements = map[string]string{
	"model":         "a string: the name of a model, or name and version with a colon between them",
	"content":       "a string",
	"add_special":   "true or false",
	"with_pieces":   "true or false",
	"parse_special": "false",
	"tokens":        "a list of token ids",
}

// AppendTokens appends the reply to POST /tokenize.
func AppendTokens(dst []byte, tokens []int32) []byte {
	dst = append(dst, `{"tokens":[`...)
	for i, t := range tokens {
		dst = strconv.AppendInt(api.AppendComma(dst, i), int64(t), 10)
	}
	return append(dst, "]}"...)
}

// AppendPieces appends the reply with the text of each token. A part of a character is a list of its bytes.
func AppendPieces(dst []byte, tokens []int32, pieces [][]byte) []byte {
	dst = append(dst, `{"tokens":[`...)
	for i, t := range tokens {
		dst = strconv.AppendInt(append(api.AppendComma(dst, i), `{"id":`...), int64(t), 10)
		dst = append(appendPiece(append(dst, `,"piece":`...), pieces[i]), '}')
	}
	return append(dst, "]}"...)
}

func appendPiece(dst, piece []byte) []byte {
	if utf8.Valid(piece) {
		return api.AppendString(dst, piece)
	}
	dst = append(dst, '[')
	for i, b := range piece {
		dst = strconv.AppendUint(api.AppendComma(dst, i), uint64(b), 10)
	}
	return append(dst, ']')
}

// AppendContent appends the reply to POST /detokenize.
func AppendContent(dst, text []byte) []byte {
	return append(api.AppendString(append(dst, `{"content":`...), text), '}')
}

// AppendPrompt appends the reply to POST /apply-template.
func AppendPrompt(dst, prompt []byte) []byte {
	return append(api.AppendString(append(dst, `{"prompt":`...), prompt), '}')
}
