package openai

import (
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// anyObject is the schema of the response format json_object.
const anyObject = `{"type":"object"}`

// responseFormat is the field response_format. Whether the client wants its schema strictly obeyed doesn't matter: it
// always is.
type responseFormat struct {
	Type       string         `json:"type"`
	JSONSchema namedSchema    `json:"json_schema"`
	Schema     jsontext.Value `json:"schema"` // of a json_object, as llama-server has it
}

// namedSchema has a name and a description as well, which the model doesn't get.
type namedSchema struct {
	Schema jsontext.Value `json:"schema"`
}

// schema is the JSON schema of the format, of at most limitBytes; nil for plain text.
func (f *responseFormat) schema(limitBytes int) ([]byte, *api.Error) {
	if f == nil {
		return nil, nil
	}
	switch f.Type {
	case "text":
		return nil, nil
	case "json_object":
		if k := f.Schema.Kind(); k == jsontext.KindInvalid || k == 'n' {
			return []byte(anyObject), nil
		}
		return checkSchema(f.Schema, "response_format.schema", limitBytes)
	case "json_schema":
	default:
		return nil, invalidField("response_format.type")
	}
	return checkSchema(f.JSONSchema.Schema, "response_format.json_schema.schema", limitBytes)
}

// checkSchema returns a copy of a schema; param is its place.
func checkSchema(schema jsontext.Value, param string, limitBytes int) ([]byte, *api.Error) {
	switch {
	case schema.Kind() != '{':
		return nil, invalidField(param)
	case len(schema) > limitBytes:
		return nil, api.Invalid(param, "%s has %d bytes, more than the limit of %d; simplify it", param, len(schema), limitBytes)
	}
	return schema.Clone(), nil
}
