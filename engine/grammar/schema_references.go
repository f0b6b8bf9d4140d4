package grammar

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

var (
	annotations  = []string{"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"}
	dataKeywords = []string{"const", "enum", "default", "examples"} // their values are no schemas
)

// WithPlainReferences writes an allOf of nothing but one reference as that reference, as older generators of schemas
// (pydantic 1) mean it. llama.cpp's converter follows references within an allOf each time that it meets them, and so
// without an end where a class has others of its kind.
func WithPlainReferences(schema []byte) []byte {
	if checkJSON(string(schema)) != nil {
		return schema
	}
	return plainReferences(schema, false)
}

// plainReferences: named says that the members of an object are schemas by name, not keywords.
func plainReferences(value jsontext.Value, named bool) jsontext.Value {
	switch value.Kind() {
	case '[':
		list := elementsOf(value)
		for i := range list {
			list[i] = plainReferences(list[i], false)
		}
		return arrayOf(list)
	case '{':
		list := membersOf(value)
		if !named {
			list = withPlainReference(list)
		}
		for i, m := range list {
			if named || !slices.Contains(dataKeywords, m.name) {
				list[i].value = plainReferences(m.value, !named && slices.Contains(keywordsOfMap, m.name))
			}
		}
		return objectOf(list)
	}
	return value
}

func withPlainReference(list []member) []member {
	at := slices.IndexFunc(list, func(m member) bool { return m.name == "allOf" })
	if at < 0 || slices.ContainsFunc(list, func(m member) bool { return m.name != "allOf" && !slices.Contains(annotations, m.name) }) {
		return list
	}
	parts := elementsOf(list[at].value)
	if len(parts) != 1 {
		return list
	}
	if only := membersOf(parts[0]); len(only) == 1 && only[0].name == "$ref" && only[0].value.Kind() == '"' {
		list[at] = only[0]
	}
	return list
}
