//go:build llama

package llama

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

func loadFamilies(t *testing.T) (map[string]*Base, *testExecutor) {
	t.Helper()
	b, executor := newBackend(t, nil)
	bases := make(map[string]*Base)
	for name, f := range toolFamilies {
		bases[name] = loadFile(t, b, demoWithTemplate(t, f.template, f.specials), nil)
	}
	return bases, executor
}

func askWeather() models.Input {
	return models.Input{Messages: []models.Message{{Role: "user", Content: "What is the weather in Paris?"}}, Tools: weatherTools, SplitOutput: true}
}

func TestFactsSayWhatTheTemplateHas(t *testing.T) {
	bases, _ := loadFamilies(t)
	for name, base := range bases {
		if f := base.Facts(); f.Tools != toolFamilies[name].tools || f.Reasoning != toolFamilies[name].reasoning {
			t.Errorf("%s: tools %v, reasoning %v", name, f.Tools, f.Reasoning)
		}
	}
}

// splitText parses a text in pieces of n bytes.
func splitText(t *testing.T, base *Base, state []byte, text string, n int, cut bool) []models.Part {
	t.Helper()
	p, err := base.NewParser(state)
	if err != nil {
		t.Fatal(err)
	}
	if p == nil {
		return []models.Part{{Kind: models.PartContent, Text: []byte(text)}}
	}
	defer p.Close()
	var list []models.Part
	for len(text) > 0 {
		k := min(n, len(text))
		list = append(list, p.Push([]byte(text[:k]))...)
		text = text[k:]
	}
	return append(list, p.Finish(cut)...)
}

// describe writes parts as text; those of one kind are joined.
func describe(list []models.Part) string {
	names := map[models.PartKind]string{models.PartContent: "content", models.PartReasoning: "reasoning", models.PartArguments: "arguments"}
	var out strings.Builder
	last := models.PartKind(0)
	for _, p := range list {
		switch {
		case p.Kind == models.PartCall:
			fmt.Fprintf(&out, "|call %s", p.Name)
		case p.Kind == last:
			out.Write(p.Text)
		default:
			fmt.Fprintf(&out, "|%s %s", names[p.Kind], p.Text)
		}
		last = p.Kind
	}
	return out.String()
}

// callsIn returns the calls in parts; it is an error if arguments aren't JSON.
func callsIn(t *testing.T, list []models.Part) (calls []models.ToolCall) {
	t.Helper()
	for _, p := range list {
		switch p.Kind {
		case models.PartCall:
			calls = append(calls, models.ToolCall{Name: p.Name})
		case models.PartArguments:
			calls[len(calls)-1].Arguments += string(p.Text)
		}
	}
	return calls
}

func TestAnswersAreTakenApart(t *testing.T) {
	bases, _ := loadFamilies(t)
	for name, base := range bases {
		family := toolFamilies[name]
		prompt, err := base.Render(t.Context(), askWeather())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		call := fmt.Sprintf(family.call, `{"city": "Paris"}`)
		tests := map[string]string{
			"Hello there.": "|content Hello there.",
			call:           `|call get_weather|arguments {"city": "Paris"}`,
		}
		if family.reasoning {
			tests["<think>\nWell, Paris.\n</think>\n\n"+call] = `|reasoning Well, Paris.|call get_weather|arguments {"city": "Paris"}`
			tests["<think>\nWell.\n</think>\n\nHello"] = `|reasoning Well.|content Hello`
		}
		for text, want := range tests {
			for _, n := range []int{1, 7, 1000} {
				if got := describe(splitText(t, base, prompt.Parser, text, n, false)); got != want {
					t.Errorf("%s: %q, %d bytes at a time: %s, want %s", name, text, n, got, want)
				}
			}
		}
	}
}

// answer generates with the grammar of a prompt and returns the text with control tokens written out, and the tokens.
func answer(t *testing.T, base *Base, executor *testExecutor, prompt models.Prompt, seed uint64, most int) (string, []batch.Token) {
	t.Helper()
	sampling := batch.Sampling{Temperature: 1, TopP: 1, Seed: seed, Grammar: prompt.Grammar}
	for _, tr := range prompt.Triggers {
		sampling.Triggers = append(sampling.Triggers, batch.Trigger{Kind: batch.TriggerKind(tr.Kind), Value: tr.Value, Token: tr.Token})
	}
	_, tokens, err := generate(base, executor, nil, 0, prompt.Tokens, sampling, most)
	if err != nil {
		t.Fatalf("%v after %q", err, base.WriteOut(tokens))
	}
	ended := slices.DeleteFunc(slices.Clone(tokens), base.IsEnd)
	return string(base.WriteOut(ended)), tokens
}

// A model that knows nothing of tools must call one when it has to, with arguments that fit the schema.
func TestRequiredCallsBind(t *testing.T) {
	bases, executor := loadFamilies(t)
	for name, base := range bases {
		for _, only := range []string{"", "get_weather", "get_time"} {
			in := askWeather()
			in.ToolChoice = models.ToolChoice{Required: true, Name: only}
			in.TemplateOptions = []byte(`{"enable_thinking": false}`)
			prompt, err := base.Render(t.Context(), in)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for seed := range uint64(3) {
				text, _ := answer(t, base, executor, prompt, seed, 512-len(prompt.Tokens))
				parts := splitText(t, base, prompt.Parser, text, 5, true)
				calls := callsIn(t, parts)
				if len(calls) != 1 || only != "" && calls[0].Name != only {
					t.Errorf("%s, only %q, seed %d: %q gives %s", name, only, seed, text, describe(parts))
					continue
				}
				if calls[0].Name == "get_weather" && json.Valid([]byte(calls[0].Arguments)) && !strings.Contains(calls[0].Arguments, `"city"`) {
					t.Errorf("%s: arguments %s", name, calls[0].Arguments)
				}
			}
		}
	}
}
