package inflight

import (
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/queue"
)

// endsAfter waits for the answer and says when it came, in fake time.
func (b *bench) endsAfter(a Answer, want time.Duration, err api.Type) *api.Error {
	b.t.Helper()
	start := time.Now()
	<-a.Ready()
	if got := time.Since(start); got < want || got > want+2*tickEvery {
		b.t.Errorf("ended after %v, want %v", got, want)
	}
	p := b.want(a, "", err, true)
	a.Settle(Failed)
	return p.Err
}

func TestNewRequestsWaitForAnEngine(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		a := b.admit(nil)
		if a.Model() != "" {
			t.Errorf("model %q before any engine was seen", a.Model())
		}
		err := b.endsAfter(a, 10*time.Second, api.TypeEngineUnavailable)
		if err == nil || err.RetryAfterSeconds() < 1 {
			t.Errorf("no Retry-After: %v", err)
		}
		b.wantValue(1, "llm_requests_rejected_total", "reason=engine_unavailable")

		late := b.admit(nil)
		time.Sleep(9 * time.Second)
		f := b.attach(LastExit{})
		if late.Model() != "demo" || late.Version() != "v1.0" {
			t.Errorf("resolved to %s@%s", late.Model(), late.Version())
		}
		b.serve(f, f.last(t), 1)
		b.want(late, "a", "", true)
		late.Settle(Delivered)
	})
}

func TestUnknownModelIsSaidOnceItIsKnown(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		early := b.admit(func(r *Request) { r.Infer.Model = "nope" })
		f := b.attach(LastExit{})
		b.want(early, "", api.TypeModelNotFound, true)
		early.Settle(Failed)
		b.wantValue(1, "llm_requests_rejected_total", "reason=model_not_found")
		for _, tt := range []struct {
			change func(*Request)
			want   api.Type
		}{
			{func(r *Request) { r.Infer.Model = "nope" }, api.TypeModelNotFound},
			{func(r *Request) { r.Infer.Version = "v9" }, api.TypeVersionNotFound},
			{func(r *Request) { n := 513; r.Infer.MaxNewTokens = &n }, api.TypeInvalidRequest},
		} {
			if _, err := b.Admit(t.Context(), infer(tt.change)); err == nil || err.Type != tt.want {
				t.Errorf("refused with %v, want %s", err, tt.want)
			}
		}
		if len(f.infers) != 0 {
			t.Error("the engine was asked")
		}
	})
}

func TestEngineWaitStartsWhenTheEngineLeaves(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		var sentOnes []Answer
		for range unloadedAhead {
			sentOnes = append(sentOnes, b.admit(nil))
		}
		a := b.admit(nil) // no credit left
		time.Sleep(time.Minute)
		b.lose(f)
		b.endsAfter(a, 10*time.Second, api.TypeEngineUnavailable)
		for _, s := range sentOnes {
			if s.Take(nil).Done {
				t.Error("a request that an engine had doesn't wait for the next one")
			}
			s.Settle(ClientGone)
		}
	})
}

func TestDeadlines(t *testing.T) {
	inBubble(t, Options{EngineWait: time.Hour}, func(t *testing.T, b *bench) {
		short := func(r *Request) { r.Timeout = 2 * time.Second }
		b.endsAfter(b.admit(short), 2*time.Second, api.TypeQueueTimeout)
		f := b.attach(LastExit{})
		a := b.admit(short)
		b.accept(f, f.last(t))
		b.endsAfter(a, 2*time.Second, api.TypeDeadlineExceeded)
		if len(f.cancels) != 1 {
			t.Error("the engine still works on a request whose time is over")
		}
		b.wantValue(1, "llm_requests_rejected_total", "reason=deadline")
		b.wantValue(1, "failed_inferences_total", "error_type=deadline_exceeded")
		b.wantValue(1, "failed_inferences_total")

		a = b.admit(short)
		b.accept(f, f.last(t))
		b.lose(f)
		b.endsAfter(a, 2*time.Second, api.TypeDeadlineExceeded)
	})
}

func TestReplayWaitEnds(t *testing.T) {
	inBubble(t, Options{ReplayWait: 30 * time.Second}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		b.accept(f, f.last(t))
		b.lose(f)
		b.endsAfter(a, 30*time.Second, api.TypeEngineCrashed)
		b.wantValue(1, "failed_inferences_total", "error_type=engine_crashed")
	})
}

