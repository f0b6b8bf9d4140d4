package grammar

import "testing"

func TestWithPlainReferences(t *testing.T) {
	for schema, want := range map[string]string{
		`{"allOf":[{"$ref":"#/a"}]}`:                                            `{"$ref":"#/a"}`,
		`{"title":"A","allOf":[{"$ref":"#/a"}],"default":null}`:                 `{"title":"A","$ref":"#/a","default":null}`,
		`{"properties":{"default":{"allOf":[{"$ref":"#/a"}]}}}`:                 `{"properties":{"default":{"$ref":"#/a"}}}`,
		`{"anyOf":[{"items":[{"allOf":[{"$ref":"#/a"}]}]},true]}`:               `{"anyOf":[{"items":[{"$ref":"#/a"}]},true]}`,
		`{"$defs":{"allOf":{"allOf":[{"$ref":"#/$defs/allOf"}]}}}`:              `{"$defs":{"allOf":{"$ref":"#/$defs/allOf"}}}`,
		`{"allOf":[{"$ref":"#/a"}],"type":"object"}`:                            ``,
		`{"allOf":[{"$ref":"#/a"},{"$ref":"#/b"}]}`:                             ``,
		`{"allOf":[{"$ref":"#/a","minimum":1}]}`:                                ``,
		`{"allOf":[{"properties":{"x":{}}}]}`:                                   ``,
		`{"const":{"allOf":[{"$ref":"#/a"}]},"default":{"allOf":[{"$ref":1}]}}`: ``,
		`{"allOf":"#/a"}`:                        ``,
		`{"a":1,"a":{"allOf":[{"$ref":"#/a"}]}}`: ``,
		`7`:                                      ``,
	} {
		if want == "" {
			want = schema
		}
		if got := string(WithPlainReferences([]byte(schema))); got != want {
			t.Errorf("%s: %s", schema, got)
		}
	}
}
