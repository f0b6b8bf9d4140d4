package grammar

import (
	"errors"
	"strings"
	"testing"
)

func TestSourcesSurviveTheWire(t *testing.T) {
	for _, s := range []Source{{}, {JSONSchema, `{"type":"null"}`}, {Regex, "a\nb"}, {Lark, "start: \"a\""}, {GBNF, `root ::= "a"`}} {
		if got := Parse(s.String()); got != s {
			t.Errorf("%+v became %+v", s, got)
		}
	}
}

func TestSourcesThatAreRefused(t *testing.T) {
	for name, s := range map[string]Source{
		"too long":              {Regex, strings.Repeat("a", textBytesMax+1)},
		"zero byte":             {Lark, "start: \"\x00\""},
		"deep pattern":          {Regex, strings.Repeat("(", 1000) + strings.Repeat(")", 1000)},
		"unknown kind":          {"bnf", "x"},
		"no rule":               {GBNF, `"a"`},
		"undefined rule":        {GBNF, `root ::= nothing`},
		"no root":               {GBNF, `start ::= "a"`},
		"a rule twice":          {GBNF, "root ::= \"a\"\nroot ::= \"b\""},
		"unclosed literal":      {GBNF, `root ::= "a`},
		"unclosed class":        {GBNF, `root ::= [a`},
		"empty class":           {GBNF, `root ::= []`},
		"backwards range":       {GBNF, `root ::= [z-a]`},
		"unclosed group":        {GBNF, `root ::= ("a"`},
		"deep groups":           {GBNF, "root ::= " + strings.Repeat("(", 100_000)},
		"maximum below minimum": {GBNF, `root ::= "a"{10,5}`},
		"large repetition":      {GBNF, `root ::= "a"{1,99999999999999999999}`},
		"half an escape":        {GBNF, `root ::= "\`},
		"no character":          {GBNF, `root ::= "\uD800"`},
		"binary":                {GBNF, "root ::= \"\xff\xfe\""},
		"token literal":         {GBNF, "root ::= <[1]>"},
		"a rule on the line":    {GBNF, `root ::= "a" )`},
	} {
		if _, _, err := s.prepare(nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The members keep their order, since those of the answer follow it.
func TestSchemaKeepsItsOrder(t *testing.T) {
	text, err := prepareSchema(`{"required":["z"],"properties":{"z":{},"a":{}},"x-guidance":{"coerce_one_of":true},"additionalProperties":false}`)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"required":["z"],"properties":{"z":{},"a":{}},"additionalProperties":false,"x-guidance":`; !strings.HasPrefix(text, want) || !strings.Contains(text, `"coerce_one_of":true`) {
		t.Errorf("got %s", text)
	}
}

func FuzzGBNF(f *testing.F) {
	f.Add("root ::= item (\", \" item)*\nitem ::= [a-z]{1,3} | . # comment")
	f.Fuzz(func(t *testing.T, text string) {
		if out, err := gbnfToLark(text); err == nil && len(out) > 64+64*len(text) {
			t.Errorf("%d bytes become %d", len(text), len(out))
		}
	})
}

func FuzzSchemaText(f *testing.F) {
	f.Add(`{"a~/":[{"not":{}}],"properties":{"x":{"items":[{"oneOf":[]}]}}}`, `Unimplemented keys: ["not"]`)
	f.Fuzz(func(t *testing.T, schema, message string) {
		if _, err := prepareSchema(schema); err != nil {
			return
		}
		if err := explainSchema(schema, invalid("%s", message)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v isn't ErrInvalid", err)
		}
	})
}
