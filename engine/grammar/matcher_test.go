//go:build llama

package grammar

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// testBudget is far above what anything here needs.
const testBudget = 10 * time.Second

// bytesVocabulary has a token for each byte, then one for each of the words, then the end token.
func bytesVocabulary(t testing.TB, words ...string) (v *Vocabulary, end int32) {
	t.Helper()
	var texts [][]byte
	for i := range 256 {
		texts = append(texts, []byte{byte(i)})
	}
	for _, w := range words {
		texts = append(texts, []byte(w))
	}
	ids, longest := make(map[string]int32), 1
	for i, text := range texts {
		ids[string(text)] = int32(i)
		longest = max(longest, len(text))
	}
	end = int32(len(texts))
	texts = append(texts, nil)
	v, err := NewVocabulary(Tokens{Texts: texts, Ends: []int32{end}, Encode: func(text []byte) []int32 { return longestTokens(ids, longest, text) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v, end
}

// longestTokens takes the longest token at each place.
func longestTokens(ids map[string]int32, longest int, text []byte) []int32 {
	var out []int32
	for len(text) > 0 {
		for n := min(longest, len(text)); n > 0; n-- {
			if id, ok := ids[string(text[:n])]; ok {
				out, text = append(out, id), text[n:]
				break
			}
		}
	}
	return out
}

func newMatcher(t testing.TB, v *Vocabulary, s Source) *Matcher {
	t.Helper()
	m, err := v.NewMatcher(s)
	if err != nil {
		t.Fatalf("%s %s: %v", s.Kind, s.Text, err)
	}
	t.Cleanup(m.Close)
	return m
}

func allowed(words []uint32, t int32) bool { return words[t/32]>>(t%32)&1 != 0 }

// follows reports whether the grammar allows exactly this text as a whole answer, byte by byte.
func follows(t testing.TB, v *Vocabulary, end int32, s Source, text string) bool {
	t.Helper()
	m := newMatcher(t, v, s)
	words := make([]uint32, m.MaskWords())
	for i := range len(text) {
		if err := m.Mask(words, testBudget); err != nil {
			t.Fatalf("%s at %q: %v", s.Text, text[:i], err)
		}
		if !allowed(words, int32(text[i])) {
			return false
		}
		if err := m.Accept(int32(text[i]), testBudget); err != nil {
			t.Fatalf("%s after %q: %v", s.Text, text[:i+1], err)
		}
	}
	if err := m.Mask(words, testBudget); err != nil {
		t.Fatalf("%s at the end of %q: %v", s.Text, text, err)
	}
	return allowed(words, end)
}

func TestSchemasDecideWhatFits(t *testing.T) {
	v, end := bytesVocabulary(t)
	for _, tc := range []struct {
		schema string
		yes    []string
		no     []string
	}{
		{`{"type":"integer","minimum":100}`, []string{`100`, `2024`}, []string{`10`, `99`, `-100`, `100.5`}},
		{`{"type":"integer","maximum":-5}`, []string{`-5`, `-22`}, []string{`-4`, `0`, `-0022`, `5`}},
		{`{"const":2024}`, []string{`2024`}, []string{`2010`, `20`}},
		{`{"type":"string","pattern":"^[^;]{1,40}$"}`, []string{`"ab"`, `"a\"b"`}, []string{`""`, `"a;b"`, `"` + strings.Repeat("x", 41) + `"`, "\"a\nb\""}},
		{`{"type":"string","pattern":"^a\"b$"}`, []string{`"a\"b"`}, []string{`"a"b"`, `"ab"`}},
		{`{"type":"string","pattern":"[\\n]"}`, []string{`"x\ny"`}, []string{"\"x\ny\"", `"xy"`}},
		{`{"type":"string","pattern":"\\d\\w"}`, []string{`"7a"`, `"..7a.."`}, []string{`"a7"`, `"7-"`}},
		{`{"type":"string","pattern":"^a+$","maxLength":3}`, []string{`"aaa"`}, []string{`"aaaa"`, `""`}},
		{`{"type":"string","pattern":"^é+$"}`, []string{`"éé"`}, []string{`"e"`}},
		{`{"type":"string","maxLength":65536}`, []string{`"x"`}, []string{`x`}},
		{`{"type":"number","minimum":0,"exclusiveMaximum":1}`, []string{`0`, `0.25`}, []string{`1`, `1.0`, `-0.1`}},
		{`{"type":"integer","multipleOf":5}`, []string{`15`, `0`}, []string{`16`}},
		{`{"type":"object","properties":{"":{"type":"integer"},"b":{"type":"boolean"}},"required":[""],"additionalProperties":false}`,
			[]string{`{"":1}`, `{"": 1, "b": true}`}, []string{`1`, `{"b":true}`, `{"b":true,"":1}`}},
		{`{"type":"object","properties":{"a":{"type":"array","items":{"type":"string"}}},"required":["a"],"additionalProperties":{"type":"integer"}}`,
			[]string{`{"a":["x"],"n":3}`}, []string{`{"a":["x"],"n":"3"}`, `{"n":3}`}},
		{`{"type":"object","properties":{"a":{"type":"integer"}},"patternProperties":{"^x_":{"type":"boolean"}},"additionalProperties":false}`,
			[]string{`{"a":1,"x_y":true}`}, []string{`{"x_y":1}`, `{"z":true}`}},
		{`{"$defs":{"p":{"type":"integer","minimum":1}},"properties":{"n":{"$ref":"#/$defs/p","maximum":3}},"required":["n"],"type":"object"}`,
			[]string{`{"n":3}`}, []string{`{"n":4}`, `{"n":0}`, `{}`}},
		{`{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"additionalProperties":false,"anyOf":[{"required":["a"]},{"required":["b"]}]}`,
			[]string{`{"a":1}`, `{"b":1}`, `{"a":1,"b":2}`}, []string{`{}`}},
		{`{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"allOf":[{"properties":{"b":{"type":"null"}},"required":["b"]}]}]}`,
			[]string{`{"a":1,"b":null}`}, []string{`{"a":1}`, `{"b":null}`}},
		{`{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":false,"minItems":2}`, []string{`[1,"x"]`}, []string{`[1]`, `["x",1]`, `[1,"x",2]`}},
		{`{"allOf":[{"items":[{"type":"integer"},{"type":"string"}]}],"items":[{"type":"integer"}],"additionalItems":{"type":"boolean"}}`, []string{`[1]`}, []string{`[1,"x"]`, `["x"]`}},
		{`{"oneOf":[{"type":"integer"},{"type":"string"}]}`, []string{`1`, `"x"`}, []string{`null`}},
		{`{"x-guidance":{"coerce_one_of":true},"oneOf":[{"type":"integer"},{"type":"number"}]}`, []string{`1`, `1.5`}, []string{`null`}},
		{`{"enum":["a",1,null,{"b":[]}]}`, []string{`"a"`, `1`, `null`, `{"b":[]}`}, []string{`"b"`, `{}`}},
	} {
		s := Source{JSONSchema, tc.schema}
		for _, text := range tc.yes {
			if !follows(t, v, end, s, text) {
				t.Errorf("%s refuses %s", tc.schema, text)
			}
		}
		for _, text := range tc.no {
			if follows(t, v, end, s, text) {
				t.Errorf("%s allows %s", tc.schema, text)
			}
		}
	}
}

func TestSchemasThatCannotBeObeyed(t *testing.T) {
	v, _ := bytesVocabulary(t)
	for schema, want := range map[string]string{
		`{"type":"string","minLength":10,"maxLength":5}`:                                                           "minLength",
		`{"type":"array","minItems":4,"maxItems":2}`:                                                               "minItems at /minItems",
		`{"type":"string","pattern":"^a{2,1}$"}`:                                                                   "pattern at /pattern",
		`{"type":"string","pattern":"^[z-a]$"}`:                                                                    "pattern at /pattern",
		`{"type":"string","pattern":"^a**$("}`:                                                                     "pattern at /pattern",
		`{"type":"string","pattern":"^(?=a)b$"}`:                                                                   "pattern at /pattern",
		`{"type":"integer","minimum":5,"maximum":4}`:                                                               "minimum",
		`{"properties":{"a":{"not":{"type":"null"}}}}`:                                                             "not at /properties/a/not",
		`{"properties":{"a/b":{"uniqueItems":true,"type":"array"}}}`:                                               "uniqueItems at /properties/a~1b/uniqueItems",
		`{"items":[{"contains":{}}]}`:                                                                              "contains at /items/0/contains",
		`{"if":{},"then":{}}`:                                                                                      "if at /if, then at /then",
		`{"dependentRequired":{"a":["b"]}}`:                                                                        "dependentRequired at /dependentRequired",
		`{"properties":{"a":{"oneOf":[{"type":"integer"},{"type":"number"}]}}}`:                                    "oneOf at /properties/a/oneOf",
		`{"properties":{"d":{"type":"string","format":"no-such-form"}}}`:                                           "format at /properties/d/format",
		`{"allOf":[{"$id":"http://a/","$ref":"b.json"}],"$defs":{"b":{"$id":"b.json"}}}`:                           "$ref at /allOf/0/$ref",
		`{"properties":{"limit":{"type":"integer","minimum":5,"maximum":1}},"required":["limit"],"type":"object"}`: "limit",
		`{"properties":{"c":{"$ref":"#/$defs/cancelReason"}}}`:                                                     "$ref at /properties/c/$ref",
		`{"prefixItems":[{}],"additionalItems":false}`:                                                             "prefixItems at /prefixItems",
		`{"items":[{}],"anyOf":[{}],"additionalItems":false}`:                                                      "additionalItems at /additionalItems",
		`{"minimum":5,"allOf":[{}],"exclusiveMinimum":true}`:                                                       "exclusiveMinimum at /exclusiveMinimum",
		`{"$schema":"http://json-schema.org/draft-04/schema#","if":{}}`:                                            "if at /if",
		`{"enum":[1,9007199254740993]}`:                                                                            "enum at /enum: 9007199254740993",
		`{"$ref":"#/$defs/none"}`:                                                                                  "$ref at /$ref",
		`{"type":"nothing"}`:                                                                                       "type at /type",
		`{"patternProperties":{"^a":{},"a$":{}}}`:                                                                  "patternProperties at /patternProperties",
		`{"x-guidance":{"lenient":true},"not":{}}`:                                                                 "coerce_one_of",
		`[]`:            "must be an object",
		`{"a":1,"a":2}`: "duplicate",
		strings.Repeat(`{"items":`, 100) + "{}" + strings.Repeat("}", 100):                  "nested",
		`{"pattern":"` + strings.Repeat("(", 1000) + "a" + strings.Repeat(")", 1000) + `"}`: "nested",
	} {
		m, err := v.NewMatcher(Source{JSONSchema, schema})
		if err == nil {
			m.Close()
			t.Errorf("%.200s is taken", schema)
			continue
		}
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.200s: %v, want a word of %q", schema, err, want)
		}
	}
}

func TestForcedTokens(t *testing.T) {
	v, end := bytesVocabulary(t, "city", ": ", "Paris", "Par")
	m := newMatcher(t, v, Source{Regex, `(the|a) city: Paris!`})
	if first, err := m.Forced(64, testBudget); err != nil || len(first) != 0 {
		t.Fatalf("%v, %v is forced where there is a choice", first, err)
	}
	if err := m.Accept('a', testBudget); err != nil {
		t.Fatal(err)
	}
	forced, err := m.Forced(64, testBudget)
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for _, f := range forced {
		text = append(text, v.tokens.Texts[f]...)
	}
	if !strings.HasPrefix(" city: Paris!", string(text)) || len(text) < len(" city: ") || len(forced) >= len(text)-4 {
		t.Fatalf("forced %v, %q", forced, text)
	}
	if few, err := m.Forced(2, testBudget); err != nil || fmt.Sprint(few) != fmt.Sprint(forced[:2]) {
		t.Errorf("forced %v, %v, want the first two of %v", few, err, forced)
	}
	for _, f := range append(forced, v.encodeText([]byte(" city: Paris!"[len(text):]))...) {
		if err := m.Accept(f, testBudget); err != nil {
			t.Fatal(err)
		}
	}
	if last, err := m.Forced(64, testBudget); err != nil || len(last) != 1 || last[0] != end || !m.Ended() {
		t.Errorf("at the end %v, %v is forced, want the end token %d", last, err, end)
	}
}

// A clone has accepted what the original has, and then neither affects the other.
func TestClonesGoTheirOwnWay(t *testing.T) {
	v, end := bytesVocabulary(t)
	m := newMatcher(t, v, Source{Regex, "(ab|ac)"})
	if err := m.Accept('a', testBudget); err != nil {
		t.Fatal(err)
	}
	other := m.Clone()
	defer other.Close()
	for text, at := range map[byte]*Matcher{'b': m, 'c': other} {
		if err := at.Accept(int32(text), testBudget); err != nil {
			t.Fatal(err)
		}
		if last, err := at.Forced(1, testBudget); err != nil || len(last) != 1 || last[0] != end {
			t.Errorf("after a%c %v, %v is forced", text, last, err)
		}
	}
}

func TestWhatIsNotAllowedIsAnError(t *testing.T) {
	v, _ := bytesVocabulary(t)
	m := newMatcher(t, v, Source{Regex, "[ab]+"})
	if err := m.Accept('c', testBudget); !errors.Is(err, ErrInvalid) {
		t.Errorf("accepting c: %v", err)
	}
	if err := m.Mask(make([]uint32, m.MaskWords()), testBudget); err == nil {
		t.Error("the matcher goes on after a token that it doesn't allow")
	}
}

func TestGBNF(t *testing.T) {
	v, end := bytesVocabulary(t)
	for _, tc := range []struct {
		grammar string
		yes, no []string
	}{
		{`root ::= "yes" | "no"`, []string{"yes", "no"}, []string{"y", "maybe", ""}},
		{"root ::= item (\", \" item)* # list\nitem ::= [a-z]+ [0-9]?\n", []string{"a", "ab1, c"}, []string{"a,b", "1"}},
		{`root ::= "a"{2,3} [^x-z\n]`, []string{"aab", "aaaé"}, []string{"aax", "ab", "aa\n"}},
		{"root ::= (\n  \"\" |\n  \"(\" root \")\"\n)", []string{"", "(())"}, []string{"(", ")("}},
		{`root ::= "\x41\u00e9" . "\""`, []string{`Aéz"`, `Aé日"`}, []string{`Aé"`}},
		{`root ::= "a" [a-z]* "bc" | "ab"`, []string{"ab", "abc", "aabcbc"}, []string{"abd"}}, // no longest match
	} {
		s := Source{GBNF, tc.grammar}
		for _, text := range tc.yes {
			if !follows(t, v, end, s, text) {
				t.Errorf("%s refuses %q", tc.grammar, text)
			}
		}
		for _, text := range tc.no {
			if follows(t, v, end, s, text) {
				t.Errorf("%s allows %q", tc.grammar, text)
			}
		}
	}
}
