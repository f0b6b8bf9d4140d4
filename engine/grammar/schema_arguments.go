package grammar

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Arguments are those of one tool, or one of them, as JSON by a schema in the middle of a tool call. The grammar of the
// calls has a literal in their place.
type Arguments struct {
	Literal string          `json:"literal"`
	Schema  json.RawMessage `json:"schema"`
	Strict  bool            `json:"strict,omitempty"` // what can't be obeyed is an error; otherwise it doesn't bind
	// Texts are those that the only argument may be where it is text between tags, whatever the schema says besides.
	Texts []string `json:"texts,omitempty"`
}

// Alone is a grammar of nothing but the arguments, to find out whether they can be followed.
func (a Arguments) Alone() Source {
	if a.Strict && len(a.Texts) == 0 {
		return Source{JSONSchema, string(closeObjects(jsontext.Value(a.Schema)))} // its errors name a place
	}
	return Answer{Calls: "root ::= " + quoteLiteral(a.Literal), Begin: "root", Arguments: []Arguments{a}}.Source()
}

// rule is what follows the name of the rule that the arguments have.
func (a Arguments) rule() (string, error) {
	if len(a.Texts) == 0 {
		schema, err := a.prepare()
		return "%json " + schema, err
	}
	texts := make([]string, len(a.Texts))
	for i, text := range a.Texts {
		texts[i] = literal(text, nil)
	}
	return strings.Join(texts, " | "), nil
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
	sources := make(map[*pathStep]int) // of properties, by the schema
	several := false
	for _, k := range keywords(schema, nil) {
		switch {
		case k.name == "properties", k.name == "patternProperties":
			sources[k.parent]++
		case k.name == "allOf":
			sources[k.parent] += len(elementsOf(k.value))
		case slices.Contains(combiningKeywords, k.name):
			sources[k.parent]++
		}
		several = several || sources[k.parent] > 1
	}
	return several
}

// objectCloser is one walk through a schema. With definitions it closes those, too: nothing adds properties to them.
type objectCloser struct{ definitions bool }

func (c objectCloser) schema(value jsontext.Value) jsontext.Value {
	if value.Kind() != '{' {
		return value
	}
	list := membersOf(value)
	named, combining := hasMember(list, "properties") || hasMember(list, "patternProperties"), 0
	for _, m := range list {
		if slices.Contains(combiningKeywords, m.name) {
			combining++
		}
	}
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
			if !named && combining == 1 {
				list[i].value = c.listed(m.value)
			}
		case "allOf":
			if !named && combining == 1 && len(elementsOf(m.value)) == 1 {
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
	if refersToProperties(append(definitions, member{name, property})) {
		whole := objectOf([]member{{wholeDefinition, moveReferences(schema)}})
		return objectOf([]member{{"$defs", whole}, {"$ref", quotedJSON("#/$defs/" + wholeDefinition + "/properties/" + escapePointer(name))}})
	}
	own := slices.DeleteFunc(membersOf(property), func(m member) bool { return hasMember(definitions, m.name) })
	return objectOf(append(definitions, own...))
}

// wholeDefinition is the definition under which PropertySchema puts the whole schema.
const wholeDefinition = "whole"

// refersToProperties reports whether a reference in these schemas leads to something else than a definition.
func refersToProperties(schemas []member) bool {
	elsewhere := false
	for _, m := range schemas {
		eachReference(m.value, func(to string) string {
			elsewhere = elsewhere || !strings.HasPrefix(to, "#/$defs/") && !strings.HasPrefix(to, "#/definitions/")
			return to
		})
	}
	return elsewhere
}

// moveReferences is a schema whose references are those of the same schema as a definition.
func moveReferences(schema jsontext.Value) jsontext.Value {
	return eachReference(schema, func(to string) string {
		if rest, ok := strings.CutPrefix(to, "#"); ok {
			return "#/$defs/" + wholeDefinition + rest
		}
		return to
	})
}

// eachReference replaces the targets of all references.
func eachReference(value jsontext.Value, replace func(to string) string) jsontext.Value {
	switch value.Kind() {
	case '{':
		list := membersOf(value)
		for i, m := range list {
			if m.name == "$ref" && m.value.Kind() == '"' {
				list[i].value = quotedJSON(replace(unquoted(m.value)))
				continue
			}
			list[i].value = eachReference(m.value, replace)
		}
		return objectOf(list)
	case '[':
		list := elementsOf(value)
		for i := range list {
			list[i] = eachReference(list[i], replace)
		}
		return arrayOf(list)
	}
	return value
}

func quotedJSON(text string) jsontext.Value {
	out, err := jsontext.AppendQuote(nil, text)
	if err != nil { // it isn't UTF-8, which a decoded text is
		return jsontext.Value(`""`)
	}
	return out
}
