//go:build llama

package grammar

import (
	"encoding/json"
	"strings"
	"testing"
)

// The form in which llama.cpp writes a text up to "</a>", followed by a mark that is a control token here.
const tagged = `root ::= "never" | call
call ::= "<a>" ac-1 "<|end_call|>"
ac-1 ::= [<] ac-1-01 | [^<] ac-1
ac-1-01 ::= [<] ac-1-01 | [/] ac-1-02 | [^/<] ac-1
ac-1-02 ::= [<] ac-1-01 | [a] ac-1-03 | [^<a] ac-1
ac-1-03 ::= [>] | [<] ac-1-01 | [^<>] ac-1
`

const endCall = "<|end_call|>"

func answerVocabulary(t *testing.T) (*Vocabulary, int32) {
	t.Helper()
	tokens := Tokens{Ends: []int32{256}}
	for i := range 256 {
		tokens.Texts = append(tokens.Texts, []byte{byte(i)})
	}
	tokens.Texts = append(tokens.Texts, append([]byte{ControlMark}, "<|end|>"...), append([]byte{ControlMark}, endCall...))
	tokens.Texts[ControlMark] = nil
	tokens.Encode = func(text []byte) (out []int32) {
		for _, c := range text {
			out = append(out, int32(c))
		}
		return out
	}
	v, err := NewVocabulary(tokens)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v, 257
}

// allowsAnswer reports whether a form allows a text as a whole; the text of the control token means the token.
func allowsAnswer(t *testing.T, v *Vocabulary, a Answer, text string, control int32) bool {
	t.Helper()
	m, err := v.NewMatcher(a.Source())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for text != "" {
		next, n := int32(text[0]), 1
		if strings.HasPrefix(text, endCall) {
			next, n = control, len(endCall)
		}
		if m.Accept(next, 0) != nil {
			return false
		}
		text = text[n:]
	}
	words := make([]uint32, m.MaskWords())
	if err := m.Mask(words, testBudget); err != nil {
		t.Fatalf("at the end: %v", err)
	}
	return allowed(words, 256)
}

func TestFormsOfAnswers(t *testing.T) {
	v, control := answerVocabulary(t)
	schema := json.RawMessage(`{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"],"additionalProperties":false}`)
	calls := Answer{Calls: tagged, Begin: "call"}
	think := &Reasoning{Start: "<think>", End: "</think>"}
	open := &Reasoning{Start: "<think>", End: "</think>", Open: true}
	control1 := &Reasoning{Start: "<think>", End: endCall, Open: true}
	either := Answer{Calls: tagged, Begin: "call", Schema: schema, Reasoning: think}
	for _, test := range []struct {
		name string
		form Answer
		text string
		want bool
	}{
		{"a call", calls, "<a>x < </b> <</a>" + endCall, true},
		{"its text goes up to the delimiter", calls, "<a>x</a>y</a>" + endCall, false},
		{"only a call", calls, "never", false},
		{"the control token as text", calls, "<a>x</a><|end_call", false},
		{"text before it", calls, "So: <a>x</a>" + endCall, false},
		{"either a call", either, "<a>x</a>" + endCall, true},
		{"or JSON", either, `{"x":1}`, true},
		{"but nothing else", either, `{"y":1}`, false},
		{"JSON after reasoning", either, "<think>{}</think>\n\n" + `{"x":1}`, true},
		{"a call after reasoning", either, "<think>no <a> yet</think><a>x</a>" + endCall, true},
		{"reasoning that isn't ended", either, "<think>" + `{"x":1}`, false},
		{"open reasoning", Answer{Schema: schema, Reasoning: open}, `I think</think>{"x":1}`, true},
		{"open reasoning must end", Answer{Schema: schema, Reasoning: open}, `{"x":1}`, false},
		{"reasoning up to a control token", Answer{Schema: schema, Reasoning: control1}, `I think` + endCall + `{"x":1}`, true},
	} {
		if got := allowsAnswer(t, v, test.form, test.text, control); got != test.want {
			t.Errorf("%s: %q: %v", test.name, test.text, got)
		}
	}
}

// The work for one character doesn't grow with the text before it.
func TestLongTextsBetweenTags(t *testing.T) {
	v, control := answerVocabulary(t)
	for _, form := range []Answer{{Calls: tagged, Begin: "call"}, {Calls: tagged, Begin: "call", Reasoning: &Reasoning{Start: "<think>", End: "</think>"}}} {
		text := "<a>" + strings.Repeat("abc <b> ", 2000) + "</a>" + endCall
		if form.Reasoning != nil {
			text = "<think>" + strings.Repeat("hm, <a>? ", 2000) + "</think>" + text
		}
		if !allowsAnswer(t, v, form, text, control) {
			t.Error("a long text isn't allowed")
		}
	}
}
