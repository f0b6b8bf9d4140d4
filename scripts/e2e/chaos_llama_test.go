//go:build llama

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// chaosPlan is one kind of request; its undisturbed answer is what every disturbed one must equal.
type chaosPlan struct {
	name   string
	body   map[string]any
	answer string
	tokens int
}

func chaosPlans() []*chaosPlan {
	ask := func(name, prompt, version string, extra map[string]any) *chaosPlan {
		body := map[string]any{"prompt": prompt, "base_model": "demo", "adapter_version": version, "max_new_tokens": 120}
		for k, v := range extra {
			body[k] = v
		}
		return &chaosPlan{name: name, body: body}
	}
	schema := map[string]any{"type": "object", "properties": map[string]any{"city": map[string]any{"type": "string", "maxLength": 12}},
		"required": []string{"city"}, "additionalProperties": false}
	return []*chaosPlan{
		ask("greedy story", "Tell me a story.", "v1.0", nil),
		ask("greedy list", "Count to twenty.", "v1.0", nil),
		ask("terse", "What is the capital of France?", "v1.1", nil),
		ask("accents", "What is the capital of Côte d'Ivoire?", "v2.0", nil),
		ask("french story", "Tell me a story.", "v2.0", nil),
		ask("seeded", "Tell me a story about a fox.", "v1.0", map[string]any{"temperature": 0.9, "seed": 11, "top_k": 40, "top_p": 0.95}),
		ask("hot, with penalties", "What is streaming?", "base", map[string]any{"temperature": 1.2, "seed": 12, "repeat_penalty": 1.2}),
		ask("schema", "What is the capital of Italy?", "v1.0", map[string]any{"json_schema": schema}),
		ask("stop string", "Count to twenty.", "v1.0", map[string]any{"stop": []string{"twelve", "12"}}),
	}
}

// chaos is a run of many clients against an engine that keeps dying.
type chaos struct {
	s        *stack
	requests int
	kills    int
	clients  int

	asked    atomic.Int64
	inFlight atomic.Int64
	finished chan struct{}
	mu       sync.Mutex
	faults   []string
}

func (c *chaos) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) < 20 {
		c.faults = append(c.faults, fmt.Sprintf(format, args...))
	}
}

// once asks one request, streamed or not, and compares what came with the undisturbed answer.
func (c *chaos) once(p *chaosPlan, streamed bool) {
	c.inFlight.Add(1)
	defer c.inFlight.Add(-1)
	body := map[string]any{}
	for k, v := range p.body {
		body[k] = v
	}
	if streamed {
		body["stream"] = true
	}
	raw, _ := json.Marshal(body)
	if !streamed {
		a, err := c.s.infer(c.s.t.Context(), string(raw))
		if err != nil || a.Status != 200 {
			c.fault("%s: %v %+v", p.name, err, a)
			return
		}
		if a.Result != p.answer || a.Metadata.Tokens != p.tokens {
			c.fault("%s: %d tokens %q, undisturbed %d tokens %q", p.name, a.Metadata.Tokens, a.Result, p.tokens, p.answer)
		}
		return
	}
	var text strings.Builder
	var last answer
	_, err := c.s.stream(c.s.t.Context(), string(raw), func(e event) bool {
		var piece struct {
			Text string `json:"text"`
		}
		if e.name != "" {
			c.fault("%s: event %s: %s", p.name, e.name, e.data)
		}
		json.Unmarshal([]byte(e.data), &piece)
		text.WriteString(piece.Text)
		last = answer{}
		json.Unmarshal([]byte(e.data), &last)
		return true
	})
	if err != nil {
		c.fault("%s, streamed: %v", p.name, err)
		return
	}
	if text.String() != p.answer || last.Result != p.answer || last.Metadata.Tokens != p.tokens {
		c.fault("%s, streamed: %d tokens %q, last event %q, undisturbed %d tokens %q", p.name, last.Metadata.Tokens, text.String(), last.Result, p.tokens, p.answer)
	}
}

// run keeps clients busy while the killer is at work; it ends when enough was asked and enough was killed.
func (c *chaos) run(plans []*chaosPlan, kill func(*rand.Rand) bool) (killed int) {
	c.finished = make(chan struct{})
	var clients sync.WaitGroup
	for i := range c.clients {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 99))
			for {
				select {
				case <-c.finished:
					return
				default:
				}
				c.asked.Add(1)
				c.once(plans[random.IntN(len(plans))], random.IntN(2) == 0)
			}
		})
	}
	random := rand.New(rand.NewPCG(7, 7))
	deadline := time.After(10 * time.Minute)
	for killed < c.kills || int(c.asked.Load()) < c.requests {
		select {
		case <-c.s.t.Context().Done():
		case <-deadline:
			c.fault("after ten minutes only %d of %d kills and %d of %d requests", killed, c.kills, c.asked.Load(), c.requests)
			killed = c.kills
			c.requests = 0
			continue
		case <-time.After(time.Duration(50+random.IntN(500)) * time.Millisecond): // the load has no moment of its own to wait for
		}
		if killed < c.kills && c.inFlight.Load() > 0 && kill(random) {
			killed++
		}
	}
	close(c.finished)
	clients.Wait()
	return killed
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestNoRequestIsLostWhenTheEngineIsKilled kills the engine with SIGKILL at random moments under load. CHAOS_KILLS and CHAOS_REQUESTS make
// it longer.
func TestNoRequestIsLostWhenTheEngineIsKilled(t *testing.T) {
	s := newStack(t, "STEP_DELAY=10ms", "REQUEST_TIMEOUT=300s") // answers last a second or more
	plans := chaosPlans()
	for _, p := range plans {
		raw, _ := json.Marshal(p.body)
		a := s.mustInfer(string(raw))
		if a.Status != 200 {
			t.Fatalf("%s: %d %s", p.name, a.Status, a.Body)
		}
		p.answer, p.tokens = a.Result, a.Metadata.Tokens
		t.Logf("%s: %d tokens, %q", p.name, p.tokens, p.answer)
	}
	c := &chaos{s: s, requests: number("CHAOS_REQUESTS", 150), kills: number("CHAOS_KILLS", 8), clients: number("CHAOS_CLIENTS", 24)}
	before := s.scrape()
	killed := c.run(plans, func(*rand.Rand) bool {
		pid := s.servingPID()
		return pid != 0 && errors.Is(syscall.Kill(pid, syscall.SIGKILL), nil)
	})
	for _, f := range c.faults {
		t.Error(f)
	}
	p := s.waitIdle()
	checkInvariants(t, p)
	replayed := p.sum("llm_requests_replayed_total")
	t.Logf("%d requests, %d kills, %v replays, %v restarts, recovery mean %.0f ms", c.asked.Load(), killed, replayed, p.sum("llm_engine_restarts_total"),
		1000*p.sum("llm_engine_recovery_seconds_sum")/p.sum("llm_engine_recovery_seconds_count"))
	if replayed < float64(killed) {
		t.Errorf("only %v replays in %d kills", replayed, killed)
	}
	if q := p.sum("llm_requests_quarantined_total"); q != 0 {
		t.Errorf("%v innocent requests were quarantined", q)
	}
	if got, want := p.sum("successful_inferences_total")-before.sum("successful_inferences_total"), float64(c.asked.Load()); got != want {
		t.Errorf("%v successes counted, %v answers", got, want)
	}
}
