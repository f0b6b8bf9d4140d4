//go:build llama

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// smolStack serves SmolLM2, a real chat model, from the file that SMOLLM2 names; make test sets it.
func smolStack(t *testing.T, settings ...string) *stack {
	t.Helper()
	file := os.Getenv("SMOLLM2")
	if file == "" {
		skipUnlessCI(t, "SMOLLM2 names no model; scripts/models/fetch.sh smollm2 prints the path of one")
	}
	models := t.TempDir()
	if err := place(file, filepath.Join(models, "smollm2", "model.gguf")); err != nil {
		t.Fatal(err)
	}
	return newTalkative(t, append([]string{"MODELS_DIR=" + models, "DEFAULT_MODEL=smollm2", "CONTEXT=4096"}, settings...)...)
}

// place links a file to another path, or copies it where that can't be done.
func place(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.Link(from, to); err == nil {
		return nil
	}
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Close())
}

func smolPlan(name, prompt string, tokens int, extra map[string]any) *chaosPlan {
	p := newPlan(name, prompt, "base", extra)
	p.body["base_model"], p.body["max_new_tokens"] = "smollm2", tokens
	return p
}

// sampled draws without a cut of the candidates: at its edge one may come or go, of which the margin says nothing.
func sampled(seed int) map[string]any {
	return map[string]any{"temperature": 1, "seed": seed, "top_k": 0, "top_p": 1, "min_p": 0}
}

var personSchema = map[string]any{"type": "object", "required": []string{"name", "age"}, "additionalProperties": false,
	"properties": map[string]any{"name": map[string]any{"type": "string"}, "age": map[string]any{"type": "integer"}}}

// smolPlans are answers of all kinds, short enough for a test.
func smolPlans() []*chaosPlan {
	return []*chaosPlan{
		smolPlan("greedy", "Name the capital of France.", 32, nil),
		smolPlan("greedy story", "Tell me a story about a fox.", 40, nil),
		smolPlan("unicode", "Repeat after me: café 🦊🐇🌲", 48, nil),
		smolPlan("seeded", "Tell me a story about a hare.", 32, sampled(7)),
		smolPlan("schema", "John is a teacher and 42 years old. Give his name and age as JSON.", 48, map[string]any{"json_schema": personSchema}),
	}
}

// TestSmolLM2Answers is about what a user of a real model sees; one server has all of it asked, the last part at once.
func TestSmolLM2Answers(t *testing.T) {
	s := smolStack(t)
	c := &chaos{s: s, ripe: make(chan struct{}, 1), streams: make(map[string]stream), plans: smolPlans()}
	for _, p := range c.plans {
		s.learnOne(p)
	}
	c.smolTruths()
	s.smolStops(c.plans[0])
	s.smolSeeds()
	s.smolCancels()
	var clients sync.WaitGroup
	for i := range c.plans {
		clients.Go(func() { c.once(i, true) })
		clients.Go(func() { c.once(i, false) })
	}
	clients.Wait()
	within, elsewhere := c.judgeSmol()
	t.Logf("of %d answers, asked at once, %d go on differently where the margin is below the bound, %d elsewhere", 2*len(c.plans), within, elsewhere)
	p := s.waitIdle()
	checkInvariants(t, p)
	if failed := p.sum("failed_inferences_total") - p.sum("failed_inferences_total", "error_type", "cancelled"); failed != 0 || p.sum("llm_engine_restarts_total") != 0 {
		t.Errorf("%v failures, %v restarts", failed, p.sum("llm_engine_restarts_total"))
	}
}

// smolTruths checks what the answers say.
func (c *chaos) smolTruths() {
	t := c.s.t
	t.Helper()
	for plan, want := range map[int]string{0: "Paris", 1: "fox", 2: "🦊🐇🌲"} {
		if p := c.plans[plan]; !strings.Contains(p.answer, want) {
			t.Errorf("%s: no %q in %q", p.name, want, p.answer)
		}
	}
	for _, p := range c.plans {
		if !utf8.ValidString(p.answer) || strings.Contains(p.answer, "<|im_") {
			t.Errorf("%s: %q", p.name, p.answer)
		}
	}
	var person struct {
		Name string
		Age  int
	}
	answer := c.plans[4].answer
	d := json.NewDecoder(strings.NewReader(answer))
	d.DisallowUnknownFields()
	if err := d.Decode(&person); err != nil || d.More() || person.Name == "" {
		t.Errorf("schema: %q: %+v, %v", answer, person, err)
	}
}