func TestModelLoadWaitEnds(t *testing.T) {
	inBubble(t, Options{ModelLoadWait: time.Minute}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		b.Event(f, ModelEvent{Kind: EventLoading, Model: "demo", Version: "v1.0"})
		if s := b.Status(); len(s.Loading) != 1 || s.Loading[0] != "demo@v1.0" {
			t.Errorf("loading %v", s.Loading)
		}
		a := b.admit(nil)
		b.endsAfter(a, time.Minute, api.TypeModelLoadFailed)
		b.wantValue(1, "llm_requests_rejected_total", "reason=model_load_failed")
	})
}

func TestQueueAndJournalAreBounded(t *testing.T) {
	inBubble(t, Options{QueueCapacity: 2, JournalMaxBytes: 100_000}, func(t *testing.T, b *bench) {
		answers := []Answer{b.admit(nil), b.admit(nil)}
		if _, err := b.Admit(t.Context(), infer(nil)); err == nil || err.Type != api.TypeQueueFull || err.RetryAfterSeconds() < 1 {
			t.Errorf("third of two: %v", err)
		}
		b.wantValue(2, "llm_requests_waiting")
		if b.value("llm_journal_bytes") == 0 {
			t.Error("nothing is reserved")
		}
		f := b.attach(LastExit{}) // takes both
		if len(f.infers) != 2 {
			t.Fatalf("%d were released", len(f.infers))
		}
		huge := func(r *Request) { n := 6500; r.Infer.Model = "big"; r.Infer.MaxNewTokens = &n }
		answers = append(answers, b.admit(huge))
		if _, err := b.Admit(t.Context(), infer(huge)); err == nil || err.Type != api.TypeQueueFull {
			t.Errorf("a request that the journal has no room for: %v", err)
		}
		for _, a := range answers {
			a.Settle(ClientGone)
		}
		b.wantValue(0, "llm_journal_bytes")
	})
}

func TestCreditFollowsTheStats(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		var answers []Answer
		for range 20 {
			answers = append(answers, b.admit(nil))
		}
		answers = append(answers, b.admit(func(r *Request) { r.Infer.Model = "big" }))
		if n := len(f.infers); n != unloadedAhead+1 {
			t.Errorf("%d released for two bases that aren't loaded", n)
		}
		b.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 8, FreeSequences: 0, Decoding: 8, Cells: 100, FreeCells: 25}}})
		if n, want := len(f.infers), 8+lookAhead(8)+1; n != want {
			t.Errorf("%d released with 8 sequences, want %d", n, want)
		}
		b.wantValue(8, "llm_requests_running")
		b.wantValue(0.75, "llm_kv_cache_usage_ratio")
		b.serve(f, f.infers[0], 1)
		if n, want := len(f.infers), 8+lookAhead(8)+2; n != want {
			t.Errorf("%d released after one ended, want %d", n, want)
		}
		for _, a := range answers {
			a.Settle(ClientGone)
		}
	})
}

// A key of some models only: what a request gets that names none is known when an engine has said what it has.
func TestKeyOfSomeModelsAndTheDefault(t *testing.T) {
	documented := "microsoft/DialoGPT-medium" // which isn't installed, so that another is the default
	big := func([]string) string { return "big" }
	inBubble(t, Options{DefaultModel: documented, ChooseDefault: big}, func(t *testing.T, b *bench) {
		of := func(model string) func(*Request) { return func(r *Request) { r.Models = []string{model} } }
		may, mayNot := b.admit(of("big")), b.admit(of(documented))
		f := b.attach(LastExit{})
		b.want(mayNot, "", api.TypeForbidden, true)
		b.serve(f, f.last(t), 1)
		b.want(may, "a", "", true)
		may.Settle(Delivered)
		mayNot.Settle(Failed)
		if _, err := b.Admit(t.Context(), infer(of(documented))); err == nil || err.Type != api.TypeForbidden {
			t.Errorf("later: %v", err)
		}
		b.wantValue(1, "llm_requests_rejected_total", "reason=forbidden")
	})
}

