package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
)

// chaosPlan is one kind of request; its undisturbed answer is what every disturbed one must equal.
type chaosPlan struct {
	name   string
	holds  string // why much of its text is held back: character, stop
	body   map[string]any
	id     string // X-Request-Id of the undisturbed one
	answer string
	tokens int
}

// mockStory is long enough for an answer of a second; the mock echoes it.
const mockStory = `Once upon a time, there was a little fox named Felix. Felix lived in a green forest. One day, Felix found a golden key under an old tree.`

const animals = "🦊🐇🌲🗝🐢🦉🐝🦔🍄🌻🐿🦌🐌🦋"

func newPlan(name, prompt, version string, extra map[string]any) *chaosPlan {
	body := map[string]any{"prompt": prompt, "base_model": "demo", "adapter_version": version, "max_new_tokens": 120}
	maps.Copy(body, extra)
	return &chaosPlan{name: name, body: body}
}

// realPlans suit the demo model.
func realPlans() []*chaosPlan {
	schema := map[string]any{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string", "maxLength": 12}},
		"required": []string{"city"}, "additionalProperties": false}
	// Not a constant: tokens that a grammar forces come sixteen together, which is whole characters.
	someAnimals := map[string]any{"type": "string", "pattern": "^[" + animals + "]{14}$"}
	emoji := newPlan("characters of four tokens", "Tell me a story.", "v1.0", map[string]any{"json_schema": someAnimals})
	emoji.holds = "character"
	return []*chaosPlan{
		newPlan("greedy story", "Tell me a story.", "v1.0", nil),
		newPlan("greedy list", "Count to twenty.", "v1.0", nil),
		newPlan("terse", "What is the capital of France?", "v1.1", nil),
		newPlan("accents", "What is the capital of Côte d'Ivoire?", "v2.0", nil),
		newPlan("french story", "Tell me a story.", "v2.0", nil),
		newPlan("seeded", "Tell me a story about a fox.", "v1.0", map[string]any{"temperature": 0.9, "seed": 11, "top_k": 40, "top_p": 0.95}),
		newPlan("hot, with penalties", "What is streaming?", "base", map[string]any{"temperature": 1.2, "seed": 12, "repeat_penalty": 1.2}),
		newPlan("schema", "What is the capital of Italy?", "v1.0", map[string]any{"json_schema": schema}),
		emoji,
	}
}

// mockPlans are what can be different without a model.
func mockPlans() []*chaosPlan {
	emoji := newPlan("characters of four tokens", animals, "v1.0", nil)
	emoji.holds = "character"
	return []*chaosPlan{
		newPlan("story", mockStory, "v1.0", nil),
		newPlan("story of another version", mockStory, "v2.0", nil),
		newPlan("length", mockStory, "v1.1", map[string]any{"max_new_tokens": 30}),
		emoji,
	}
}

// learn asks every plan once, undisturbed, and adds plans with stop strings that are made of the first answer.
func (s *stack) learn() []*chaosPlan {
	s.t.Helper()
	plans := mockPlans()
	if realModel {
		plans = realPlans()
	}
	for _, p := range plans {
		s.learnOne(p)
	}
	story := plans[0]
	for _, kind := range []struct {
		name  string
		stops []string // the last one ends the answer
	}{
		{"stop that doesn't come", []string{story.answer[20:110] + "§"}},
		{"stop across tokens", []string{story.answer[40:100] + "§", story.answer[90:115]}},
	} {
		p := newPlan(kind.name, story.body["prompt"].(string), "v1.0", map[string]any{"stop": kind.stops})
		p.holds = "stop"
		s.learnOne(p)
		if want, _, _ := strings.Cut(story.answer, kind.stops[len(kind.stops)-1]); p.answer != want {
			s.t.Fatalf("%s: %q, without stops %q", kind.name, p.answer, story.answer)
		}
		plans = append(plans, p)
	}
	return plans
}

var learnt atomic.Int64

func (s *stack) learnOne(p *chaosPlan) {
	s.t.Helper()
	raw, err := json.Marshal(p.body)
	if err != nil {
		s.t.Fatal(err)
	}
	p.id = fmt.Sprintf("undisturbed-%d", learnt.Add(1))
	a := s.mustInfer(string(raw), "X-Request-Id", p.id)
	if a.Status != 200 {
		s.t.Fatalf("%s: %d %s", p.name, a.Status, a.Body)
	}
	p.answer, p.tokens = a.Result, a.Metadata.Tokens
	s.t.Logf("%s: %d tokens, %q", p.name, p.tokens, p.answer)
}
