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
	Type       string      `json:"type"`
	JSONSchema namedSchema `json:"json_schema"`
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
		return []byte(anyObject), nil
	case "json_schema":
	default:
		return nil, invalidField("response_format.type")
	}
	const param = "response_format.json_schema.schema"
	schema := f.JSONSchema.Schema
	switch {
	case schema.Kind() != '{':
		return nil, invalidField(param)
	case len(schema) > limitBytes:
		return nil, api.Invalid(param, "%s has %d bytes, more than the limit of %d; simplify it", param, len(schema), limitBytes)
	}
	return schema, nil
}
