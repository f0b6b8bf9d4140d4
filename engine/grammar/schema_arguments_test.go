package grammar

import "testing"

func TestObjectsAreClosedWhereNothingAddsProperties(t *testing.T) {
	const closed = `,"additionalProperties":false}`
	for _, c := range []struct{ schema, want string }{
		{`{"properties":{"a":{}}}`, `{"properties":{"a":{}}` + closed},
		{`{"type":"object","properties":{"a":{"type":"array","items":{"properties":{}}}},"required":["a"]}`,
			`{"type":"object","properties":{"a":{"type":"array","items":{"properties":{}` + closed + `}},"required":["a"]` + closed},
		{`{"anyOf":[{"properties":{"a":{}}},{"type":"null"}]}`, `{"anyOf":[{"properties":{"a":{}}` + closed + `,{"type":"null"}]}`},
		{`{"allOf":[{"properties":{"a":{}}}]}`, `{"allOf":[{"properties":{"a":{}}` + closed + `]}`},
		{`{"$defs":{"x":{"properties":{}}},"properties":{"a":{"$ref":"#/$defs/x"}}}`,
			`{"$defs":{"x":{"properties":{}` + closed + `},"properties":{"a":{"$ref":"#/$defs/x"}}` + closed},
		{`{"properties":{"a":{},"b":{}},"anyOf":[{"required":["a"]},{"required":["b"]}]}`,
			`{"properties":{"a":{},"b":{}},"anyOf":[{"required":["a"]},{"required":["b"]}]` + closed},
	} {
		if got := string(closeObjects([]byte(c.schema))); got != c.want {
			t.Errorf("%s gives\n%s, want\n%s", c.schema, got, c.want)
		}
	}
	for _, same := range []string{
		`{"type":"object"}`, `{"properties":{"a":{}},"additionalProperties":true}`, `{"properties":{"a":{}},"additionalProperties":{"type":"string"}}`,
		`{"properties":{"a":{}},"patternProperties":{"b":{}}}`, `{"properties":{"a":{}},"unevaluatedProperties":false}`,
		`{"properties":{"a":{}},"required":["b"]}`, `{"properties":{"a":{}},"anyOf":[{"properties":{"b":{}}}]}`,
		`{"allOf":[{"properties":{"a":{}}},{"properties":{"b":{}}}]}`, `{"properties":{"a":{}},"then":{"properties":{"b":{}}}}`,
		`{"$defs":{"x":{"properties":{}}},"allOf":[{"$ref":"#/$defs/x"},{"properties":{"a":{}}}]}`, `{"properties":{"a":{}},"$ref":"#/x"}`,
		`{"$defs":{"x":{"properties":{}}},"allOf":[{"$ref":"#/$defs/x"}],"anyOf":[{"properties":{"a":{}}},{"properties":{"b":{}}}]}`,
		`{"anyOf":[{"properties":{"a":{}}}],"oneOf":[{"properties":{"b":{}}}]}`, `{"allOf":[{"properties":{"a":{}}}],"patternProperties":{"b":{}}}`,
		`{"const":{"properties":{"a":1}}}`, `{"properties":true}`, `true`, `[]`,
	} {
		if got := string(closeObjects([]byte(same))); got != same {
			t.Errorf("%s gives %s", same, got)
		}
	}
}

func TestPropertySchemaHasTheDefinitions(t *testing.T) {
	const whole = `{"type":"object","$defs":{"n":{"type":"integer"}},"properties":{"a":{"$ref":"#/$defs/n","maximum":5},"b":true}}`
	for name, want := range map[string]string{"a": `{"$defs":{"n":{"type":"integer"}},"$ref":"#/$defs/n","maximum":5}`, "b": `{}`, "c": `{}`} {
		if got := string(PropertySchema([]byte(whole), name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestPropertySchemaKeepsReferencesToOthers(t *testing.T) {
	const whole = `{"properties":{"start":{"type":"object"},"end/":{"$ref":"#/properties/start"}}}`
	const want = `{"$defs":{"whole":{"properties":{"start":{"type":"object"},"end/":{"$ref":"#/$defs/whole/properties/start"}}}},"$ref":"#/$defs/whole/properties/end~1"}`
	if got := string(PropertySchema([]byte(whole), "end/")); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
