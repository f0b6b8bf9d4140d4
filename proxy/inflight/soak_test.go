package inflight

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
)

// TestSoak lets engines die at random moments under random requests, many of which are cancelled, and checks what the
// clients got and what the metrics say.
func TestSoak(t *testing.T) {
	const requests = 10_000
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		s := soakTest{tableTest: table, r: rand.New(rand.NewPCG(3, 4)), clients: map[*client]bool{}, exits: []LastExit{killedBy(syscall.SIGKILL), {}, {Kind: ExitStall}}}
		s.engine = table.attach(LastExit{})
		for s.admitted < requests || len(s.clients) > 0 {
			s.round(s.admitted < requests)
		}
		if s.completed+s.cancelled != requests || s.completed < requests/3 || s.cancelled < requests/3 {
			t.Errorf("%d whole answers and %d cancelled of %d", s.completed, s.cancelled, requests)
		}
		if s.deaths < 50 || table.metric("llm_requests_replayed_total", "result=resumed") < 500 {
			t.Errorf("%d deaths, %v resumed: too few to show anything", s.deaths, table.metric("llm_requests_replayed_total", "result=resumed"))
		}
		table.wantMetric(float64(s.completed), "successful_inferences_total")
		table.wantMetric(float64(s.completed), "llm_request_finish_total", "reason=stop")
		table.wantMetric(float64(s.cancelled), "llm_requests_cancelled_total")
		table.wantMetric(table.metric("token_generation_time_seconds"), "tokens_generated_total")
		table.wantMetric(float64(s.tokens), "tokens_generated_total")
		table.wantMetric(0, "llm_requests_quarantined_total")
		table.wantMetric(0, "llm_journal_bytes")
	})
}

// soakTest simulates clients and one engine around a request table.
type soakTest struct {
	*tableTest
	r         *rand.Rand
	engine    *fakeEngine
	seen      int           // submissions of the engine looked at
	active    []*Submission // at the engine
	clients   map[*client]bool
	exits     []LastExit
	admitted  int
	completed int
	cancelled int
	deaths    int
	tokens    int // that the table accepted, as the fake engine counts them
}

type client struct {
	a          Answer
	text       []byte
	leaveAfter int // tokens; -1: stays
}

const soakTokens = 12

func (s *soakTest) round(more bool) {
	for range 4 {
		if more && len(s.clients) < 100 && s.admitted < 10_000 {
			c := &client{a: s.admit(nil), leaveAfter: -1}
			if s.r.IntN(2) == 0 {
				c.leaveAfter = s.r.IntN(soakTokens)
			}
			s.admitted++
			s.clients[c] = true
		}
	}
	s.step()
	for c := range s.clients {
		s.serveClient(c)
	}
	if s.r.IntN(25) == 0 {
		s.deaths++
		s.lose(s.engine)
		s.active, s.seen = nil, 0
		s.engine = s.attach(s.exits[s.r.IntN(len(s.exits))])
		s.Stats(s.engine, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 64}}})
	}
}

// step is one decode step of the engine: each request gets one token, and with its last one the end.
func (s *soakTest) step() {
	for ; s.seen < len(s.engine.infers); s.seen++ {
		sub := s.engine.infers[s.seen]
		s.active = append(s.active, sub)
		s.sendAccepted(s.engine, sub)
	}
	var step Step
	next := s.active[:0]
	for _, sub := range s.active {
		en := s.entries[sub.ID]
		if en == nil || en.attempt != sub.Attempt {
			continue // cancelled
		}
		i := len(en.rec.Generated)
		step.Tokens = append(step.Tokens, letterToken(sub, i))
		s.tokens++
		if i+1 == soakTokens {
			step.Done = append(step.Done, Summary{ID: sub.ID, Attempt: sub.Attempt, Reason: FinishStop, PromptTokens: 3, OutputTokens: soakTokens})
			continue
		}
		next = append(next, sub)
	}
	s.active = next
	s.Step(s.engine, &step)
}

func (s *soakTest) serveClient(c *client) {
	p := c.a.Take(c.text)
	c.text = p.Text
	switch {
	case c.leaveAfter >= 0 && len(c.text) >= c.leaveAfter:
		c.a.Settle(ClientGone)
		s.cancelled++
	case p.Done:
		if p.Err != nil || string(c.text) != "abcdefghijkl" || p.Result.OutputTokens != soakTokens {
			s.t.Errorf("answer %q, error %v", c.text, p.Err)
		}
		c.a.Settle(Delivered)
		s.completed++
	default:
		return
	}
	delete(s.clients, c)
}

// BenchmarkStep is the cost of one decode step of 256 streams, each of which takes its token.
func BenchmarkStep(b *testing.B) {
	const streams = 256
	quiet := slog.New(slog.DiscardHandler)
	table := New(Options{DefaultModel: "demo", Log: quiet, Metrics: metrics.New(metrics.Options{Log: quiet}), QueueCapacity: streams, QueueMaxBytes: 1 << 20, JournalMaxBytes: 1 << 40})
	f := &fakeEngine{}
	table.Attached(f, Hello{Instance: 1})
	table.Catalog(f, &Catalog{Models: []Model{{Name: "demo"}}})
	table.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: streams}}})
	var answers []Answer
	step := &Step{}
	for range streams {
		a, err := table.Admit(context.Background(), Request{Infer: &api.Request{Prompt: "x", Stream: true}})
		if err != nil {
			b.Fatal(err)
		}
		answers = append(answers, a)
		s := f.infers[len(f.infers)-1]
		table.Accepted(f, s.ID, s.Attempt, &Accepted{MaxNewTokens: 1 << 24})
		step.Tokens = append(step.Tokens, Token{ID: s.ID, Text: []byte("token "), SinceLast: time.Millisecond})
	}
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		for i := range step.Tokens {
			step.Tokens[i].TextEnd += 6
		}
		table.Step(f, step)
		for i := range step.Tokens {
			step.Tokens[i].Index++
		}
		b.StopTimer()
		for _, a := range answers {
			a.Take(buf)
		}
		b.StartTimer()
	}
	if f.hangup != "" {
		b.Fatal(f.hangup)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/streams, "ns/token")
}
