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

	"tandem/scripts/launch"
)

// realModelTimeout is for an answer of a model of real size, on a busy machine.
const realModelTimeout = 10 * time.Minute

// startSmolLM2Server serves SmolLM2, a real chat model, from the file that SMOLLM2 names; make test sets it.
func startSmolLM2Server(t *testing.T, settings ...string) *testServer {
	t.Helper()
	file := os.Getenv("SMOLLM2")
	if file == "" {
		skipUnlessCI(t, "SMOLLM2 names no model; scripts/models/fetch.sh smollm2 prints the path of one")
	}
	models := t.TempDir()
	if err := linkOrCopy(file, filepath.Join(models, "smollm2", "model.gguf")); err != nil {
		t.Fatal(err)
	}
	s := startDebugServer(t, append([]string{"MODELS_DIR=" + models, "DEFAULT_MODEL=smollm2", "CONTEXT=4096"}, settings...)...)
	s.client.Timeout = realModelTimeout
	return s
}

// linkOrCopy links a file to another path, or copies it where that can't be done.
func linkOrCopy(from, to string) error {
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

func smolLM2Request(name, prompt string, tokens int, extra map[string]any) *goldenRequest {
	g := newGoldenRequest(name, prompt, "base", extra)
	g.body["base_model"], g.body["max_new_tokens"] = "smollm2", tokens
	return g
}

// sampledWithoutCutoff samples with top-k and the like off: at their edge a candidate may come or go, which the margin
// doesn't show.
func sampledWithoutCutoff(seed int) map[string]any {
	return map[string]any{"temperature": 1, "seed": seed, "top_k": 0, "top_p": 1, "min_p": 0}
}

var personSchema = map[string]any{"type": "object", "required": []string{"name", "age"}, "additionalProperties": false,
	"properties": map[string]any{"name": map[string]any{"type": "string"}, "age": map[string]any{"type": "integer"}}}

// smolLM2Requests are requests of all kinds, with answers short enough for a test.
func smolLM2Requests() []*goldenRequest {
	return []*goldenRequest{
		smolLM2Request("greedy", "Name the capital of France.", 32, nil),
		smolLM2Request("greedy story", "Tell me a story about a fox.", 40, nil),
		smolLM2Request("unicode", "Repeat after me: café 🦊🐇🌲", 48, nil),
		smolLM2Request("seeded", "Tell me a story about a hare.", 32, sampledWithoutCutoff(7)),
		smolLM2Request("schema", "John is a teacher and 42 years old. Give his name and age as JSON.", 48, map[string]any{"json_schema": personSchema}),
	}
}

// TestSmolLM2Answers checks what a user of a real model sees. One server gets all requests, in the end all at once.
func TestSmolLM2Answers(t *testing.T) {
	s := startSmolLM2Server(t)
	c := newChaosTest(s)
	c.requests = smolLM2Requests()
	for _, g := range c.requests {
		s.recordGolden(g)
	}
	c.checkAnswersMakeSense()
	s.checkStopStrings(c.requests[0])
	s.checkSeeds()
	s.checkCancel()
	var clients sync.WaitGroup
	for i := range c.requests {
		clients.Go(func() { c.sendOne(i, true) })
		clients.Go(func() { c.sendOne(i, false) })
	}
	clients.Wait()
	explained, unexplained := c.countChangedAnswers()
	t.Logf("of %d answers, asked at once, %d go on differently where the margin is below the bound, %d elsewhere", 2*len(c.requests), explained, unexplained)
	scraped := s.waitIdle()
	checkInvariants(t, scraped)
	if failed := scraped.sum("failed_inferences_total") - scraped.sum("failed_inferences_total", "error_type", "cancelled"); failed != 0 || scraped.sum("llm_engine_restarts_total") != 0 {
		t.Errorf("%v failures, %v restarts", failed, scraped.sum("llm_engine_restarts_total"))
	}
}

// checkAnswersMakeSense checks the contents of the answers.
func (c *chaosTest) checkAnswersMakeSense() {
	t := c.server.t
	t.Helper()
	for i, want := range map[int]string{0: "Paris", 1: "fox", 2: "🦊🐇🌲"} {
		if g := c.requests[i]; !strings.Contains(g.answer, want) {
			t.Errorf("%s: no %q in %q", g.name, want, g.answer)
		}
	}
	for _, g := range c.requests {
		if !utf8.ValidString(g.answer) || strings.Contains(g.answer, "<|im_") {
			t.Errorf("%s: %q", g.name, g.answer)
		}
	}
	var person struct {
		Name string
		Age  int
	}
	answer := c.requests[4].answer
	d := json.NewDecoder(strings.NewReader(answer))
	d.DisallowUnknownFields()
	if err := d.Decode(&person); err != nil || d.More() || person.Name == "" {
		t.Errorf("schema: %q: %+v, %v", answer, person, err)
	}
}

// checkStopStrings asks with stop strings made of an answer: it ends before the first of them, whole or streamed.
func (s *testServer) checkStopStrings(g *goldenRequest) {
	s.t.Helper()
	stop := g.answer[len(g.answer)/2 : len(g.answer)/2+12]
	want, _, _ := strings.Cut(g.answer, stop)
	stopped := smolLM2Request("stop", g.body["prompt"].(string), 40, map[string]any{"stop": []string{stop, "never to be seen"}})
	a := s.ask(stopped.body)
	text, _, err := s.streamLong(stopped, func() {})
	if err != nil || a.Metadata.FinishReason != "stop" || a.Result != text {
		s.t.Errorf("stop at %q: %q (%s), streamed %q, %v", stop, a.Result, a.Metadata.FinishReason, text, err)
	}
	if a.Result != want {
		s.t.Errorf("stop at %q: %q, want %q", stop, a.Result, want)
	}
}

// checkSeeds sends the same request with three seeds.
func (s *testServer) checkSeeds() {
	s.t.Helper()
	answers := make(map[string]bool)
	for seed := range 3 {
		a := s.ask(smolLM2Request("seeds", "Invent a name for a cat.", 24, sampledWithoutCutoff(seed+100)).body)
		if a.Status != 200 || a.Metadata.Seed != uint64(seed+100) {
			s.t.Errorf("seed %d: %d %s", seed+100, a.Status, a.Body)
		}
		answers[a.Result] = true
	}
	if len(answers) < 2 {
		s.t.Errorf("three seeds give one answer: %v", answers)
	}
}

// checkCancel disconnects in the middle of a long answer, after which nothing is computed for it.
func (s *testServer) checkCancel() {
	s.t.Helper()
	body, err := json.Marshal(smolLM2Request("cancelled", "Write a long story about the sea.", 2000, map[string]any{"stream": true, "temperature": 1}).body)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, disconnect := context.WithCancel(s.t.Context())
	defer disconnect()
	events := 0
	_, err = s.stream(ctx, string(body), func(event) bool {
		if events++; events == 5 {
			disconnect()
		}
		return true
	})
	if !errors.Is(err, context.Canceled) {
		s.t.Errorf("the answer ended before the client left: %v", err)
	}
	if scraped := s.waitIdle(); scraped.sum("llm_requests_cancelled_total") != 1 || scraped.sum("tokens_generated_total") > 1500 {
		s.t.Errorf("%v requests were cancelled, %v tokens generated", scraped.sum("llm_requests_cancelled_total"), scraped.sum("tokens_generated_total"))
	}
}

// TestNoAnswerOfSmolLM2IsLostWhenTheEngineIsKilled kills under load: every request is answered, once, and its stream is
// its answer.
func TestNoAnswerOfSmolLM2IsLostWhenTheEngineIsKilled(t *testing.T) {
	s := startSmolLM2Server(t, "REQUEST_TIMEOUT=600s")
	kills := max(2, envNumber("CHAOS_KILLS", 0)/5)
	c := newChaosTest(s)
	c.minRequests, c.minKills, c.clientCount = 6*kills, kills, 6
	c.requests = smolLM2Requests()
	for _, g := range c.requests {
		s.recordGolden(g)
	}
	before := s.scrape()
	start := time.Now()
	killed, _ := c.runWithKills(time.Duration(120+20*kills) * time.Second)
	explained, unexplained := c.countChangedAnswers()
	scraped := s.waitIdle()
	v := c.coverage(c.loggedReplays())
	t.Logf("%d requests in %v, %d kills, %d replays in mid-answer: %d answers go on differently where the margin is below the bound, %d elsewhere",
		c.requestCount.Load(), time.Since(start).Round(time.Second), killed, v.midAnswer, explained, unexplained)
	if v.midAnswer < killed {
		t.Errorf("only %d replays in mid-answer", v.midAnswer)
	}
	checkInvariants(t, scraped)
	c.checkCounters(scraped, before.sum("successful_inferences_total"))
}

// countChangedAnswers fails the test for requests that were lost or failed, and counts the answers that differ from the
// undisturbed ones: explained by a close call, or not. The latter are no failure here: rounding moves the logits of
// 4-bit weights by more than the margin bound when batches have another shape (docs/restarts.md).
func (c *chaosTest) countChangedAnswers() (explained, unexplained int) {
	c.server.t.Helper()
	c.reportFailures()
	before := len(c.failures)
	explained = c.checkChangedAnswers()
	for _, f := range c.failures[before:] {
		c.server.t.Log(f)
	}
	return explained, len(c.failures) - before
}

// TestRunServesAFetchedModel runs the README's command for a real model and asks the README's question.
func TestRunServesAFetchedModel(t *testing.T) {
	if os.Getenv("SMOLLM2") == "" {
		skipUnlessCI(t, "SMOLLM2 names no model: it wasn't fetched")
	}
	p := startRunScript(t, fmt.Sprintf("PORT=%d", launch.FreePort(t)), "MODEL=smollm2", "TANDEM_CACHE="+os.Getenv("TANDEM_CACHE"), "XDG_CACHE_HOME="+os.Getenv("XDG_CACHE_HOME"))
	checkPrintedCommands(t, p)
	line := printedCommands(p)[0]
	if _, body := runCurl(t, line); !strings.Contains(line, `"base_model":"smollm2"`) || !strings.Contains(body, "Paris") {
		t.Errorf("%s\n%s", line, body)
	}
}
