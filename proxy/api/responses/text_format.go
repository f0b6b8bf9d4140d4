package responses

import (
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// anyObject is the schema of the format json_object.
const anyObject = `{"type":"object"}`

// textOptions is the field text. verbosity, a hint, is ignored.
type textOptions struct {
	Format *textFormat `json:"format"`
}

// textFormat is the format of the answer. Whether the client wants its schema strictly obeyed doesn't matter: it always
// is.
type textFormat struct {
	Type        string         `json:"type"`
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Schema      jsontext.Value `json:"schema"`
}

// schema is the JSON schema of the format, of at most limitBytes; nil for plain text.
func (o *textOptions) schema(limitBytes int) ([]byte, *api.Error) {
	const param = "text.format.schema"
	f := o.Format
	if f == nil {
		return nil, nil
	}
	switch f.Type {
	case "text":
		return nil, nil
	case "json_object":
		return []byte(anyObject), nil
	case "json_schema":
	default:
		return nil, invalidField("text.format.type")
	}
	switch {
	case len(f.Name) > api.MaxNameBytes:
		return nil, invalidField("text.format.name")
	case f.Schema.Kind() != '{':
		return nil, invalidField(param)
	case len(f.Schema)+len(f.Description) > limitBytes:
		return nil, api.Invalid(param, "%s and its description have %d bytes, more than the limit of %d; simplify it", param, len(f.Schema)+len(f.Description), limitBytes)
	}
	return f.Schema, nil
}

// appendEcho appends the format as the response repeats it.
func (o *textOptions) appendEcho(dst []byte) []byte {
	f := o.Format
	switch {
	case f == nil || f.Type == "text":
		return append(dst, `{"type":"text"}`...)
	case f.Type == "json_object":
		return append(dst, `{"type":"json_object"}`...)
	}
	dst = api.AppendMember(dst, `{"type":"json_schema","name":`, f.Name)
	if f.Description != "" {
		dst = api.AppendMember(dst, `,"description":`, f.Description)
	}
	return append(appendJSON(append(dst, `,"schema":`...), f.Schema), `,"strict":true}`...)
}
