package grammar

import (
	"testing"
)

// What a converter of objects makes of the result must not let through what the schema doesn't allow.
func TestWithoutBooleans(t *testing.T) {
	for _, c := range []struct{ schema, want string }{
		{`{"type":"object","properties":{"a":true}}`, `{"type":"object","properties":{"a":{}}}`},
		{`{"properties":{"z":{"type":"string"},"b":false,"a":true}}`, `{"properties":{"z":{"type":"string"},"a":{}}}`},
		{`{"properties":{"b":false},"additionalProperties":true}`, `{"properties":{},"additionalProperties":false}`},
		{`{"additionalProperties":{"type":"string"},"properties":{"b":false}}`, `{"additionalProperties":false,"properties":{}}`},
		{`{"properties":{"a":{"properties":{"b":true}}}}`, `{"properties":{"a":{"properties":{"b":{}}}}}`},
		{`{"properties":{"a\"b":true}}`, `{"properties":{"a\"b":{}}}`},
		{`{"items":true}`, `{"items":{}}`},
		{`{"type":"array","items":false}`, `{"type":"array","enum":[[]]}`},
		{`{"prefixItems":[{"type":"string"},true],"items":false}`, `{"prefixItems":[{"type":"string"},{}]}`},
		{`{"items":[true,{}]}`, `{"items":[{},{}]}`},
		{`{"anyOf":[false,{"type":"null"}]}`, `{"anyOf":[{"type":"null"}]}`},
		{`{"allOf":[true]}`, `{"allOf":[{}]}`},
		{`{"additionalProperties":{"allOf":[false]}}`, `{"additionalProperties":false}`},
		{`{"$defs":{"x":true},"properties":{"a":{"$ref":"#/$defs/x"}}}`, `{"$defs":{"x":{}},"properties":{"a":{"$ref":"#/$defs/x"}}}`},
		// what can't be met is left out further up, as far as something is left
		{`{"properties":{"a":{"properties":{"b":false},"required":["b"]}}}`, `{"properties":{}}`},
		{`{"anyOf":[{"oneOf":[false]},true]}`, `{"anyOf":[{}]}`},
	} {
		if got := string(WithoutBooleans([]byte(c.schema))); got != c.want {
			t.Errorf("%s gives %s, want %s", c.schema, got, c.want)
		}
	}
	// no schema here is a boolean, or nothing at all meets the whole
	for _, same := range []string{
		`{ "properties": {"a": {"const": true, "default":false}}, "additionalProperties" : false }`,
		`{"properties":{"true":{"enum":[true, "false"]}}, "additionalProperties":true}`,
		`{"properties":{"a":false},"required":["a"]}`,
		`{"anyOf":[false]}`, `{"items":[false]}`,
		`{"properties":[true]}`, `{"anyOf":true}`, `{"required":true}`, `{"properties":true}`, `{`, ``,
	} {
		if got := string(WithoutBooleans([]byte(same))); got != same {
			t.Errorf("%s gives %s", same, got)
		}
	}
}
