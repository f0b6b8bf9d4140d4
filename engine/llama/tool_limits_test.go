//go:build llama

package llama

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tandem/engine/models"
)

// each joins n parts with commas.
func each(n int, part func(i int) string) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = part(i)
	}
	return strings.Join(parts, ",")
}

// nested puts an inner schema n times into an outer one.
func nested(n int, outer, inner string) string {
	for range n {
		inner = fmt.Sprintf(outer, inner)
	}
	return inner
}

func askWith(parameters string) models.Input {
	in := askWeather()
	in.Tools = []models.Tool{{Name: "get_weather", Parameters: []byte(parameters)}}
	return in
}

// The library would make a grammar of these for hours, out of all of the memory, or until its stack is full.
func TestToolsThatAreTooMuchAreRefused(t *testing.T) {
	bases, _ := loadFamilies(t)
	for name, c := range map[string]struct{ schema, want string }{
		"lists of types": {nested(14, `{"type":["array","array","array","array"],"items":%s}`, `{"type":"null"}`), "1000000 steps"},
		"properties":     {`{"type":"object","properties":{` + each(7000, func(i int) string { return fmt.Sprintf(`"%x":{}`, i) }) + `}}`, "7000 properties, at most 500"},
		"a long name":    {`{"type":"object","properties":{"` + strings.Repeat("_", 60_000) + `":{}}}`, "60000 bytes, at most 1024"},
		"a long $ref":    {`{"$ref":"#/$defs/` + strings.Repeat("_", 60_000) + `"}`, "at most 1024"},
		"an allOf of itself": {`{"type":"object","properties":{"a":{"allOf":[{"$ref":"#/$defs/a"}]}},"$defs":{"a":{"type":"object","properties":{"b":` +
			`{"allOf":[{"$ref":"#/$defs/a"},{"type":"object"}]}}}}}`, "more than 500 deep"},
		"a reference to itself": {`{"allOf":[{"$ref":"#/$defs/a"},{"type":"object"}],"$defs":{"a":{"$ref":"#/$defs/a"}}}`, "more than 500 deep"},
		"a chain of references": {`{"$ref":"#/$defs/a0","$defs":{` + each(12_000, func(i int) string { return fmt.Sprintf(`"a%d":{"$ref":"#/$defs/a%d"}`, i, i+1) }) +
			`,"a12000":{}}}`, "more than 500 deep"},
	} {
		for family, base := range bases {
			began := time.Now()
			if _, err := base.Render(t.Context(), askWith(c.schema)); !errors.Is(err, models.ErrTools) ||
				!strings.Contains(err.Error(), "get_weather") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %s: %v", family, name, err)
			}
			t.Logf("%s: %s: refused after %s", family, name, time.Since(began))
		}
	}
}

// A class that has others of its kind: pydantic 1 writes a reference with words beside it as an allOf of one.
func TestRecursiveClassesOfPydantic1(t *testing.T) {
	bases, _ := loadFamilies(t)
	const node = `{"allOf":[{"$ref":"#/definitions/Node"}],"title":"N","description":"One."}`
	schema := `{"type":"object","properties":{"root":` + node + `},"required":["root"],"definitions":{"Node":{"type":"object","properties":{` +
		`"value":{"type":"integer"},"left":` + node + `,"right":` + node + `},"required":["value"]}}}`
	for family, base := range bases {
		prompt := requireTool(t, base, askWith(schema).Tools...)
		for arguments, want := range map[string]bool{
			`{"root": {"value": 1, "left": {"value": 2}}}`: true, `{"root": {"value": 1, "left": {"value": "x"}}}`: false,
		} {
			if got := follows(base, prompt, fmt.Sprintf(toolFamilies[family].call, arguments)); got != want {
				t.Errorf("%s: %s: %v", family, arguments, got)
			}
		}
	}
}

func TestLargeToolsAreTaken(t *testing.T) {
	bases, _ := loadFamilies(t)
	text := func(i int) string {
		return fmt.Sprintf(`"property_%d":{"type":["string","null"],"description":"The value of the property %d."}`, i, i)
	}
	for name, schema := range map[string]string{
		"properties":          `{"type":"object","properties":{` + each(200, text) + `}}`,
		"the most properties": `{"type":"object","properties":{` + each(500, text) + `}}`,
		"nesting":             nested(14, `{"type":["object","null"],"properties":{"inner":%s,"name":{"type":"string"}}}`, `{"type":"string"}`),
		"definitions": `{"type":"object","properties":{"a":{"$ref":"#/$defs/d0"}},"$defs":{` + each(100, func(i int) string {
			return fmt.Sprintf(`"d%d":{"type":"object","properties":{"next":{"$ref":"#/$defs/d%d"},"n":{"type":"integer"}}}`, i, (i+1)%100)
		}) + `}}`,
		"unions": `{"type":"object","properties":{"a":{"anyOf":[` + each(100, func(i int) string {
			return fmt.Sprintf(`{"type":"object","properties":{"kind":{"const":"k%d"},%s},"required":["kind"]}`, i, text(i))
		}) + `]}}}`,
		"an enum":     `{"type":"object","properties":{"a":{"enum":[` + each(2000, func(i int) string { return fmt.Sprintf(`"value %d"`, i) }) + `]}}}`,
		"repetitions": `{"type":"object","properties":{"a":{"type":"string","maxLength":1000000},"b":{"type":"string","pattern":"^(ab){0,100000}$"},"c":{"type":"array","minItems":100000,"items":{"type":"string"}}}}`,
	} {
		for family, base := range bases {
			base.limits.SequenceMax = 1 << 20
			began := time.Now()
			if _, err := base.Render(t.Context(), askWith(schema)); err != nil {
				t.Errorf("%s: %s: %v", family, name, err)
			}
			t.Logf("%s: %s: %s", family, name, time.Since(began))
		}
	}
}
