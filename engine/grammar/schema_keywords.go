package grammar

import (
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// member of a JSON object, in the order of the text.
type member struct {
	name  string
	value jsontext.Value
}

// membersOf lists an object's members; nil for anything else. The text has been checked with checkJSON.
func membersOf(value jsontext.Value) []member {
	d := jsontext.NewDecoder(strings.NewReader(string(value)))
	if token, err := d.ReadToken(); err != nil || token.Kind() != '{' {
		return nil
	}
	list := []member{}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return list
		}
		text := name.String() // before the next read, which takes the token's place
		raw, err := d.ReadValue()
		if err != nil {
			return list
		}
		list = append(list, member{text, raw.Clone()})
	}
	return list
}

// elementsOf lists an array's elements; nil for anything else.
func elementsOf(value jsontext.Value) []jsontext.Value {
	d := jsontext.NewDecoder(strings.NewReader(string(value)))
	if token, err := d.ReadToken(); err != nil || token.Kind() != '[' {
		return nil
	}
	var list []jsontext.Value
	for d.PeekKind() != ']' {
		raw, err := d.ReadValue()
		if err != nil {
			return list
		}
		list = append(list, raw.Clone())
	}
	return list
}

// Where a keyword's value holds schemas.
var (
	keywordsOfOne  = []string{"items", "additionalItems", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema"}
	keywordsOfList = []string{"items", "prefixItems", "allOf", "anyOf", "oneOf"}
	keywordsOfMap  = []string{"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)

// keyword is a keyword at its place in a schema.
type keyword struct {
	name   string
	value  jsontext.Value
	parent *pathStep // to the schema that has it
}

// pathStep is one step of the path from the root to a place. Places share the beginnings of their paths, since names
// may be long.
type pathStep struct {
	parent *pathStep
	name   string
}

// path is the JSON pointer of a keyword.
func (k keyword) path() string {
	names := []string{escapePointer(k.name)}
	for s := k.parent; s != nil; s = s.parent {
		names = append(names, escapePointer(s.name))
	}
	slices.Reverse(names)
	return shortPath("/" + strings.Join(names, "/"))
}

// shortPath keeps messages readable.
func shortPath(path string) string {
	const most = 200
	if len(path) <= most {
		return path
	}
	return strings.ToValidUTF8(path[:most], "") + "…"
}

// keywords lists those of a schema and of all schemas in it, in the order of the text.
func keywords(schema jsontext.Value, at *pathStep) []keyword {
	var list []keyword
	for _, m := range membersOf(schema) {
		list = append(list, keyword{m.name, m.value, at})
		here := &pathStep{at, m.name}
		if slices.Contains(keywordsOfOne, m.name) {
			list = append(list, keywords(m.value, here)...)
		}
		if slices.Contains(keywordsOfList, m.name) {
			for i, part := range elementsOf(m.value) {
				list = append(list, keywords(part, &pathStep{here, strconv.Itoa(i)})...)
			}
		}
		if slices.Contains(keywordsOfMap, m.name) {
			for _, part := range membersOf(m.value) {
				list = append(list, keywords(part.value, &pathStep{here, part.name})...)
			}
		}
	}
	return list
}

func escapePointer(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}
