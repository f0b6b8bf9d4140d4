package inflight

import (
	"context"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
)

// oversize is the longest prompt that a fakeEngine takes.
const oversize = 1 << 20

// fakeEngine records what the request table asks of it.
type fakeEngine struct {
	infers  []*Submission
	cancels []uint64
	hangup  string
	drained bool
	move    bool
}

func (f *fakeEngine) Infer(s *Submission) bool {
	if len(s.Prompt) > oversize {
		return false
	}
	f.infers = append(f.infers, s)
	return true
}
func (f *fakeEngine) Cancel(id uint64, _ uint32)                 { f.cancels = append(f.cancels, id) }
func (f *fakeEngine) Drained()                                   { f.drained = true }
func (f *fakeEngine) Move()                                      { f.move = true }
func (f *fakeEngine) Hangup(reason string)                       { f.hangup = reason }
func (f *fakeEngine) Metrics(context.Context) ([]byte, error)    { return []byte("up 1\n"), nil }
func (f *fakeEngine) Load(context.Context, string, string) error { return nil }

// last is the newest submission.
func (f *fakeEngine) last(t *testing.T) *Submission {
	t.Helper()
	if len(f.infers) == 0 {
		t.Fatal("nothing was sent to the engine")
	}
	return f.infers[len(f.infers)-1]
}

// bench is a request table in a bubble of fake time.
type bench struct {
	*Table
	t        *testing.T
	instance uint64
}

// inBubble runs a test with a request table whose time is synthetic.
func inBubble(t *testing.T, o Options, test func(t *testing.T, b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); b.Run(ctx) }()
		defer func() { // for tests that give up half-way
			cancel()
			b.mu.Lock()
			b.unsettled = 0
			b.mu.Unlock()
			<-ended
		}()
		test(t, b)
		cancel()
		<-ended
		if len(b.entries) != 0 || b.journal.Bytes() != 0 || b.queue.Len() != 0 {
			t.Errorf("left over: %d entries, %d journal bytes, %d queued", len(b.entries), b.journal.Bytes(), b.queue.Len())
		}
		for _, e := range b.engines {
			if e.count != 0 || e.tokenless != 0 || e.replayBytes != 0 || e.suspect != nil {
				t.Errorf("accounts of an engine: %d there, %d without token, %d replay bytes", e.count, e.tokenless, e.replayBytes)
			}
			for name, base := range e.bases {
				if base.outstanding != 0 || base.replays != 0 {
					t.Errorf("accounts of base %s: %+v", name, base)
				}
			}
		}
	})
}

func newBench(t *testing.T, o Options) *bench {
	o.Log = slog.New(slog.DiscardHandler)
	o.Metrics = metrics.New(metrics.Options{Log: o.Log})
	if o.DefaultModel == "" {
		o.DefaultModel = "demo"
	}
	orElse(&o.QueueCapacity, 256)
	orElse(&o.QueueMaxBytes, 64<<20)
	orElse(&o.JournalMaxBytes, 256<<20)
	orElse(&o.EngineWait, 10*time.Second)
	orElse(&o.ModelLoadWait, 10*time.Minute)
	orElse(&o.ReplayWait, 10*time.Minute)
	orElse(&o.QuarantineTTL, 10*time.Minute)
	return &bench{Table: New(o), t: t}
}

