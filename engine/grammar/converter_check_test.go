package grammar

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func parts(n int, part func(i int) string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = part(i)
	}
	return strings.Join(list, ",")
}

func property(name, schema string) string {
	return fmt.Sprintf(`{"type":"object","properties":{%q:%s}}`, name, schema)
}

func within(n int, outer, inner string) string {
	for range n {
		inner = fmt.Sprintf(outer, inner)
	}
	return inner
}

// collidingName is one of many that become the same in the name of a rule.
func collidingName(i int) string {
	const signs = "_.:+=!/ "
	var b strings.Builder
	for range 5 {
		b.WriteByte(signs[i%len(signs)])
		i /= len(signs)
	}
	return b.String()
}

// Times of the converter without the check, of those that end: types 0.3 s for 16 levels of 2, doubling with each;
// properties 0.26 s for 500, eightfold when doubled; names 0.29 s for 1,000, fourfold when doubled; patterns 0.07 s for
// 1,000, fourfold; allOf 0.2 s for 14 levels, doubling; alternatives 0.09 s for 20 levels, doubling. Names and
// references of 32,000 bytes and 8,000 references in a row overflow the stack.
func TestConverterCheckRefuses(t *testing.T) {
	const steps = "1000000 steps"
	allOf := func(i int) string { return fmt.Sprintf(`{"allOf":[{"$ref":"#/$defs/a%d"}]}`, i+1) }
	for name, c := range map[string]struct{ schema, want string }{
		"equal types":          {within(14, `{"type":["array","array"],"items":%s}`, within(13, `{"type":["array","array"],"items":%s}`, `{}`)), steps},
		"types of a large one": {`{"type":[` + parts(2000, func(int) string { return `"string"` }) + `],"enum":["` + strings.Repeat("x", 50_000) + `"]}`, steps},
		"optional properties":  {`{"properties":{` + parts(501, func(i int) string { return fmt.Sprintf(`"%x":{}`, i) }) + `}}`, "501 properties, at most 500"},
		"many large objects": {`{"properties":{` + parts(10, func(i int) string {
			return fmt.Sprintf(`"%x":{"properties":{%s}}`, i, parts(500, func(i int) string { return fmt.Sprintf(`"%x":{}`, i) }))
		}) + `}}`, steps},
		"equal rules": {`{"properties":{` + parts(20, func(i int) string {
			return fmt.Sprintf(`%q:{"properties":{%s}}`, collidingName(i), parts(200, func(i int) string { return fmt.Sprintf(`%q:{"const":%d}`, collidingName(i), i) }))
		}) + `}}`, steps},
		"patterns": {`{"anyOf":[` + parts(6000, func(i int) string { return `{"pattern":"x"}` }) + `]}`, steps},
		"references to what is no pattern": {`{"$defs":{"a":{"pattern":"^)$"}},"prefixItems":[{"type":"array","prefixItems":[` + parts(4000, func(int) string { return `{}` }) + `]},` +
			parts(4000, func(i int) string { return `{"$ref":"#/$defs/a"}` }) + `]}`, steps},
		"members":                {`{"x":{` + parts(20_000, func(i int) string { return fmt.Sprintf(`"%d":0`, i) }) + `}}`, steps},
		"a long pattern":         {`{"pattern":"^a` + strings.Repeat("*", 200_000) + `$"}`, steps},
		"a long name":            {property(strings.Repeat("_", 1025), "{}"), "1025 bytes, at most 1024"},
		"a long reference":       {`{"$ref":"#/` + strings.Repeat("_", 2000) + `"}`, "2002 bytes, at most 1024"},
		"references in a row":    {`{"$ref":"#/$defs/a0","$defs":{` + parts(600, func(i int) string { return fmt.Sprintf(`"a%d":{"$ref":"#/$defs/a%d"}`, i, i+1) }) + `}}`, "more than 500 deep"},
		"a reference to itself":  {`{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"$ref":"#/$defs/a"}}}`, "more than 500 deep"},
		"an allOf of itself":     {`{"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":` + property("b", `{"allOf":[{"$ref":"#/$defs/a"}]}`) + `}}`, "more than 500 deep"},
		"an allOf of two allOfs": {`{"allOf":[{"$ref":"#/$defs/a0"}],"$defs":{` + parts(40, func(i int) string { return fmt.Sprintf(`"a%d":{"properties":{"x":%s,"y":%s}}`, i, allOf(i), allOf(i)) }) + `,"a40":{}}}`, steps},
		"alternatives": {property("a", `{"$ref":"#/$defs/a0"}`)[:len(property("a", `{"$ref":"#/$defs/a0"}`))-1] + `,"$defs":{` + parts(40, func(i int) string {
			return fmt.Sprintf(`"a%d":{"anyOf":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d"}]}`, i, i+1, i+1)
		}) + `,"a40":{"type":"null"}}}`, steps},
		"spellings of a reference": {`{"anyOf":[{"prefixItems":[` + parts(1000, func(int) string { return `{}` }) + `]},` + parts(1000, func(i int) string { return fmt.Sprintf(`{"$ref":"#/anyOf/0x%d"}`, i) }) + `]}`, steps},
	} {
		began := time.Now()
		err := NewConverterCheck().Add("f", []byte(c.schema))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: the check takes %s", name, took)
		}
	}
}

func TestConverterCheckTakes(t *testing.T) {
	for name, schema := range map[string]string{
		"properties": `{"properties":{` + parts(200, func(i int) string { return fmt.Sprintf(`"a_property_of_some_length_%d":{"type":["string","null"]}`, i) }) + `}}`,
		"types":      within(20, `{"type":["object","null"],"properties":{"inner":%s,"name":{"type":"string"}}}`, `{}`),
		"nesting":    within(30, `{"type":"array","items":%s}`, `{}`),
		"recursion":  `{"properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"properties":{"b":{"$ref":"#/$defs/a"},"c":{"items":{"$ref":"#"}}}}}}`,
		"definitions": `{"properties":{"a":{"$ref":"#/$defs/a0"}},"$defs":{` + parts(200, func(i int) string {
			return fmt.Sprintf(`"a%d":{"properties":{"x":{"$ref":"#/$defs/a%d"},"y":{"$ref":"#/$defs/a%d"}}}`, i, (2*i+1)%200, (2*i+2)%200)
		}) + `}}`,
		"an enum":     `{"enum":[` + parts(5000, func(i int) string { return fmt.Sprintf(`"value %d"`, i) }) + `]}`,
		"repetitions": `{"properties":{"a":{"type":"string","maxLength":1000000},"b":{"pattern":"^(ab){0,1000000}$"},"c":{"type":"array","minItems":1000000}}}`,
		"no schema":   `{"type":7,"properties":[],"items":"x","$ref":1,"anyOf":{},"required":3}`,
	} {
		c := NewConverterCheck()
		if err := c.Add("f", []byte(schema)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %.0f steps", name, converterWorkMax-c.left)
	}
	c := NewConverterCheck()
	for i := range 256 {
		schema := `{"properties":{` + parts(20, func(i int) string { return fmt.Sprintf(`"property_%d":{"type":"string"}`, i) }) + `}}`
		if err := c.Add(fmt.Sprintf("server_tool_%d", i), []byte(schema)); err != nil {
			t.Fatalf("tool %d: %v", i, err)
		}
	}
	t.Logf("256 tools: %.0f steps", converterWorkMax-c.left)
}
