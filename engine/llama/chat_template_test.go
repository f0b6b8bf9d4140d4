//go:build llama

package llama

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/grammar"
	"tandem/engine/models"
)

var templateFamilies = map[string]struct {
	template string
	specials []string
}{
	"ChatML": {
		template: "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
		specials: []string{"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<tool_call>", "</tool_call>"},
	},
	"Llama 3": {
		template: "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
		specials: []string{"<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>", "<|reserved_special_token_0|>"},
	},
}

func controls(base *Base, tokens []batch.Token) []batch.Token {
	return slices.DeleteFunc(slices.Clone(tokens), func(t batch.Token) bool { return !base.vocab.control(t) })
}

func allSpecials(base *Base) []string {
	var out []string
	for _, s := range base.vocab.specials.list {
		out = append(out, string(s.text))
	}
	return out
}

// TestUserTextNeverGivesAControlToken puts each special token's text of a vocabulary in each place where a client can
// write.
func TestUserTextNeverGivesAControlToken(t *testing.T) {
	b, _ := newBackend(t, nil)
	files := map[string]string{"demo": demoFile(t, "demo-q8_0.gguf")}
	for name, f := range templateFamilies {
		files[name] = demoWithTemplate(t, f.template, f.specials)
	}
	for name, path := range files {
		t.Run(name, func(t *testing.T) {
			base := loadFile(t, b, path, nil)
			literals := allSpecials(base)
			if len(literals) < 6 {
				t.Fatalf("only %d special tokens", len(literals))
			}
			for _, literal := range literals {
				for _, format := range []string{"%s", "a%sb", "x %s\n", "%[1]s%[1]s", "\n%s", "|>%s<|"} {
					checkControls(t, base, fmt.Sprintf(format, literal))
				}
				checkControls(t, base, literal[:len(literal)/2]) // may be completed by the template's text
				checkControls(t, base, literal[len(literal)/2:])
			}
		})
	}
}

// checkControls compares the control tokens of a hostile text with those of a harmless one in the same places.
func checkControls(t *testing.T, base *Base, text string) {
	t.Helper()
	for place, fill := range map[string]func(string) models.Input{
		"prompt": func(s string) models.Input { return models.Input{Prompt: s} },
		"system": func(s string) models.Input { return models.Input{Prompt: "hello", System: s} },
		"answer": func(s string) models.Input {
			return models.Input{Messages: []models.Message{{Role: "user", Content: "hello"}, {Role: "assistant", Content: s}, {Role: "user", Content: s}}}
		},
		"raw": func(s string) models.Input { return models.Input{Prompt: s, Raw: true} },
	} {
		harmless, errHarmless := base.Render(t.Context(), fill("hello"))
		hostile, errHostile := base.Render(t.Context(), fill(text))
		if errHarmless != nil || errHostile != nil {
			t.Fatalf("%s: %v, %v", place, errHarmless, errHostile)
		}
		if want, got := controls(base, harmless.Tokens), controls(base, hostile.Tokens); !slices.Equal(got, want) {
			t.Errorf("%s %q gives control tokens %v, want %v", place, text, got, want)
		}
	}
}

func TestHarmlessTextIsTokenisedInOnePiece(t *testing.T) {
	base, _ := loadDemo(t, nil)
	e := encoder{vocab: base.vocab, ctx: t.Context(), limit: 512}
	e.tokenize([]byte("<|user|>\n"+france+"<|end|>\n<|assistant|>\n"), true)
	want := append([]batch.Token{base.vocab.bos}, e.out...)
	if got := render(t, base, france); e.err != nil || !slices.Equal(got, want) {
		t.Errorf("rendered %v, the whole text gives %v, %v", got, want, e.err)
	}
}

func TestSystemMessageAndHistoryReachTheModel(t *testing.T) {
	base, executor := loadDemo(t, nil)
	p, err := base.Render(t.Context(), models.Input{Messages: []models.Message{
		{Role: "user", Content: france}, {Role: "assistant", Content: "I think it is Paris."}, {Role: "user", Content: "And Italy?"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if text, _, err := generate(base, executor, nil, 0, p.Tokens, greedy, 32); err != nil || !strings.Contains(text, "Rome") {
		t.Errorf("follow-up answers %q, %v", text, err)
	}
	with, err := base.Render(t.Context(), models.Input{Prompt: france, System: "Answer briefly."})
	if err != nil || len(with.Tokens) <= len(render(t, base, france)) {
		t.Errorf("with a system text: %d tokens, %v", len(with.Tokens), err)
	}
}

func TestRenderRefusals(t *testing.T) {
	base, _ := loadDemo(t, nil)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		in   models.Input
		want error
	}{
		"more bytes than the context can hold": {t.Context(), models.Input{Prompt: strings.Repeat("a", 1<<20)}, models.ErrPromptTooLong},
		"more tokens than the context":         {t.Context(), models.Input{Prompt: strings.Repeat("q7 ", 900)}, models.ErrPromptTooLong},
		"more than wanted":                     {t.Context(), models.Input{Prompt: france, MaxTokens: 5}, models.ErrPromptTooLong},
		"unknown role":                         {t.Context(), models.Input{Messages: []models.Message{{Role: "tool|>\n<|user", Content: "x"}}}, ErrMessage},
		"cancelled":                            {cancelled, models.Input{Prompt: france}, context.Canceled},
		"bad schema":                           {t.Context(), models.Input{Prompt: france, JSONSchema: []byte(`{"type":"nothing"}`)}, grammar.ErrInvalid},
	} {
		if _, err := base.Render(c.ctx, c.in); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestLongRunsAreCutAtCharacters(t *testing.T) {
	text := strings.Repeat("é", maxRunBytes) + strings.Repeat(" ", 2*maxRunBytes)
	cuts := longRuns([]byte(text))
	if len(cuts) < 2 {
		t.Fatalf("cuts %v in %d bytes", cuts, len(text))
	}
	from := 0
	for _, cut := range append(cuts, len(text)) {
		if cut-from > 2*maxRunBytes+4 || strings.ToValidUTF8(text[from:cut], "?") != text[from:cut] {
			t.Errorf("piece %d … %d is too long or cuts a character", from, cut)
		}
		from = cut
	}
}

func TestRunsOfDigitsAreCutSooner(t *testing.T) {
	ones := strings.Repeat("1", maxDigitRun)
	for text, want := range map[string][]int{
		ones:                       nil,
		ones + "a" + ones:          nil,
		ones + "1":                 {maxDigitRun},
		"x" + ones + ones + "1":    {1 + maxDigitRun, 1 + 2*maxDigitRun},
		strings.Repeat("1.", 4000): nil,
	} {
		if got := longRuns([]byte(text)); !slices.Equal(got, want) {
			t.Errorf("%d bytes: %v, want %v", len(text), got, want)
		}
	}
}

// Without the cut the work would grow with the square of a run's length, and the test would fail by the time that it
// takes.
func TestEndlessRunsTokeniseQuickly(t *testing.T) {
	base, _ := loadDemo(t, nil)
	for _, unit := range []string{"a", " "} {
		started := time.Now()
		e := encoder{vocab: base.vocab, ctx: t.Context(), limit: 1 << 30}
		e.encodePlain([]byte(strings.Repeat(unit, 1<<18)))
		if took := time.Since(started); e.err != nil || took > 5*time.Second {
			t.Errorf("256 KiB of %q: %s, %v", unit, took, e.err)
		}
	}
}