// smolStops asks with stop strings made of an answer: it ends before the first of them, whole or streamed.
func (s *stack) smolStops(p *chaosPlan) {
	s.t.Helper()
	stop := p.answer[len(p.answer)/2 : len(p.answer)/2+12]
	want, _, _ := strings.Cut(p.answer, stop)
	stopped := smolPlan("stop", p.body["prompt"].(string), 40, map[string]any{"stop": []string{stop, "never to be seen"}})
	a := s.ask(stopped.body)
	text, _, err := s.longStream(stopped, func() {})
	if err != nil || a.Metadata.FinishReason != "stop" || a.Result != text {
		s.t.Errorf("stop at %q: %q (%s), streamed %q, %v", stop, a.Result, a.Metadata.FinishReason, text, err)
	}
	if a.Result != want {
		s.t.Errorf("stop at %q: %q, want %q", stop, a.Result, want)
	}
}

// smolSeeds asks three times for the same with other seeds.
func (s *stack) smolSeeds() {
	s.t.Helper()
	answers := make(map[string]bool)
	for seed := range 3 {
		a := s.ask(smolPlan("seeds", "Invent a name for a cat.", 24, sampled(seed+100)).body)
		if a.Status != 200 || a.Metadata.Seed != uint64(seed+100) {
			s.t.Errorf("seed %d: %d %s", seed+100, a.Status, a.Body)
		}
		answers[a.Result] = true
	}
	if len(answers) < 2 {
		s.t.Errorf("three seeds give one answer: %v", answers)
	}
}

// smolCancels leaves in the middle of a long answer, after which nothing computes for it.
func (s *stack) smolCancels() {
	s.t.Helper()
	body, err := json.Marshal(smolPlan("cancelled", "Write a long story about the sea.", 2000, map[string]any{"stream": true, "temperature": 1}).body)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, leave := context.WithCancel(s.t.Context())
	defer leave()
	events := 0
	_, err = s.stream(ctx, string(body), func(event) bool {
		if events++; events == 5 {
			leave()
		}
		return true
	})
	if !errors.Is(err, context.Canceled) {
		s.t.Errorf("the answer ended before the client left: %v", err)
	}
	if p := s.waitIdle(); p.sum("llm_requests_cancelled_total") != 1 || p.sum("tokens_generated_total") > 1500 {
		s.t.Errorf("%v requests were cancelled, %v tokens generated", p.sum("llm_requests_cancelled_total"), p.sum("tokens_generated_total"))
	}
}

// TestNoAnswerOfSmolLM2IsLostWhenTheEngineIsKilled kills under load: every request is answered, once, and its stream is its answer.
func TestNoAnswerOfSmolLM2IsLostWhenTheEngineIsKilled(t *testing.T) {
	s := smolStack(t, "REQUEST_TIMEOUT=600s")
	s.clients.Timeout = 10 * time.Minute
	kills := max(2, number("CHAOS_KILLS", 0)/5)
	c := &chaos{s: s, ripe: make(chan struct{}, 1), streams: make(map[string]stream), requests: 6 * kills, kills: kills, clients: 6}
	c.plans = smolPlans()
	for _, p := range c.plans {
		s.learnOne(p)
	}
	before := s.scrape()
	began := time.Now()
	killed, _ := c.run(time.Duration(120+20*kills) * time.Second)
	within, elsewhere := c.judgeSmol()
	p := s.waitIdle()
	v := c.coverage(c.replays())
	t.Logf("%d requests in %v, %d kills, %d replays in mid-answer: %d answers go on differently where the margin is below the bound, %d elsewhere",
		c.asked.Load(), time.Since(began).Round(time.Second), killed, v.middle, within, elsewhere)
	if v.middle < killed {
		t.Errorf("only %d replays in mid-answer", v.middle)
	}
	checkInvariants(t, p)
	c.checkCounters(p, before.sum("successful_inferences_total"))
}

// judgeSmol fails for what was lost or failed, and counts the answers that go on differently. Those at a margin above the bound are no
// failure here: rounding moves the logits of 4-bit weights by more than that when batches have another shape (docs/restarts.md).
func (c *chaos) judgeSmol() (within, elsewhere int) {
	c.s.t.Helper()
	for _, f := range c.faults {
		c.s.t.Error(f)
	}
	before := len(c.faults)
	within = c.judge()
	for _, f := range c.faults[before:] {
		c.s.t.Log(f)
	}
	return within, len(c.faults) - before
}

// TestRunServesAFetchedModel is the README's command for a real model, and its question.
func TestRunServesAFetchedModel(t *testing.T) {
	if os.Getenv("SMOLLM2") == "" {
		skipUnlessCI(t, "SMOLLM2 names no model: it wasn't fetched")
	}
	p := launch(t, fmt.Sprintf("PORT=%d", freePort(t)), "MODEL=smollm2", "TANDEM_CACHE="+os.Getenv("TANDEM_CACHE"), "XDG_CACHE_HOME="+os.Getenv("XDG_CACHE_HOME"))
	pasteAll(t, p)
	line := printed(p)[0]
	if _, body := paste(t, line); !strings.Contains(line, `"base_model":"smollm2"`) || !strings.Contains(body, "Paris") {
		t.Errorf("%s\n%s", line, body)
	}
}