func orElse[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

func demoCatalog() *Catalog {
	return &Catalog{CacheSize: 5, Models: []Model{
		{Name: "demo", DefaultVersion: "v1.0", Versions: []Version{{Name: "base"}, {Name: "v1.0"}, {Name: "v2.0"}}, ContextTokens: 512},
		{Name: "big", Versions: []Version{{Name: "base"}}},
	}}
}

// attach brings up an engine that says how the one before it died.
func (b *bench) attach(exit LastExit) *fakeEngine {
	b.instance++
	f := &fakeEngine{}
	b.Attached(f, Hello{Instance: b.instance, Device: "cpu", LastExit: exit})
	b.Catalog(f, demoCatalog())
	return f
}

func (b *bench) lose(f *fakeEngine) { b.Lost(f, Loss{Reason: "eof"}) }

func infer(change func(*Request)) Request {
	r := Request{ID: "r1", Timeout: 5 * time.Minute, Infer: &api.Request{Prompt: "What is the capital of France?"}}
	if change != nil {
		change(&r)
	}
	return r
}

func (b *bench) admit(change func(*Request)) Answer {
	b.t.Helper()
	a, err := b.Admit(b.t.Context(), infer(change))
	if err != nil {
		b.t.Fatalf("Admit: %v", err)
	}
	return a
}

// accept answers a submission as an engine would.
func (b *bench) accept(f *fakeEngine, s *Submission) {
	b.Accepted(f, s.ID, s.Attempt, &Accepted{
		Model: s.Model, Version: s.Version, Revision: []byte("rev1"), MaxNewTokens: 100, Lookup: LookupMiss,
		Rendered: Rendered{PromptTokens: []int32{1, 2, 3}, Grammar: "root", Stops: []string{"\n"}},
		Sampling: Sampling{Seed: s.Sampling.Seed},
	})
}

// token sends the token with that index; its text is one letter an index, so that ends are easy to tell.
func (b *bench) token(f *fakeEngine, s *Submission, index int) {
	b.Step(f, &Step{Tokens: []Token{letter(s, index)}})
}

func letter(s *Submission, index int) Token {
	return Token{ID: s.ID, Attempt: s.Attempt, Index: index, Token: int32(index + 10), Text: []byte{'a' + byte(index)}, TextEnd: index + 1, SinceLast: time.Millisecond}
}

func (b *bench) stop(f *fakeEngine, s *Submission, tokens int) {
	b.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishStop, PromptTokens: 3, OutputTokens: tokens}}})
}

// serve gives a submission an answer of so many letters, from the first one missing.
func (b *bench) serve(f *fakeEngine, s *Submission, tokens int) {
	b.accept(f, s)
	for i := len(s.Generated); i < tokens; i++ {
		b.token(f, s, i)
	}
	b.stop(f, s, tokens)
}

// want takes everything from an answer and compares text and error type, "" for none.
func (b *bench) want(a Answer, text string, err api.Type, isDone bool) Piece {
	b.t.Helper()
	p := a.Take(nil)
	got := api.Type("")
	if p.Err != nil {
		got = p.Err.Type
	}
	if string(p.Text) != text || got != err || p.Done != isDone {
		b.t.Errorf("took %q, error %q, done %v; want %q, %q, %v", p.Text, got, p.Done, text, err, isDone)
	}
	return p
}

// value of a metric: the sum over its series that have all the labels, name=value. Of a histogram the count.
func (b *bench) value(name string, labels ...string) float64 {
	b.t.Helper()
	families, err := b.m.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.Metric {
			for _, want := range labels {
				found := false
				for _, l := range m.Label {
					found = found || l.GetName()+"="+l.GetValue() == want
				}
				if !found {
					continue series
				}
			}
			switch {
			case m.Counter != nil:
				sum += m.Counter.GetValue()
			case m.Gauge != nil:
				sum += m.Gauge.GetValue()
			case m.Histogram != nil:
				sum += float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return sum
}

func (b *bench) wantValue(want float64, name string, labels ...string) {
	b.t.Helper()
	if got := b.value(name, labels...); got != want {
		b.t.Errorf("%s{%s} is %v, want %v", name, strings.Join(labels, ","), got, want)
	}
}

func TestAnswerInOnePiece(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(func(r *Request) { r.Key = "alice" })
		s := f.last(t)
		if s.Model != "demo" || s.Version != "v1.0" || s.Sampling.Seed > api.MaxSeed || s.Timeout != 5*time.Minute || s.Owner == 0 {
			t.Errorf("submitted %+v", s)
		}
		b.serve(f, s, 3)
		<-a.Ready()
		p := b.want(a, "abc", "", true)
		want := Result{FinishReason: "stop", PromptTokens: 3, OutputTokens: 3, Seed: s.Sampling.Seed, GenerationTime: 3 * time.Millisecond}
		if p.Result == nil || *p.Result != want || p.Tokens != 3 || !p.Accepted {
			t.Errorf("result %+v, want %+v", p.Result, want)
		}
		a.Settle(Delivered)
		a.Settle(Failed) // a second one counts nothing
		labels := []string{"model=demo", "version=v1.0"}
		b.wantValue(3, "tokens_generated_total", labels...)
		b.wantValue(3, "token_generation_time_seconds", labels...)
		b.wantValue(1, "successful_inferences_total", labels...)
		b.wantValue(1, "llm_request_finish_total", "reason=stop")
		b.wantValue(1, "model_cache_misses_total", labels...)
		b.wantValue(1, "llm_time_to_first_token_seconds", labels...)
		b.wantValue(2, "llm_inter_token_latency_seconds", labels...)
		b.wantValue(0, "failed_inferences_total")
	})
}

