package grammar

import (
	"encoding/json"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// Arguments are those of one tool, or one of them, as JSON by a schema in the middle of a tool call. The grammar of the
// calls has a literal in their place.
type Arguments struct {
	Literal string          `json:"literal"`
	Schema  json.RawMessage `json:"schema"`
	Strict  bool            `json:"strict,omitempty"` // what can't be obeyed is an error; otherwise it doesn't bind
}

// Alone is a grammar of nothing but the arguments, to find out whether they can be followed.
func (a Arguments) Alone() Source {
	if a.Strict {
		return Source{JSONSchema, string(closeObjects(jsontext.Value(a.Schema)))} // its errors name a place
	}
	return Answer{Calls: "root ::= " + quoteLiteral(a.Literal), Begin: "root", Arguments: []Arguments{a}}.Source()
}

// prepare is the schema as the library gets it.
func (a Arguments) prepare() (string, error) {
	return prepareSchemaWith(string(closeObjects(jsontext.Value(a.Schema))), guidanceOptions{Lenient: !a.Strict})
}

// Keywords beside properties that may name further ones.
var combiningKeywords = []string{"allOf", "anyOf", "oneOf", "if", "then", "else", "not", "dependentSchemas", "dependencies", "$ref"}

// closeObjects gives objects that list their properties and say nothing of others no others, as those who describe
// functions mean it. Objects that are put together of several schemas stay as they are.
func closeObjects(schema jsontext.Value) jsontext.Value {
	return objectCloser{definitions: !putsObjectsTogether(schema)}.schema(schema)
}

// putsObjectsTogether reports whether an object may have to meet several schemas of a text, so that one of them alone
// doesn't know all of its properties.
func putsObjectsTogether(schema jsontext.Value) bool {
	all := keywords(schema, nil)
	withProperties := make(map[*pathStep]bool)
	for _, k := range all {
		if k.name == "properties" {
			withProperties[k.parent] = true
		}
	}
	return slices.ContainsFunc(all, func(k keyword) bool {
		return k.name == "allOf" && len(elementsOf(k.value)) > 1 || slices.Contains(combiningKeywords, k.name) && withProperties[k.parent]
	})
}

// objectCloser is one walk through a schema. With definitions it closes those, too: nothing adds properties to them.
type objectCloser struct{ definitions bool }

func (c objectCloser) schema(value jsontext.Value) jsontext.Value {
	if value.Kind() != '{' {
		return value
	}
	list := membersOf(value)
	named := hasMember(list, "properties")
	for i, m := range list {
		switch m.name {
		case "properties":
			list[i].value = c.each(m.value)
		case "$defs", "definitions":
			if c.definitions {
				list[i].value = c.each(m.value)
			}
		case "items", "prefixItems", "additionalItems", "additionalProperties":
			list[i].value = c.listed(m.value)
		case "anyOf", "oneOf":
			if !named {
				list[i].value = c.listed(m.value)
			}
		case "allOf":
			if !named && len(elementsOf(m.value)) == 1 {
				list[i].value = c.listed(m.value)
			}
		}
	}
	if isOpenByDefault(list) {
		list = append(list, member{"additionalProperties", jsontext.Value("false")})
	}
	return objectOf(list)
}

func (c objectCloser) each(value jsontext.Value) jsontext.Value {
	if value.Kind() != '{' {
		return value
	}
	list := membersOf(value)
	for i := range list {
		list[i].value = c.schema(list[i].value)
	}
	return objectOf(list)
}

// listed is a schema or a list of some.
func (c objectCloser) listed(value jsontext.Value) jsontext.Value {
	if value.Kind() != '[' {
		return c.schema(value)
	}
	list := elementsOf(value)
	for i := range list {
		list[i] = c.schema(list[i])
	}
	return arrayOf(list)
}

func hasMember(list []member, name string) bool {
	return slices.ContainsFunc(list, func(m member) bool { return m.name == name })
}

// isOpenByDefault reports whether a schema lists all properties that it knows and leaves open whether there are others.
func isOpenByDefault(list []member) bool {
	var names, required []string
	found := false
	for _, m := range list {
		switch {
		case m.name == "properties" && m.value.Kind() == '{':
			found = true
			for _, property := range membersOf(m.value) {
				names = append(names, property.name)
			}
		case m.name == "required":
			for _, name := range elementsOf(m.value) {
				required = append(required, unquoted(name))
			}
		case m.name == "additionalProperties", m.name == "patternProperties", m.name == "unevaluatedProperties":
			return false
		case slices.Contains(combiningKeywords, m.name) && namesProperties(m):
			return false
		}
	}
	unknown := func(name string) bool { return !slices.Contains(names, name) }
	return found && !slices.ContainsFunc(required, unknown)
}

// namesProperties reports whether a keyword that combines schemas may bring in properties.
func namesProperties(m member) bool {
	return slices.ContainsFunc(keywords(objectOf([]member{m}), nil), func(k keyword) bool {
		return k.name == "properties" || k.name == "patternProperties" || k.name == "$ref"
	})
}

// PropertySchema is the schema of one property, with the definitions of the whole.
func PropertySchema(schema []byte, name string) []byte {
	var property jsontext.Value
	var definitions []member
	for _, m := range membersOf(schema) {
		switch m.name {
		case "properties":
			for _, p := range membersOf(m.value) {
				if p.name == name {
					property = p.value
				}
			}
		case "$schema", "$defs", "definitions":
			definitions = append(definitions, m)
		}
	}
	if property.Kind() != '{' { // true, or nothing of that name
		return objectOf(nil)
	}
	own := slices.DeleteFunc(membersOf(property), func(m member) bool { return hasMember(definitions, m.name) })
	return objectOf(append(definitions, own...))
}
