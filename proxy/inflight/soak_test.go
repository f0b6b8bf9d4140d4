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

// TestSoak lets engines die at random moments under random requests, of which many are cancelled, and compares what the clients got
// and what the metrics say.
func TestSoak(t *testing.T) {
	const requests = 10_000
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		s := soak{bench: b, r: rand.New(rand.NewPCG(3, 4)), live: map[*client]bool{}, exits: []LastExit{signalled(syscall.SIGKILL), {}, {Kind: ExitStall}}}
		s.engine = b.attach(LastExit{})
		for s.admitted < requests || len(s.live) > 0 {
			s.round(s.admitted < requests)
		}
		if s.good+s.left != requests || s.good < requests/3 || s.left < requests/3 {
			t.Errorf("%d whole answers and %d cancelled of %d", s.good, s.left, requests)
		}
		if s.deaths < 50 || b.value("llm_requests_replayed_total", "result=resumed") < 500 {
			t.Errorf("%d deaths, %v resumed: too few to show anything", s.deaths, b.value("llm_requests_replayed_total", "result=resumed"))
		}
		b.wantValue(float64(s.good), "successful_inferences_total")
		b.wantValue(float64(s.good), "llm_request_finish_total", "reason=stop")
		b.wantValue(float64(s.left), "llm_requests_cancelled_total")
		b.wantValue(b.value("token_generation_time_seconds"), "tokens_generated_total")
		b.wantValue(float64(s.tokens), "tokens_generated_total")
		b.wantValue(0, "llm_requests_quarantined_total")
		b.wantValue(0, "llm_journal_bytes")
	})
}

// soak is the world around the request table: clients and one engine.
type soak struct {
	*bench
	r        *rand.Rand
	engine   *fakeEngine
	read     int           // submissions of the engine looked at
	work     []*Submission // at the engine
	live     map[*client]bool
	exits    []LastExit
	admitted int
	good     int
	left     int
	deaths   int
	tokens   int // accepted, as the fake engine knows
}

type client struct {
	a     Answer
	text  []byte
	leave int // after so many tokens; -1: stays
}

const soakTokens = 12

func (s *soak) round(more bool) {
	for range 4 {
		if more && len(s.live) < 100 && s.admitted < 10_000 {
			c := &client{a: s.admit(nil), leave: -1}
			if s.r.IntN(2) == 0 {
				c.leave = s.r.IntN(soakTokens)
			}
			s.admitted++
			s.live[c] = true
		}
	}
	s.step()
	for c := range s.live {
		s.serveClient(c)
	}
	if s.r.IntN(25) == 0 {
		s.deaths++
		s.lose(s.engine)
		s.work, s.read = nil, 0
		s.engine = s.attach(s.exits[s.r.IntN(len(s.exits))])
		s.Stats(s.engine, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 64}}})
	}
}

// step is one decode step of the engine: one token each, the last one with the end.
func (s *soak) step() {
	for ; s.read < len(s.engine.infers); s.read++ {
		sub := s.engine.infers[s.read]
		s.work = append(s.work, sub)
		s.accept(s.engine, sub)
	}
	var step Step
	next := s.work[:0]
	for _, sub := range s.work {
		en := s.entries[sub.ID]
		if en == nil || en.attempt != sub.Attempt {
			continue // cancelled
		}
		i := len(en.rec.Generated)
		step.Tokens = append(step.Tokens, letter(sub, i))
		s.tokens++
		if i+1 == soakTokens {
			step.Done = append(step.Done, Summary{ID: sub.ID, Attempt: sub.Attempt, Reason: FinishStop, PromptTokens: 3, OutputTokens: soakTokens})
			continue
		}
		next = append(next, sub)
	}
	s.work = next
	s.Step(s.engine, &step)
}

func (s *soak) serveClient(c *client) {
	p := c.a.Take(c.text)
	c.text = p.Text
	switch {
	case c.leave >= 0 && len(c.text) >= c.leave:
		c.a.Settle(ClientGone)
		s.left++
	case p.Done:
		if p.Err != nil || string(c.text) != "abcdefghijkl" || p.Result.OutputTokens != soakTokens {
			s.t.Errorf("answer %q, error %v", c.text, p.Err)
		}
		c.a.Settle(Delivered)
		s.good++
	default:
		return
	}
	delete(s.live, c)
}

// BenchmarkStep is the cost of one decode step of 256 streams, each of which takes its token.
func BenchmarkStep(b *testing.B) {
	const streams = 256
	quiet := slog.New(slog.DiscardHandler)
	d := New(Options{DefaultModel: "demo", Log: quiet, Metrics: metrics.New(metrics.Options{Log: quiet}), QueueCapacity: streams, QueueMaxBytes: 1 << 20, JournalMaxBytes: 1 << 40})
	f := &fakeEngine{}
	d.Attached(f, Hello{Instance: 1})
	d.Catalog(f, &Catalog{Models: []Model{{Name: "demo"}}})
	d.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: streams}}})
	var answers []Answer
	step := &Step{}
	for range streams {
		a, err := d.Admit(context.Background(), Request{Infer: &api.Request{Prompt: "x", Stream: true}})
		if err != nil {
			b.Fatal(err)
		}
		answers = append(answers, a)
		s := f.infers[len(f.infers)-1]
		d.Accepted(f, s.ID, s.Attempt, &Accepted{MaxNewTokens: 1 << 24})
		step.Tokens = append(step.Tokens, Token{ID: s.ID, Text: []byte("token "), SinceLast: time.Millisecond})
	}
	buf := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		for i := range step.Tokens {
			step.Tokens[i].TextEnd += 6
		}
		d.Step(f, step)
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