func TestStreamIsTimedWhenWritten(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(func(r *Request) { r.Infer.Stream = true })
		s := f.last(t)
		b.accept(f, s)
		b.token(f, s, 0)
		b.want(a, "a", "", false)
		b.wantValue(0, "llm_time_to_first_token_seconds")
		a.Wrote(1, time.Now())
		b.token(f, s, 1)
		b.token(f, s, 2)
		if p := b.want(a, "bc", "", false); p.Tokens != 2 {
			t.Errorf("%d tokens", p.Tokens)
		}
		a.Wrote(2, time.Now())
		b.wantValue(1, "llm_time_to_first_token_seconds")
		b.wantValue(2, "llm_inter_token_latency_seconds")
		b.stop(f, s, 3)
		b.want(a, "", "", true)
		a.Settle(Delivered)
	})
}

func TestRestartIsAPause(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		first := f.last(t)
		b.accept(f, first)
		b.token(f, first, 0)
		b.token(f, first, 1)
		b.want(a, "ab", "", false)
		b.token(f, first, 2) // came, and wasn't taken yet
		b.lose(f)
		b.wantValue(0, "llm_engine_up")
		time.Sleep(3 * time.Second)
		g := b.attach(signalled(syscall.SIGKILL))
		second := g.last(t)
		if second.Attempt != first.Attempt+1 || second.ID != first.ID || len(second.Generated) != 3 || second.Generated[2] != 12 {
			t.Fatalf("replayed %+v", second)
		}
		if second.Rendered == nil || second.Rendered.Grammar != "root" || string(second.ExpectRevision) != "rev1" || second.MaxNewTokens != 100 ||
			second.Sampling.Seed != first.Sampling.Seed {
			t.Errorf("replay isn't in the form that the engine rendered: %+v", second)
		}
		b.token(g, first, 3) // of the old attempt
		b.accept(g, second)
		b.token(g, second, 3)
		b.stop(g, second, 4)
		p := b.want(a, "cd", "", true)
		if p.Result == nil || p.Result.OutputTokens != 4 || p.Result.GenerationTime != 4*time.Millisecond {
			t.Errorf("result %+v", p.Result)
		}
		a.Settle(Delivered)
		b.wantValue(4, "tokens_generated_total")
		b.wantValue(1, "llm_frames_dropped_total", "reason=stale_attempt")
		b.wantValue(1, "llm_requests_replayed_total", "result=resumed")
		b.wantValue(1, "llm_engine_restarts_total", "reason=crash")
		b.wantValue(1, "llm_engine_recovery_seconds")
		b.wantValue(1, "model_cache_misses_total")
		b.wantValue(1, "llm_request_phase_seconds", "phase=restart")
		b.wantValue(1, "successful_inferences_total")
	})
}

func TestRestartBeforeTheFirstToken(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		b.accept(f, f.last(t))
		b.lose(f)
		g := b.attach(LastExit{})
		s := g.last(t)
		if s.Rendered != nil || s.Generated != nil || s.Prompt == "" {
			t.Errorf("nothing was generated, so it starts afresh: %+v", s)
		}
		b.serve(g, s, 2)
		b.want(a, "ab", "", true)
		a.Settle(Delivered)
		b.wantValue(1, "llm_requests_replayed_total", "result=restarted")
	})
}

func TestLateEngineFramesMeetTheFence(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		s := f.last(t)
		a.Cancel(api.Cancelled())
		a.Cancel(api.Cancelled())
		if len(f.cancels) != 1 || f.cancels[0] != s.ID {
			t.Errorf("cancelled %v", f.cancels)
		}
		b.accept(f, s)
		b.token(f, s, 0)
		b.want(a, "", api.TypeCancelled, true)
		a.Settle(ClientGone)
		b.wantValue(2, "llm_frames_dropped_total", "reason=unknown_request")
		b.wantValue(0, "tokens_generated_total")
		b.wantValue(1, "llm_requests_cancelled_total", "stage=prefill")
		if f.hangup != "" {
			t.Errorf("late frames are no breach: %s", f.hangup)
		}
		b.lose(f)
		b.token(f, s, 1)
		b.wantValue(1, "llm_frames_dropped_total", "reason=stale_connection")
	})
}

