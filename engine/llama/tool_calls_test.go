//go:build llama

package llama

import (
	"encoding/json"
	"errors"
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

// true is a schema that everything meets, and false one that nothing does.
func TestBooleanSchemasOfTools(t *testing.T) {
	bases, executor := loadFamilies(t)
	for name, base := range bases {
		in := askWeather()
		in.Tools = []models.Tool{{Name: "get_weather", Parameters: []byte(
			`{"type":"object","properties":{"city":{"enum":["Paris","Rome"]},"hint":true,"never":false,"none":{"items":false}},"required":["city","none"]}`)}}
		in.ToolChoice = models.ToolChoice{Required: true}
		in.TemplateOptions = []byte(`{"enable_thinking": false}`)
		prompt, err := base.Render(t.Context(), in)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for seed := range uint64(3) {
			text, _ := answer(t, base, executor, prompt, seed, 512-len(prompt.Tokens))
			calls := callsIn(t, splitText(t, base, prompt.Parser, text, 5, true))
			if len(calls) != 1 || strings.Contains(calls[0].Arguments, `"never"`) {
				t.Errorf("%s, seed %d: %q", name, seed, text)
			}
		}
		for arguments, fits := range map[string]bool{
			`{"city": "Rome", "hint": {"a": [1, null]}, "none": []}`: true,
			`{"city": "Rome", "hint": 7, "none": []}`:                true,
			`{"city": "Rome", "none": []}`:                           true,
			`{"city": "Rome", "none": [1]}`:                          false,
			`{"city": "Rome", "none": [], "never": 1}`:               false,
		} {
			if got := follows(base, prompt, fmt.Sprintf(toolFamilies[name].call, arguments)); got != fits {
				t.Errorf("%s: %s fits: %v", name, arguments, got)
			}
		}
	}
}

func TestSchemasOfToolsThatCannotBeFollowedAreBlamedOnTools(t *testing.T) {
	bases, _ := loadFamilies(t)
	for name, base := range bases {
		in := askWeather()
		in.Tools = []models.Tool{{Name: "f", Parameters: []byte(`{"type":"object","properties":{"a":{"$ref":"https://example.org/a"}}}`)}}
		if _, err := base.Render(t.Context(), in); !errors.Is(err, models.ErrTools) || errors.Is(err, models.ErrMessages) {
			t.Errorf("%s: %v", name, err)
		}
		in.ToolChoice.None = true // then nothing is made of the schema
		if _, err := base.Render(t.Context(), in); err != nil {
			t.Errorf("%s, without calls: %v", name, err)
		}
	}
}

// follows reports whether the grammar of a prompt allows an answer.
func follows(base *Base, prompt models.Prompt, answer string) bool {
	tokens := answerTokens(base, answer)
	s, err := base.NewSampler(batch.Sampling{Grammar: prompt.Grammar, Logprobs: true}, prompt.Tokens, tokens)
	if err != nil {
		return false
	}
	defer s.Close()
	return true
}

// answerTokens encodes an answer; control tokens are those whose text it has.
func answerTokens(base *Base, text string) (tokens []batch.Token) {
	from := 0
	for i := 0; i < len(text); i++ {
		if sp := base.vocab.specialAt([]byte(text), i); sp != nil {
			tokens = append(append(tokens, base.vocab.encodePlain([]byte(text[from:i]))...), sp.token)
			i += len(sp.text) - 1
			from = i + 1
		}
	}
	return append(tokens, base.vocab.encodePlain([]byte(text[from:]))...)
}

// maskAfter is what may be drawn after an answer's tokens; nil: everything.
func maskAfter(t *testing.T, base *Base, prompt models.Prompt, answer []batch.Token) []uint32 {
	t.Helper()
	sampling := batch.Sampling{Grammar: prompt.Grammar, Logprobs: true} // nothing is forced then
	for _, tr := range prompt.Triggers {
		sampling.Triggers = append(sampling.Triggers, batch.Trigger{Kind: batch.TriggerKind(tr.Kind), Value: tr.Value, Token: tr.Token})
	}
	s, err := base.NewSampler(sampling, prompt.Tokens, answer)
	if err != nil {
		t.Fatalf("after %q: %v", base.WriteOut(answer), err)
	}
	defer s.Close()
	if _, err := s.Advance(10); err != nil {
		t.Fatal(err)
	}
	if c := s.(*Sampler).constraint; c.trigger == nil {
		return slices.Clone(c.mask)
	}
	return nil
}

// With auto the model is free until it begins a call; then the call binds.
func TestGrammarBeginsAtATrigger(t *testing.T) {
	bases, _ := loadFamilies(t)
	for name, base := range bases {
		if name == "bare JSON" { // nothing marks its calls, so they can't be told from content
			continue
		}
		in := askWeather()
		prompt, err := base.Render(t.Context(), in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(prompt.Triggers) == 0 || prompt.Grammar == "" {
			t.Fatalf("%s: no triggers", name)
		}
		for text, want := range map[string]bool{
			"": false, "Hello <tool": false, "Hello <b>": false,
			"<tool_call>\n": true, "So:\n<tool_call>\n{\"name\": \"get_": true,
		} {
			mask := maskAfter(t, base, prompt, answerTokens(base, text))
			if (mask != nil) != want {
				t.Errorf("%s: after %q constrained: %v", name, text, mask != nil)
			}
		}
		open := maskAfter(t, base, prompt, answerTokens(base, "<tool_call>\n{\"name\": \""))
		for text, want := range map[string]bool{"g": true, "x": false} {
			token := base.vocab.encodePlain([]byte("a" + text))[1:]
			if len(token) == 1 && open[token[0]/32]>>(token[0]%32)&1 != 0 != want {
				t.Errorf("%s: a name may begin with %q: %v", name, text, !want)
			}
		}
	}
}

// What a model thinks about calls is no call.
func TestNoCallBeginsInReasoning(t *testing.T) {
	bases, _ := loadFamilies(t)
	backend, _ := newBackend(t, nil)
	open := strings.Replace(chatMLWithCalls(true), `'<|im_start|>assistant\n' -}}
{%- if enable`, `'<|im_start|>assistant\n<think>\n' -}}
{%- if enable`, 1)
	opened := loadFile(t, backend, demoWithTemplate(t, open, chatMLSpecials), nil)
	const call = "<tool_call>\n"
	for _, test := range []struct {
		base        *Base
		options     string
		text        string
		constrained bool
	}{
		{bases["tags and think"], "", "<think>\nI could write " + call, false},
		{bases["tags and think"], "", "\n<think>\nI could write " + call, false},
		{bases["tags and think"], "", "<think>\nhm " + call + "</think>\n\nSo", false},
		{bases["tags and think"], "", "<think>\nhm " + call + "</think>\n\n" + call, true},
		{bases["tags and think"], "", "<thin " + call, true},
		{bases["tags and think"], "", "So <think> " + call, true},
		{bases["tags and think"], `{"enable_thinking": false}`, call, true},
		{bases["control tags"], "", "<think>\nI could write " + call, false},
		{bases["control tags"], "", "<think>\nhm " + call + "</think>" + call, true},
		{opened, "", "I could write " + call, false},
		{opened, "", "hm " + call + "</think>\n\n" + call, true},
	} {
		in := askWeather()
		in.TemplateOptions = []byte(test.options)
		prompt, err := test.base.Render(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if mask := maskAfter(t, test.base, prompt, answerTokens(test.base, test.text)); (mask != nil) != test.constrained {
			t.Errorf("options %s: after %q constrained: %v", test.options, test.text, mask != nil)
		}
	}
}

// A client's own grammar binds from the beginning, whether or not there are tools.
func TestAGrammarBesideTools(t *testing.T) {
	bases, _ := loadFamilies(t)
	for name, base := range bases {
		in := askWeather()
		in.Grammar = `root ::= "yes" | "no"`
		prompt, err := base.Render(t.Context(), in)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		mask := maskAfter(t, base, prompt, nil)
		for text, want := range map[string]bool{"y": true, "n": true, "H": false} {
			token := base.vocab.encodePlain([]byte(text))[0]
			if mask == nil || mask[token/32]>>(token%32)&1 != 0 != want {
				t.Errorf("%s: an answer may begin with %q: %v", name, text, !want)
			}
		}
	}
}

// A sampler that gets the tokens of an answer one by one and one that gets them at once allow the same.
func TestReplaysHaveTheSameGrammar(t *testing.T) {
	bases, executor := loadFamilies(t)
	for _, name := range []string{"tags and think", "control tags"} {
		base := bases[name]
		for choice, in := range map[string]models.Input{"auto": askWeather(), "required": askWeather()} {
			in.ToolChoice.Required = choice == "required"
			in.ParallelToolCalls = true
			prompt, err := base.Render(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			tokens := answerTokens(base, "<think>\nhm\n</think>\n\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>")
			sampling := batch.Sampling{Grammar: prompt.Grammar, Logprobs: true}
			for _, tr := range prompt.Triggers {
				sampling.Triggers = append(sampling.Triggers, batch.Trigger{Kind: batch.TriggerKind(tr.Kind), Value: tr.Value, Token: tr.Token})
			}
			one, err := base.NewSampler(sampling, prompt.Tokens, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i, token := range tokens {
				if err := one.Accept(token); err != nil {
					t.Fatalf("%s, %s, token %d (%q): %v", name, choice, i, base.WriteOut(tokens[i:i+1]), err)
				}
				if _, err := one.Advance(10); err != nil {
					t.Fatal(err)
				}
				c := one.(*Sampler).constraint
				again := maskAfter(t, base, prompt, tokens[:i+1])
				if (c.trigger == nil) != (again != nil) || again != nil && !slices.Equal(c.mask, again) {
					t.Errorf("%s, %s: another mask after %q", name, choice, base.WriteOut(tokens[:i+1]))
				}
			}
			one.Close()
		}
	}
	_ = executor
}

func TestSchemasBesideToolsAndReasoning(t *testing.T) {
	bases, _ := loadFamilies(t)
	schema := []byte(`{"type":"object","properties":{"x":{"enum":[1,2]}},"required":["x"],"additionalProperties":false}`)
	base := bases["tags and think"]
	call := fmt.Sprintf(tagCall, `{"city": "Paris"}`)
	end := batch.Token(1) // <|im_end|>
	for name, test := range map[string]struct {
		tools bool
		text  string
		ended bool // the answer may end after text
	}{
		"JSON":                 {false, `{"x":1}`, true},
		"JSON after reasoning": {false, "<think>\nhm\n</think>\n\n" + `{"x":2}`, true},
		"JSON beside tools":    {true, `{"x":1}`, true},
		"a call":               {true, call, true},
		"an unfinished call":   {true, call[:30], false},
	} {
		in := askWeather()
		if !test.tools {
			in.Tools = nil
		}
		in.JSONSchema = schema
		prompt, err := base.Render(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		mask := maskAfter(t, base, prompt, answerTokens(base, test.text))
		if mask == nil || mask[end/32]>>(end%32)&1 != 0 != test.ended {
			t.Errorf("%s: may end after %q: %v", name, test.text, !test.ended)
		}
	}
	in := askWeather()
	in.Tools = nil
	in.JSONSchema = schema
	prompt, err := base.Render(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	free := maskAfter(t, base, prompt, nil)
	if token := base.vocab.encodePlain([]byte("Hello")); free[token[0]/32]>>(token[0]%32)&1 != 0 {
		t.Error("a text that is neither reasoning nor JSON is allowed")
	}
}

// An answer that isn't in the form of its model comes as content as far as nothing else was sent.
func TestWhatCannotBeParsedIsContent(t *testing.T) {
	bases, _ := loadFamilies(t)
	base := bases["tags and think"]
	prompt, err := base.Render(t.Context(), askWeather())
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"<tool_call>\nnonsense":                    "|content <tool_call>\nnonsense",
		"Hi <tool_call>\n{\"name\": \"nope\"":      "|content Hi <tool_call>\n{\"name\": \"nope\"",
		"<think>\nhm":                              "|reasoning hm",
		strings.Repeat("[", 4*openBracketsMax):     "|content " + strings.Repeat("[", 4*openBracketsMax),
		strings.Repeat("{\"a\":", openBracketsMax): "|content " + strings.Repeat("{\"a\":", openBracketsMax),
	} {
		for _, n := range []int{1, 1000} {
			if got := describe(splitText(t, base, prompt.Parser, text, n, false)); got != want {
				t.Errorf("%.60q, %d bytes at a time: %.200s, want %.200s", text, n, got, want)
			}
		}
	}
}

// Text that only looks like a call for a while is sent at once when it no longer does.
func TestAnswersWithBracketsAreSentAsTheyCome(t *testing.T) {
	bases, _ := loadFamilies(t)
	more := strings.Repeat("and more ", 20)
	for name, test := range map[string]struct{ text, want string }{
		"bare JSON":      {"Use {x} here " + more, "|content Use {x} here " + more},
		"tags and think": {"<think>\nhm\n</think>\n\nHi <tool_call>\nnonsense " + more, "|reasoning hm|content Hi <tool_call>\nnonsense " + more},
	} {
		prompt, err := bases[name].Render(t.Context(), askWeather())
		if err != nil {
			t.Fatal(err)
		}
		p, err := bases[name].NewParser(prompt.Parser)
		if err != nil {
			t.Fatal(err)
		}
		var list []models.Part
		for i := range test.text {
			list = append(list, p.Push([]byte(test.text[i:i+1]))...)
		}
		if got := describe(list); got != test.want {
			t.Errorf("%s: %s before the end, want %s", name, got, test.want)
		}
		if rest := p.Finish(false); len(rest) > 0 {
			t.Errorf("%s: only the end sent %s", name, describe(rest))
		}
		p.Close()
	}
}

// A long answer is parsed now and then, but nothing is missing at its end.
func BenchmarkParser(b *testing.B) {
	backend, _ := newBackend(b, nil)
	f := toolFamilies["tags and think"]
	base := loadFile(b, backend, demoWithTemplate(b, f.template, f.specials), nil)
	prompt, err := base.Render(b.Context(), askWeather())
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{2 << 10, 16 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			tokens := 0
			for b.Loop() {
				p, err := base.NewParser(prompt.Parser)
				if err != nil {
					b.Fatal(err)
				}
				for range size / 4 {
					p.Push([]byte("word"))
					tokens++
				}
				p.Finish(false)
				p.Close()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(tokens), "us/token")
		})
	}
}
