package grammar

import (
	"bytes"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// WithoutBooleans writes a schema so that no schema in it is true or false, for a converter that only knows objects:
// what is true takes any value, and what is false is left out of its object, array or list of alternatives. A schema
// that nothing can meet, or that has no such schema in it, is returned as it is.
func WithoutBooleans(schema []byte) []byte {
	if !bytes.Contains(schema, []byte("true")) && !bytes.Contains(schema, []byte("false")) {
		return schema
	}
	var w booleanWriter
	out, possible := w.schema(schema)
	if !possible || !w.changed {
		return schema
	}
	return out
}

// anyValue is what a converter that only knows objects takes for true.
var anyValue = jsontext.Value("{}")

type booleanWriter struct{ changed bool }

// schema returns a schema in words of objects, and whether a value can meet it.
func (w *booleanWriter) schema(value jsontext.Value) (jsontext.Value, bool) {
	switch value.Kind() {
	case 't':
		w.changed = true
		return anyValue, true
	case 'f':
		w.changed = true
		return nil, false
	case '{':
		return w.object(membersOf(value))
	}
	return value, true
}

func (w *booleanWriter) object(list []member) (jsontext.Value, bool) {
	var never []string // properties that can't be given
	tuple := slices.ContainsFunc(list, func(m member) bool { return m.name == "prefixItems" && m.value.Kind() == '[' })
	var out []member
	for _, m := range list {
		possible := true
		switch kind := m.value.Kind(); m.name {
		case "properties":
			m.value, never = w.properties(m.value)
		case "$defs", "definitions":
			m.value = w.definitions(m.value)
		case "additionalProperties":
			if kind == '{' {
				m.value = w.additional(m.value)
			}
		case "items":
			switch {
			case tuple && (kind == 't' || kind == 'f'):
				w.changed = true
				continue // the converter's tuples have no further items in any case
			case kind == 'f':
				w.changed = true
				m = member{"enum", jsontext.Value("[[]]")}
			case kind == '[':
				m.value, possible = w.all(m.value)
			default:
				m.value, possible = w.schema(m.value)
			}
		case "prefixItems", "allOf":
			m.value, possible = w.all(m.value)
		case "anyOf", "oneOf":
			m.value, possible = w.alternatives(m.value)
		}
		if !possible {
			return nil, false
		}
		out = append(out, m)
	}
	return w.withoutProperties(out, never)
}

// withoutProperties closes an object some of whose properties can't be given: the converter would take their names for
// any others. If one of them is required, nothing meets the schema.
func (w *booleanWriter) withoutProperties(list []member, never []string) (jsontext.Value, bool) {
	if len(never) == 0 {
		return objectOf(list), true
	}
	for i, m := range list {
		switch m.name {
		case "additionalProperties":
			list[i].value = jsontext.Value("false")
		case "required":
			if slices.ContainsFunc(elementsOf(m.value), func(name jsontext.Value) bool { return slices.Contains(never, unquoted(name)) }) {
				return nil, false
			}
		}
	}
	return objectOf(list), true
}

func unquoted(name jsontext.Value) string {
	text, err := jsontext.AppendUnquote(nil, name)
	if err != nil {
		return "" // no string, so no name
	}
	return string(text)
}

// additional is the schema of further properties; false takes none.
func (w *booleanWriter) additional(value jsontext.Value) jsontext.Value {
	rest, possible := w.schema(value)
	if !possible {
		return jsontext.Value("false")
	}
	return rest
}

// properties returns those that can be given, and the names of the others.
func (w *booleanWriter) properties(value jsontext.Value) (kept jsontext.Value, never []string) {
	if value.Kind() != '{' {
		return value, nil
	}
	var list []member
	for _, m := range membersOf(value) {
		rest, possible := w.schema(m.value)
		if !possible {
			never = append(never, m.name)
			continue
		}
		list = append(list, member{m.name, rest})
	}
	return objectOf(list), never
}

// definitions are those that references may name. One that can't be met stays: what refers to it can't be followed.
func (w *booleanWriter) definitions(value jsontext.Value) jsontext.Value {
	if value.Kind() != '{' {
		return value
	}
	list := membersOf(value)
	for i, m := range list {
		if rest, possible := w.schema(m.value); possible {
			list[i].value = rest
		}
	}
	return objectOf(list)
}

// all are schemas of which none may be impossible.
func (w *booleanWriter) all(value jsontext.Value) (jsontext.Value, bool) {
	if value.Kind() != '[' {
		return value, true
	}
	list := elementsOf(value)
	for i, s := range list {
		rest, possible := w.schema(s)
		if !possible {
			return nil, false
		}
		list[i] = rest
	}
	return arrayOf(list), true
}

// alternatives are those that are possible.
func (w *booleanWriter) alternatives(value jsontext.Value) (jsontext.Value, bool) {
	if value.Kind() != '[' {
		return value, true
	}
	var list []jsontext.Value
	for _, s := range elementsOf(value) {
		if rest, possible := w.schema(s); possible {
			list = append(list, rest)
		}
	}
	return arrayOf(list), len(list) > 0
}

func objectOf(list []member) jsontext.Value {
	out := []byte{'{'}
	for i, m := range list {
		if i > 0 {
			out = append(out, ',')
		}
		quoted, err := jsontext.AppendQuote(out, m.name)
		if err != nil {
			continue // never: the name was read from JSON
		}
		out = append(append(quoted, ':'), m.value...)
	}
	return append(out, '}')
}

func arrayOf(list []jsontext.Value) jsontext.Value {
	out := []byte{'['}
	for i, v := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, v...)
	}
	return append(out, ']')
}