func TestRequestThatFitsIntoNoFrameIsRefused(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		large := prompt(strings.Repeat("x", oversize+1))
		waited := b.admit(large)
		f := b.attach(LastExit{})
		for _, a := range []Answer{waited, b.admit(large)} {
			b.want(a, "", api.TypeInvalidRequest, true)
			a.Settle(Failed)
		}
		b.wantValue(2, "llm_requests_rejected_total", "reason=invalid_request")
		a := b.admit(nil)
		b.serve(f, f.last(t), 1)
		a.Settle(Delivered)
	})
}

func TestProxyDrains(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		b.Drain()
		if _, err := b.Admit(t.Context(), infer(nil)); err == nil || err.Type != api.TypeDraining {
			t.Errorf("admitted while draining: %v", err)
		}
		b.Draining(f, time.Minute, true)
		if f.move || f.drained {
			t.Error("an engine must keep what it has while the proxy drains")
		}
		b.serve(f, f.last(t), 1)
		b.want(a, "a", "", true)
		a.Settle(Delivered)
		if !f.drained {
			t.Error("the engine wasn't told that nothing is left")
		}
		b.wantValue(1, "llm_draining")
		if s := b.Status(); !s.Draining {
			t.Error("status doesn't say so")
		}
	})
}

func TestStoppingAnswersWhatIsLeft(t *testing.T) {
	b := newBench(t, Options{})
	f := b.attach(LastExit{})
	a := b.admit(nil)
	b.close()
	b.want(a, "", api.TypeDraining, true)
	if len(f.cancels) != 1 {
		t.Error("the engine still works")
	}
	a.Settle(Failed)
	if !b.idle() {
		t.Error("not idle after the last one was settled")
	}
}

func TestQueueOfNoLength(t *testing.T) {
	b := newBench(t, Options{QueueMaxBytes: 1})
	b.o.QueueCapacity = 0
	b.queue = queue.New(queue.Limits{})
	if _, err := b.Admit(t.Context(), infer(nil)); err == nil || err.Type != api.TypeQueueFull {
		t.Errorf("without an engine: %v", err)
	}
	f := b.attach(LastExit{})
	for range unloadedAhead {
		b.admit(nil)
	}
	if _, err := b.Admit(t.Context(), infer(nil)); err == nil || err.Type != api.TypeQueueFull || len(f.infers) != unloadedAhead {
		t.Errorf("without credit: %v, %d went", err, len(f.infers))
	}
}

func TestReadyOnceTheDefaultModelIsNotLoading(t *testing.T) {
	b := newBench(t, Options{})
	f := &fakeEngine{}
	b.Attached(f, Hello{Instance: 1})
	c := demoCatalog()
	c.Loaded = []Loaded{{Model: "demo", Version: "v1.0", Loading: true}}
	b.Catalog(f, c)
	if s := b.Status(); s.EverReady || len(s.Loading) != 1 || s.DefaultLoaded {
		t.Errorf("ready while the default model loads: %+v", s)
	}
	b.Event(f, ModelEvent{Kind: EventLoaded, Model: "demo", Version: "v1.0"})
	if s := b.Status(); !s.EverReady || len(s.Loading) != 0 || !s.DefaultLoaded {
		t.Errorf("not ready after the load: %+v", s)
	}
}

func TestDefaultThatCannotBeLoadedIsShown(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		wantProblem := func(when, want string) {
			t.Helper()
			if got := b.Status().DefaultProblem; got != want {
				t.Errorf("%s: problem %q, want %q", when, got, want)
			}
		}
		event := func(kind EventKind, version, reason string) {
			b.Event(f, ModelEvent{Kind: kind, Model: "demo", Version: version, Reason: reason})
		}
		event(EventLoadFailed, "v2.0", "bad_format")
		wantProblem("another version failed", "")
		event(EventLoadFailed, "v1.0", "out_of_memory")
		wantProblem("it never was loaded", "out_of_memory")
		event(EventLoading, "v1.0", "")
		event(EventLoaded, "v1.0", "")
		wantProblem("loaded", "")
		event(EventEvicted, "v1.0", "lru")
		event(EventLoadFailed, "v1.0", "out_of_memory")
		wantProblem("it has served, which may be a pause", "")
		time.Sleep(10 * time.Second)
		event(EventLoadFailed, "v1.0", "out_of_memory")
		wantProblem("that lasts", "out_of_memory")
		c := demoCatalog()
		c.Models[0].Versions[1].Problem = "model.gguf: cut off"
		b.Catalog(f, c)
		wantProblem("files are at fault", "model.gguf: cut off")
	})
}