func TestBreachOfProtocolEndsTheConnection(t *testing.T) {
	tests := []struct {
		name   string
		breach func(b *bench, f *fakeEngine, s *Submission)
	}{
		{"token before accepted", func(b *bench, f *fakeEngine, s *Submission) { b.token(f, s, 0) }},
		{"accepted twice", func(b *bench, f *fakeEngine, s *Submission) { b.accept(f, s); b.accept(f, s) }},
		{"token left out", func(b *bench, f *fakeEngine, s *Submission) { b.accept(f, s); b.token(f, s, 1) }},
		{"token repeated", func(b *bench, f *fakeEngine, s *Submission) { b.accept(f, s); b.token(f, s, 0); b.token(f, s, 0) }},
		{"text left out", func(b *bench, f *fakeEngine, s *Submission) {
			b.accept(f, s)
			tok := letter(s, 0)
			tok.TextEnd = 5
			b.Step(f, &Step{Tokens: []Token{tok}})
		}},
		{"more tokens than allowed", func(b *bench, f *fakeEngine, s *Submission) {
			b.accept(f, s)
			for i := range 101 {
				b.token(f, s, i)
			}
		}},
		{"end with a token missing", func(b *bench, f *fakeEngine, s *Submission) { b.accept(f, s); b.stop(f, s, 1) }},
		{"end before accepted", func(b *bench, f *fakeEngine, s *Submission) { b.stop(f, s, 0) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, b *bench) {
				f := b.attach(LastExit{})
				a := b.admit(nil)
				s := f.last(t)
				tt.breach(b, f, s)
				if f.hangup == "" {
					t.Fatal("the connection goes on")
				}
				b.stop(f, s, 1) // ignored from here on
				b.lose(f)
				tokens := min(len(a.Take(nil).Text)+2, 100)
				g := b.attach(LastExit{})
				b.serve(g, g.last(t), tokens)
				if p := a.Take(nil); !p.Done || p.Err != nil || p.Result.OutputTokens != tokens {
					t.Errorf("the request didn't survive: %+v", p)
				}
				a.Settle(Delivered)
			})
		})
	}
}

func TestTextThatCameBeforeIsNotRepeated(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		s := f.last(t)
		b.accept(f, s)
		b.token(f, s, 0)
		tok := letter(s, 1)
		tok.Text, tok.TextEnd = []byte("ab"), 2 // holds text of the token before it
		b.Step(f, &Step{Tokens: []Token{tok}})
		b.want(a, "ab", "", false)
		b.stop(f, s, 2)
		a.Settle(Delivered)
	})
}

func TestClientLeavesWhileQueued(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		a := b.admit(nil)
		a.Settle(ClientGone) // without Cancel and before the end
		f := b.attach(LastExit{})
		if len(f.infers) != 0 || len(f.cancels) != 0 {
			t.Errorf("the engine heard of it: %d requests, %d cancels", len(f.infers), len(f.cancels))
		}
		b.wantValue(1, "llm_requests_cancelled_total", "stage=queue")
		b.wantValue(0, "llm_requests_rejected_total")
		b.wantValue(0, "failed_inferences_total")
	})
}

func TestClientLeavesInMidAnswer(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		s := f.last(t)
		b.accept(f, s)
		b.token(f, s, 0)
		a.Settle(ClientGone)
		if len(f.cancels) != 1 {
			t.Errorf("cancels %v", f.cancels)
		}
		b.wantValue(1, "llm_requests_cancelled_total", "stage=decode")
		b.wantValue(1, "failed_inferences_total", "error_type=cancelled")
		b.wantValue(1, "llm_request_finish_total", "reason=cancelled")
		b.wantValue(1, "llm_request_output_tokens")
	})
}

func TestRepeatedBreachEndsTheRequestOnly(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		bad, good := b.admit(prompt("bad")), b.admit(prompt("good"))
		var f *fakeEngine
		for i := range maxBreaches {
			f = b.attach(LastExit{})
			b.accept(f, f.byPrompt("bad"))
			b.accept(f, f.byPrompt("good"))
			b.token(f, f.byPrompt("bad"), 7)
			if hung := f.hangup != ""; hung != (i < maxBreaches-1) {
				t.Fatalf("breach %d: hung up %v", i, hung)
			}
			if f.hangup != "" {
				b.lose(f)
			}
		}
		b.want(bad, "", api.TypeInternal, true)
		b.token(f, f.byPrompt("good"), 0)
		b.stop(f, f.byPrompt("good"), 1)
		b.want(good, "a", "", true)
		bad.Settle(Failed)
		good.Settle(Delivered)
		b.wantValue(1, "failed_inferences_total", "error_type=internal")
	})
}
