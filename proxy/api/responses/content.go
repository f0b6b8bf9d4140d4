package responses

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// content is the text of an item: a string, or a list of parts of which only texts are taken. Reading it fails only
// where it isn't JSON, since items that are ignored have contents of their own; check says what is wrong with one that
// counts.
type content struct {
	text    []byte
	given   bool // a null content counts as absent
	unknown bool // neither a string nor a list of objects
	// refusedAt is the first part that isn't text, of the type refusedType; -1: there is none.
	refusedAt   int
	refusedType string
}

type contentPart struct {
	Type    string  `json:"type"`
	Text    *string `json:"text"`
	Refusal *string `json:"refusal"`
}

// maxParts bounds the parts of a content. Their texts are bounded together with all others.
const maxParts = 16 << 10

var errContent = errors.New("neither a string nor a list of parts")

// UnmarshalJSONFrom reads either form.
func (c *content) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	c.refusedAt = -1
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		token, err := dec.ReadToken()
		c.text, c.given = []byte(token.String()), true
		return err
	case '[':
		c.given = true
		parts := 0
		return readList(dec, maxParts, errContent, func() error {
			parts++
			return c.readPart(dec, parts-1)
		})
	}
	c.given, c.unknown = true, true
	return dec.SkipValue()
}

func (c *content) readPart(dec *jsontext.Decoder, at int) error {
	if dec.PeekKind() != '{' {
		c.unknown = true
		return dec.SkipValue()
	}
	var p contentPart
	if err := json.UnmarshalDecode(dec, &p); err != nil {
		return err
	}
	switch text := p.textOrNil(); {
	case text != nil:
		c.text = append(c.text, *text...)
	case c.refusedAt < 0:
		c.refusedAt, c.refusedType = at, p.Type
	}
	return nil
}

// textOrNil is the part's text, of whichever kind; nil when it has none.
func (p *contentPart) textOrNil() *string {
	switch p.Type {
	case "input_text", "output_text", "reasoning_text", "summary_text", "text":
		return p.Text
	case "refusal":
		return p.Refusal
	}
	return nil
}

// isEmpty reports whether there is nothing, good or bad.
func (c *content) isEmpty() bool {
	return !c.given || len(c.text) == 0 && !c.unknown && c.refusedAt < 0
}

// check returns the text; param is its place in the body.
func (c *content) check(param string) ([]byte, *api.Error) {
	switch {
	case !c.given || c.unknown:
		return nil, invalidField(param)
	case c.refusedAt < 0:
		return c.text, nil
	}
	at := string(api.AppendInt([]byte(param), "[", c.refusedAt)) + "]"
	switch c.refusedType {
	case "input_text", "output_text", "reasoning_text", "summary_text", "text", "refusal":
		return nil, api.Invalid(at, "%s has no text", at)
	case "":
		return nil, api.Invalid(at+".type", "%s.type is required and must be input_text or output_text", at)
	}
	return nil, api.Invalid(at+".type", "content of the type %s is not supported; send parts of the type input_text", api.Quote(c.refusedType))
}

// outputText is the text of a tool's output: that of a string or of parts, and of anything else its JSON.
func outputText(v jsontext.Value, param string) ([]byte, *api.Error) {
	var c content
	if len(v) == 0 || json.Unmarshal(v, &c) != nil || !c.given {
		return nil, invalidField(param)
	}
	if c.unknown || c.refusedAt >= 0 && c.refusedType == "" {
		return v, nil
	}
	return c.check(param)
}
