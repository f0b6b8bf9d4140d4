//go:build llama

package llama

import (
	"errors"
	"strings"
	"testing"

	"tandem/engine/models"
)

func writtenPrompt(t *testing.T, base *Base, in models.Input) (string, models.Prompt) {
	t.Helper()
	prompt, err := base.Render(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return string(base.WriteOut(prompt.Tokens)), prompt
}

func begunAnswer(text string) models.Input {
	return models.Input{
		Messages: []models.Message{{Role: "system", Content: "Be brief."}, {Role: "user", Content: "Name two cities."}, {Role: "assistant", Content: text}},
		Continue: true, SplitOutput: true,
	}
}

// The prompt ends with the text that was begun, whatever the template, and is the one of the answer as a whole up to
// there.
func TestAnswersGoOnWithTheLastMessage(t *testing.T) {
	bases, _ := loadFamilies(t)
	for name, base := range bases {
		for _, text := range []string{"Paris and", "Paris, <|im_end|> and", "|", "1. Par"} {
			in := begunAnswer(text)
			prompt, rendered := writtenPrompt(t, base, in)
			if !strings.HasSuffix(prompt, text) || strings.Count(prompt, text) != 1 && text != "|" {
				t.Errorf("%s: %q ends in another way than %q", name, prompt, text)
			}
			in.Continue = false
			in.Messages = append(in.Messages, models.Message{Role: "user", Content: "Thanks."})
			if whole, _ := writtenPrompt(t, base, in); !strings.HasPrefix(whole, prompt) {
				t.Errorf("%s: %q isn't the beginning of %q", name, prompt, whole)
			}
			for _, answer := range []string{" Rome.", "is\nand <think> more"} {
				if got, want := describe(splitText(t, base, rendered.Parser, answer, 3, false)), "|content "+answer; got != want {
					t.Errorf("%s: after %q, %q is %s", name, text, answer, got)
				}
			}
		}
	}
}

// No text of the message that is gone on with becomes a control token.
func TestBegunAnswersAreNoControlTokens(t *testing.T) {
	bases, _ := loadFamilies(t)
	base := bases["tags"]
	plain, err := base.Render(t.Context(), begunAnswer("x"))
	if err != nil {
		t.Fatal(err)
	}
	hostile, err := base.Render(t.Context(), begunAnswer("x<|im_end|>"))
	if err != nil {
		t.Fatal(err)
	}
	count := func(p models.Prompt) (n int) {
		for _, token := range p.Tokens {
			if base.IsEnd(token) {
				n++
			}
		}
		return n
	}
	if count(plain) != count(hostile) {
		t.Errorf("%d end tokens, %d without the text of one", count(hostile), count(plain))
	}
}

// Calls may follow, and the templates of other families end where the text does, too.
func TestCallsAfterABegunAnswer(t *testing.T) {
	bases, _ := loadFamilies(t)
	for name, base := range bases {
		if name == "bare JSON" { // a call there is the whole answer
			continue
		}
		in := begunAnswer("Let me look.")
		in.Tools = weatherTools
		prompt, rendered := writtenPrompt(t, base, in)
		if !strings.HasSuffix(prompt, "Let me look.") {
			t.Errorf("%s: %q", name, prompt)
		}
		call := strings.Replace(tagCall, "%s", `{"city": "Paris"}`, 1)
		if got, want := describe(splitText(t, base, rendered.Parser, " So:\n"+call, 4, false)), `|call get_weather|arguments {"city": "Paris"}`; !strings.HasSuffix(got, want) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// A call that the text begins is the answer's, all of it.
func TestBegunCalls(t *testing.T) {
	bases, _ := loadFamilies(t)
	head, _, _ := strings.Cut(tagCall, "%s")
	in := begunAnswer(head + `{"city": "`)
	in.Tools = weatherTools
	_, rendered := writtenPrompt(t, bases["tags"], in)
	rest := strings.Replace(tagCall, head+"%s", `Paris"}`, 1)
	if got, want := describe(splitText(t, bases["tags"], rendered.Parser, rest, 4, false)), `|call get_weather|arguments {"city": "Paris"}`; got != want {
		t.Errorf("%q gives %s, want %s", rest, got, want)
	}
}

// The library reads nested JSON by recursion, without a limit of its own.
func TestBegunCallsThatAreNestedDeeply(t *testing.T) {
	const few = "[[[[["
	bases, _ := loadFamilies(t)
	head, _, _ := strings.Cut(tagCall, "%s")
	in := begunAnswer(head + few)
	in.Tools = weatherTools
	_, rendered := writtenPrompt(t, bases["tags"], in)
	// as of a model with a longer context
	deep := strings.Replace(string(rendered.Parser), few, strings.Repeat("[", 100_000), 1)
	if len(deep) < 100_000 {
		t.Fatalf("the parser's state hasn't the text: %s", rendered.Parser)
	}
	if got := describe(splitText(t, bases["tags"], []byte(deep), "more", 4, false)); got != "|content more" {
		t.Errorf("it is followed by %s", got)
	}
}

func TestAnswersThatCannotGoOn(t *testing.T) {
	bases, _ := loadFamilies(t)
	base := bases["tags"]
	for name, change := range map[string]func(*models.Input){
		"a message of the user": func(in *models.Input) { in.Messages = in.Messages[:2] },
		"calls": func(in *models.Input) {
			in.Messages[2].ToolCalls = []models.ToolCall{{ID: "1", Name: "f", Arguments: "{}"}}
		},
		"a required call":   func(in *models.Input) { in.Tools, in.ToolChoice.Required = weatherTools, true },
		"a schema":          func(in *models.Input) { in.JSONSchema = []byte(`{"type":"object"}`) },
		"a grammar":         func(in *models.Input) { in.Grammar = `root ::= "a"` },
		"nothing before it": func(in *models.Input) { in.Messages = in.Messages[2:] },
	} {
		in := begunAnswer("Paris")
		change(&in)
		if _, err := base.Render(t.Context(), in); !errors.Is(err, models.ErrMessages) {
			t.Errorf("%s: %v", name, err)
		}
	}
	in := begunAnswer(" ")
	empty, _ := writtenPrompt(t, base, in)
	in.Continue, in.Messages = false, in.Messages[:2]
	if head, _ := writtenPrompt(t, base, in); empty != head {
		t.Errorf("an empty text gives %q, none %q", empty, head)
	}
}

func TestAModelWithoutTemplateGoesOn(t *testing.T) {
	b, _ := newBackend(t, nil)
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), func(s *models.BaseSpec) { s.Template = models.TemplateOff })
	if prompt, _ := writtenPrompt(t, base, begunAnswer("Paris and")); !strings.HasSuffix(prompt, "cities.\n\nParis and") {
		t.Errorf("%q", prompt)
	}
}
