package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
)

// goldenRequest is a request with the answer that an undisturbed server gave to it. Every later answer must equal that.
type goldenRequest struct {
	name       string
	holdsBack  string // why the proxy holds much of its text back: character, stop
	body       map[string]any
	recordedID string // X-Request-Id of the undisturbed answer
	answer     string
	tokens     int
}

// longPrompt is long enough for an answer of a second; the mock echoes it.
const longPrompt = `Once upon a time, there was a little fox named Felix. Felix lived in a green forest. One day, Felix found a golden key under an old tree.`

const emojiText = "🦊🐇🌲🗝🐢🦉🐝🦔🍄🌻🐿🦌🐌🦋"

func newGoldenRequest(name, prompt, version string, extra map[string]any) *goldenRequest {
	body := map[string]any{"prompt": prompt, "base_model": "demo", "adapter_version": version, "max_new_tokens": 120}
	maps.Copy(body, extra)
	return &goldenRequest{name: name, body: body}
}

// demoModelRequests are for the demo model.
func demoModelRequests() []*goldenRequest {
	schema := map[string]any{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string", "maxLength": 12}},
		"required": []string{"city"}, "additionalProperties": false}
	// Not a constant: tokens that a grammar forces come sixteen together, which is whole characters.
	someEmojis := map[string]any{"type": "string", "pattern": "^[" + emojiText + "]{14}$"}
	emoji := newGoldenRequest("characters of four tokens", "Tell me a story.", "v1.0", map[string]any{"json_schema": someEmojis})
	emoji.holdsBack = "character"
	return []*goldenRequest{
		newGoldenRequest("greedy story", "Tell me a story.", "v1.0", nil),
		newGoldenRequest("greedy list", "Count to twenty.", "v1.0", nil),
		newGoldenRequest("terse", "What is the capital of France?", "v1.1", nil),
		newGoldenRequest("accents", "What is the capital of Côte d'Ivoire?", "v2.0", nil),
		newGoldenRequest("french story", "Tell me a story.", "v2.0", nil),
		newGoldenRequest("seeded", "Tell me a story about a fox.", "v1.0", map[string]any{"temperature": 0.9, "seed": 11, "top_k": 40, "top_p": 0.95}),
		newGoldenRequest("hot, with penalties", "What is streaming?", "base", map[string]any{"temperature": 1.2, "seed": 12, "repeat_penalty": 1.2}),
		newGoldenRequest("schema", "What is the capital of Italy?", "v1.0", map[string]any{"json_schema": schema}),
		emoji,
	}
}

// mockRequests are for the mock engine, which echoes the prompt.
func mockRequests() []*goldenRequest {
	emoji := newGoldenRequest("characters of four tokens", emojiText, "v1.0", nil)
	emoji.holdsBack = "character"
	return []*goldenRequest{
		newGoldenRequest("story", longPrompt, "v1.0", nil),
		newGoldenRequest("story of another version", longPrompt, "v2.0", nil),
		newGoldenRequest("length", longPrompt, "v1.1", map[string]any{"max_new_tokens": 30}),
		emoji,
	}
}

// recordGoldenRequests sends every request once, undisturbed, and adds requests with stop strings from the first
// answer.
func (s *testServer) recordGoldenRequests() []*goldenRequest {
	s.t.Helper()
	requests := mockRequests()
	if withLlama {
		requests = demoModelRequests()
	}
	for _, g := range requests {
		s.recordGolden(g)
	}
	longAnswer := requests[0]
	for _, kind := range []struct {
		name  string
		stops []string // the last one ends the answer
	}{
		{"stop that doesn't come", []string{longAnswer.answer[20:110] + "§"}},
		{"stop across tokens", []string{longAnswer.answer[40:100] + "§", longAnswer.answer[90:115]}},
	} {
		g := newGoldenRequest(kind.name, longAnswer.body["prompt"].(string), "v1.0", map[string]any{"stop": kind.stops})
		g.holdsBack = "stop"
		s.recordGolden(g)
		if want, _, _ := strings.Cut(longAnswer.answer, kind.stops[len(kind.stops)-1]); g.answer != want {
			s.t.Fatalf("%s: %q, without stops %q", kind.name, g.answer, longAnswer.answer)
		}
		requests = append(requests, g)
	}
	return requests
}

var goldenCount atomic.Int64

func (s *testServer) recordGolden(g *goldenRequest) {
	s.t.Helper()
	raw, err := json.Marshal(g.body)
	if err != nil {
		s.t.Fatal(err)
	}
	g.recordedID = fmt.Sprintf("undisturbed-%d", goldenCount.Add(1))
	a := s.mustInfer(string(raw), "X-Request-Id", g.recordedID)
	if a.Status != 200 {
		s.t.Fatalf("%s: %d %s", g.name, a.Status, a.Body)
	}
	g.answer, g.tokens = a.Result, a.Metadata.Tokens
	s.t.Logf("%s: %d tokens, %q", g.name, g.tokens, g.answer)
}
