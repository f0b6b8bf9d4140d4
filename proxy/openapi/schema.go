package openapi

import (
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Schema is a JSON schema (2020-12), as far as the document needs it.
type Schema struct {
	// Name puts the schema among the components of the document, which then refers to it.
	Name string `json:"-"`

	Description      string         `json:"description,omitzero"`
	Type             types          `json:"type,omitempty"`
	Enum             []any          `json:"enum,omitempty"`
	Const            any            `json:"const,omitzero"`
	Default          any            `json:"default,omitzero"`
	Minimum          jsontext.Value `json:"minimum,omitempty"`
	ExclusiveMinimum jsontext.Value `json:"exclusiveMinimum,omitempty"`
	Maximum          jsontext.Value `json:"maximum,omitempty"`
	MinLength        int            `json:"minLength,omitzero"`
	MaxLength        int            `json:"maxLength,omitzero"`
	Pattern          string         `json:"pattern,omitzero"`
	Format           string         `json:"format,omitzero"`
	Items            *Schema        `json:"items,omitempty"`
	MinItems         int            `json:"minItems,omitzero"`
	MaxItems         int            `json:"maxItems,omitzero"`
	Properties       properties     `json:"properties,omitempty"`
	Required         []string       `json:"required,omitempty"`
	PropertyNames    *Schema        `json:"propertyNames,omitempty"`
	MaxProperties    int            `json:"maxProperties,omitzero"`
	// Others is what members without a property are: nil leaves it open.
	Others *Others   `json:"additionalProperties,omitempty"`
	AnyOf  []*Schema `json:"anyOf,omitempty"`
}

// Others is the keyword additionalProperties: none, or a schema.
type Others struct {
	Forbidden bool
	Schema    *Schema
}

// MarshalJSONTo writes false or the schema.
func (o *Others) MarshalJSONTo(enc *jsontext.Encoder) error {
	if o.Forbidden {
		return enc.WriteToken(jsontext.False)
	}
	return json.MarshalEncode(enc, o.Schema)
}

// Property is a member of an object.
type Property struct {
	Name     string
	Schema   *Schema
	Optional bool
}

// properties keep their order.
type properties []Property

// MarshalJSONTo writes an object.
func (p properties) MarshalJSONTo(enc *jsontext.Encoder) error {
	return writeObject(enc, p, func(m Property) (string, any) { return m.Name, m.Schema })
}

func writeObject[T any](enc *jsontext.Encoder, list []T, member func(T) (string, any)) error {
	if err := enc.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, entry := range list {
		name, value := member(entry)
		if err := enc.WriteToken(jsontext.String(name)); err != nil {
			return err
		}
		if err := json.MarshalEncode(enc, value); err != nil {
			return err
		}
	}
	return enc.WriteToken(jsontext.EndObject)
}

// types is one type as a string, or several as a list.
type types []string

// MarshalJSONTo writes either form.
func (t types) MarshalJSONTo(enc *jsontext.Encoder) error {
	if len(t) == 1 {
		return enc.WriteToken(jsontext.String(t[0]))
	}
	return json.MarshalEncode(enc, []string(t))
}

// MarshalJSONTo writes the schema, or where it is among the components a reference to it.
func (s *Schema) MarshalJSONTo(enc *jsontext.Encoder) error {
	if s.Name != "" {
		return json.MarshalEncode(enc, map[string]string{"$ref": "#/components/schemas/" + s.Name})
	}
	type plain Schema
	return json.MarshalEncode(enc, (*plain)(s))
}

// Text is a string of a length; max 0: any. Lengths of requests are limits in bytes, which JSON schema can't say.
func Text(min, max int) *Schema {
	return &Schema{Type: types{"string"}, MinLength: min, MaxLength: max}
}

// Matching is a string that fits a regular expression.
func Matching(pattern string) *Schema { return &Schema{Type: types{"string"}, Pattern: pattern} }

// Words is one of some strings.
func Words[S ~string](words ...S) *Schema {
	s := &Schema{Type: types{"string"}}
	for _, w := range words {
		s.Enum = append(s.Enum, string(w))
	}
	return s
}

// Bool is true or false.
func Bool() *Schema { return &Schema{Type: types{"boolean"}} }

// Integer is a whole number in a range, which may be written 100.0 as well.
func Integer(min, max int64) *Schema {
	return &Schema{Type: types{"integer"}, Minimum: whole(min), Maximum: whole(max)}
}

// IntegerFrom is a whole number with a least value only.
func IntegerFrom(min int64) *Schema { return &Schema{Type: types{"integer"}, Minimum: whole(min)} }

func whole(v int64) jsontext.Value { return strconv.AppendInt(nil, v, 10) }

func number(v float64) jsontext.Value { return strconv.AppendFloat(nil, v, 'f', -1, 64) }

// Count is a whole number of 0 or more.
func Count() *Schema { return IntegerFrom(0) }

// Number is any number.
func Number() *Schema { return &Schema{Type: types{"number"}} }

// Range is a number in a range.
func Range(min, max float64) *Schema {
	return &Schema{Type: types{"number"}, Minimum: number(min), Maximum: number(max)}
}

// Above is a number above min and at most max.
func Above(min, max float64) *Schema {
	return &Schema{Type: types{"number"}, ExclusiveMinimum: number(min), Maximum: number(max)}
}

// List is a list of entries, of which there may be as many as max; 0: any number.
func List(entry *Schema, min, max int) *Schema {
	return &Schema{Type: types{"array"}, Items: entry, MinItems: min, MaxItems: max}
}

// Object is an object with the members.
func Object(members ...Property) *Schema {
	s := &Schema{Type: types{"object"}, Properties: members}
	for _, m := range members {
		if !m.Optional {
			s.Required = append(s.Required, m.Name)
		}
	}
	return s
}

// Map is an object with any names.
func Map(value *Schema) *Schema {
	return &Schema{Type: types{"object"}, Others: &Others{Schema: value}}
}

// AnyOf is a value of one of several forms.
func AnyOf(forms ...*Schema) *Schema { return &Schema{AnyOf: forms} }

// Constant is one value.
func Constant(v any) *Schema { return &Schema{Const: v} }

// Has is a member that is always there.
func Has(name string, s *Schema) Property { return Property{Name: name, Schema: s} }

// May is a member that may be absent.
func May(name string, s *Schema) Property { return Property{Name: name, Schema: s, Optional: true} }

// Named is the schema as a component of the document.
func (s *Schema) Named(name string) *Schema {
	c := *s
	c.Name = name
	return &c
}

// About is the schema with a description.
func (s *Schema) About(text string) *Schema {
	if s.Name != "" {
		return s // the component has its own
	}
	c := *s
	c.Description = text
	return &c
}

// OrNull is the schema with null as another value.
func (s *Schema) OrNull() *Schema {
	c := *s
	switch {
	case s.Name != "":
		return AnyOf(s, &Schema{Type: types{"null"}})
	case len(s.Enum) > 0 && len(s.Type) > 0:
		c.Enum = append(append([]any(nil), s.Enum...), nil)
		c.Type = append(append(types(nil), s.Type...), "null")
	case len(s.Type) > 0:
		c.Type = append(append(types(nil), s.Type...), "null")
	case len(s.AnyOf) > 0:
		c.AnyOf = append(append([]*Schema(nil), s.AnyOf...), &Schema{Type: types{"null"}})
	}
	return &c
}

// children are the schemas directly inside of one.
func (s *Schema) children() []*Schema {
	list := append([]*Schema{s.Items, s.PropertyNames}, s.AnyOf...)
	for _, p := range s.Properties {
		list = append(list, p.Schema)
	}
	if s.Others != nil {
		list = append(list, s.Others.Schema)
	}
	return list
}

// AtLeast is a number of a least value.
func AtLeast(min float64) *Schema { return &Schema{Type: types{"number"}, Minimum: number(min)} }

// Null is null.
func Null() *Schema { return &Schema{Type: types{"null"}} }

// OnlyFalse is false, where true isn't supported.
func OnlyFalse() *Schema { return &Schema{Type: types{"boolean"}, Enum: []any{false}} }

// Timings is the member of replies and events that is there with timings_per_token. A chunk of OpenAI's with a part of
// an answer has only the tokens that came with it, as TokenTimings.
func Timings() Property {
	return May("timings", Object(append([]Property{
		May("queue_ms", AtLeast(0).About("How long the request waited.")),
		May("cache_n", Count().About("Tokens of the prompt from the KV cache.")),
		May("prompt_n", Count().About("Tokens of the prompt that were computed.")),
		May("prompt_ms", AtLeast(0).About("How long that took.")),
	}, tokenTimes()...)...).Named("Timings"))
}

// TokenTimings is Timings of an event with a part of an answer: the tokens that came with it.
func TokenTimings() Property { return May("timings", Object(tokenTimes()...).Named("TokenTimings")) }

func tokenTimes() []Property {
	return []Property{
		May("predicted_n", Count().About("Tokens of the answer.")),
		May("predicted_ms", AtLeast(0).About("How long they took.")),
	}
}
