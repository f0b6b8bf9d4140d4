package openapi

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// Field says of a field what its Go type doesn't.
type Field struct {
	Doc      string
	Schema   *Schema // nil: what the Go type says
	Entries  any     // a struct: the field, which reads its own JSON, is a list of it
	Object   any     // a struct: the field, which reads its own JSON, is an object of that form
	MinItems int     // of a list
	MaxItems int
	Required bool
	Default  any // what an absent field means
}

// Fields are described by their places in a body: messages[].role is the role of each entry of messages.
type Fields map[string]Field

// BodyOf is the schema of a request body that is decoded into v, a struct. Each field that isn't required may be null.
// A field that fields doesn't describe is an error, and so is a description without a field, or of another type.
func BodyOf(v any, fields Fields) (*Schema, error) {
	w := structWalk{fields: fields, described: map[string]bool{}}
	return w.walk(v)
}

// ReplyOf is the schema of a reply that is made of v, a struct: every member is there, unless its tag says omitempty. A
// type of nullable may be null. The place "*.mean" describes the field mean of all structs that don't describe it.
func ReplyOf(v any, fields Fields, nullable ...reflect.Type) (*Schema, error) {
	w := structWalk{fields: fields, described: map[string]bool{}, reply: true, nullable: nullable}
	return w.walk(v)
}

type structWalk struct {
	fields    Fields
	described map[string]bool
	reply     bool
	nullable  []reflect.Type
	problems  []error
}

func (w *structWalk) walk(v any) (*Schema, error) {
	s := w.object(reflect.TypeOf(v), "")
	for _, name := range slices.Sorted(maps.Keys(w.fields)) {
		if !w.described[name] {
			w.problem("%T has no field %s, which is described", v, name)
		}
	}
	return s, errors.Join(w.problems...)
}

func (w *structWalk) problem(format string, args ...any) {
	w.problems = append(w.problems, fmt.Errorf(format, args...))
}

// object is the schema of a struct at a place of the body; prefix ends with a point, or is empty.
func (w *structWalk) object(t reflect.Type, prefix string) *Schema {
	s := &Schema{Type: types{"object"}}
	for f := range exportedFields(t) {
		place := prefix + f.name
		field, ok := w.lookUp(place, f)
		if !ok {
			continue
		}
		value := w.value(f.t, place, field).About(field.Doc)
		if field.Default != nil {
			value.Default = field.Default
		}
		if w.mayBeNull(f.t, field) {
			value = value.OrNull()
		}
		if field.Required {
			s.Required = append(s.Required, f.name)
		}
		s.Properties = append(s.Properties, Property{Name: f.name, Schema: value, Optional: !field.Required})
	}
	return s
}

// lookUp finds the description of a field.
func (w *structWalk) lookUp(place string, f jsonField) (Field, bool) {
	field, ok := w.fields[place]
	if !ok && w.reply {
		place = "*." + f.name
		field, ok = w.fields[place]
	}
	if !ok || field.Doc == "" {
		w.problem("field %s has no description", place)
		return field, false
	}
	w.described[place] = true
	field.Required = field.Required || w.reply && !f.mayLack
	return field, true
}

func (w *structWalk) mayBeNull(t reflect.Type, field Field) bool {
	if w.reply {
		return slices.Contains(w.nullable, t)
	}
	return !field.Required
}

// value is the schema of a field: one form, or several.
func (w *structWalk) value(t reflect.Type, place string, field Field) *Schema {
	var forms []*Schema
	if field.Schema != nil {
		forms = append(forms, field.Schema)
	}
	if field.Entries != nil {
		forms = append(forms, List(w.object(reflect.TypeOf(field.Entries), place+"[]."), field.MinItems, field.MaxItems))
	}
	if field.Object != nil {
		forms = append(forms, w.object(reflect.TypeOf(field.Object), place+"."))
	}
	if plain := w.plain(t, place, field); plain != nil {
		if field.Schema == nil {
			return plain
		}
		if !slices.Equal(plain.Type, field.Schema.Type) {
			w.problem("%s is described as %v, but is %v", place, field.Schema.Type, plain.Type)
		}
	}
	switch len(forms) {
	case 0:
		w.problem("%s of type %s needs a schema", place, t)
		return &Schema{}
	case 1:
		return forms[0]
	}
	return AnyOf(forms...)
}

var (
	rawJSON     = reflect.TypeFor[jsontext.Value]()
	readsItself = reflect.TypeFor[json.UnmarshalerFrom]()
)

// plain is the schema that a Go type has by itself; nil: the type reads its own JSON, or can be anything.
func (w *structWalk) plain(t reflect.Type, place string, field Field) *Schema {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[api.WholeNumber]():
		return Count()
	case reflect.PointerTo(t).Implements(readsItself) || t == rawJSON:
		return nil
	}
	switch t.Kind() {
	case reflect.String:
		return Text(0, 0)
	case reflect.Bool:
		return Bool()
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return &Schema{Type: types{"integer"}}
	case reflect.Float32, reflect.Float64:
		return Number()
	case reflect.Struct:
		return w.object(t, place+".")
	case reflect.Map:
		return Map(w.plain(t.Elem(), place, Field{}))
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return List(w.object(t.Elem(), place+"[]."), field.MinItems, field.MaxItems)
		}
		return List(w.plain(t.Elem(), place, Field{}), field.MinItems, field.MaxItems)
	}
	return nil
}

type jsonField struct {
	name    string
	t       reflect.Type
	mayLack bool
}

// exportedFields are the members that the JSON package knows, those of embedded structs in place.
func exportedFields(t reflect.Type) func(func(jsonField) bool) {
	return func(yield func(jsonField) bool) {
		for f := range t.Fields() {
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous && name == "":
				for inner := range exportedFields(f.Type) {
					if !yield(inner) {
						return
					}
				}
			case name == "" || name == "-":
			case !yield(jsonField{name, f.Type, strings.Contains(options, "omit")}):
				return
			}
		}
	}
}
