package inflight

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"tandem/proxy/api"
)

// byPrompt finds the newest submission with that prompt, nil if there is none.
func (f *fakeEngine) byPrompt(prompt string) *Submission {
	for i := len(f.infers) - 1; i >= 0; i-- {
		if f.infers[i].Prompt == prompt {
			return f.infers[i]
		}
	}
	return nil
}

func prompt(text string) func(*Request) {
	return func(r *Request) { r.Infer = &api.Request{Prompt: text} }
}

func TestPoisonIsFoundAndTheOthersFinish(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		answers := map[string]Answer{}
		for i := range 8 {
			text := fmt.Sprint("prompt ", i)
			if i == 3 {
				text = "poison"
			}
			answers[text] = b.admit(prompt(text))
		}
		crashes, exit := 0, LastExit{}
		for alive := false; !alive; {
			f := b.attach(exit)
			alive = true
			for i := 0; i < len(f.infers) && alive; i++ {
				if f.byPrompt("poison") == nil {
					b.serve(f, f.infers[i], 2)
					continue
				}
				b.lose(f) // before anybody got a token, which accuses most
				exit, alive = signalled(syscall.SIGABRT), false
				if crashes++; crashes > 4 {
					t.Fatal("the poison wasn't found within four crashes")
				}
			}
		}
		p := answers["poison"].Take(nil)
		if !p.Done || p.Err == nil || p.Err.Type != api.TypeQuarantined || p.Err.Status() != 422 {
			t.Fatalf("poison: %+v after %d crashes", p, crashes)
		}
		for text, a := range answers {
			if text != "poison" {
				if p := a.Take(nil); !p.Done || p.Err != nil {
					t.Errorf("%s: %+v", text, p)
				}
			}
			a.Settle(Delivered)
		}
		b.wantValue(1, "llm_requests_quarantined_total")
		b.wantValue(1, "llm_requests_replayed_total", "result=quarantined")
		if _, err := b.Admit(t.Context(), infer(prompt("poison"))); err == nil || err.Type != api.TypeQuarantined {
			t.Errorf("the same request again: %v", err)
		}
		time.Sleep(11 * time.Minute)
		b.admit(prompt("poison")).Settle(ClientGone)
	})
}

func TestKillsFromOutsideAccuseNobody(t *testing.T) {
	for _, exit := range []LastExit{signalled(syscall.SIGKILL), signalled(syscall.SIGTERM), {Kind: ExitStall}, {Kind: ExitUpgrade}, {}} {
		t.Run(fmt.Sprint(exit.Kind, exit.Signal), func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, b *bench) {
				a := b.admit(nil)
				for range 20 {
					f := b.attach(exit)
					b.accept(f, f.last(t))
					b.lose(f)
				}
				f := b.attach(exit)
				b.serve(f, f.last(t), 3)
				b.want(a, "abc", "", true)
				a.Settle(Delivered)
				if b.Status().CrashLoop {
					t.Error("kills from outside count as a crash loop")
				}
				b.wantValue(0, "llm_requests_quarantined_total")
			})
		})
	}
}

func TestANewTokenClearsARequest(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		a := b.admit(nil)
		for i := range 12 { // two deaths without a token, then one with
			f := b.attach(signalled(syscall.SIGSEGV))
			s := f.last(t)
			b.accept(f, s)
			if i%3 == 2 {
				b.token(f, s, len(s.Generated))
			}
			b.lose(f)
		}
		f := b.attach(signalled(syscall.SIGSEGV))
		b.serve(f, f.last(t), 6)
		b.want(a, "abcdef", "", true)
		a.Settle(Delivered)
		b.wantValue(0, "llm_requests_quarantined_total")
		b.wantValue(6, "tokens_generated_total")
	})
}

func TestSuspectsGoAlone(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		answers := []Answer{b.admit(nil), b.admit(nil), b.admit(nil)}
		for _, exit := range []LastExit{{}, signalled(syscall.SIGSEGV)} {
			b.lose(b.attach(exit))
		}
		f := b.attach(signalled(syscall.SIGSEGV))
		for i := range answers {
			if len(f.infers) != i+1 {
				t.Fatalf("%d are at the engine, want one suspect after the other", len(f.infers))
			}
			answers = append(answers, b.admit(nil)) // new ones wait behind them
			if len(f.infers) != i+1 {
				t.Fatal("a new request went beside a suspect")
			}
			b.accept(f, f.infers[i])
			b.token(f, f.infers[i], 0)
		}
		if len(f.infers) != len(answers) {
			t.Errorf("%d of %d are at the engine after the suspects were cleared", len(f.infers), len(answers))
		}
		for _, a := range answers {
			a.Settle(ClientGone)
		}
	})
}

func TestEngineBesideAnotherIsAnUpgrade(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		b.attach(LastExit{})
		b.attach(LastExit{})
		b.wantValue(1, "llm_engine_restarts_total", "reason=upgrade")
	})
}

func TestCrashLoopAnswersInsteadOfHolding(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		var answers []Answer
		for i := range loopDeaths {
			if b.Status().CrashLoop {
				t.Fatalf("%d deaths are a crash loop", i)
			}
			answers = append(answers, b.admit(nil))
			time.Sleep(time.Second)
			f := &fakeEngine{} // dies before it can serve anything
			b.instance++
			b.Attached(f, Hello{Instance: b.instance, LastExit: LastExit{Kind: ExitCode, Code: 1}})
			b.lose(f)
		}
		if !b.Status().CrashLoop { // its supervisor gives up, so no engine will tell of the fifth
			t.Fatal("five deaths in five seconds aren't a crash loop")
		}
		for _, a := range answers {
			if p := a.Take(nil); !p.Done || p.Err == nil || p.Err.Status() != 503 {
				t.Errorf("held: %+v", p)
			}
			a.Settle(Failed)
		}
		time.Sleep(time.Minute)
		if b.Status().CrashLoop {
			t.Error("still a crash loop after a quiet minute")
		}
	})
}

func TestModelChanged(t *testing.T) {
	changed := func(s *Submission) *Step {
		return &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishError, Failure: Failure{Code: "model_changed"}}}}
	}
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		with, without := b.admit(prompt("with")), b.admit(prompt("without"))
		b.accept(f, f.byPrompt("with"))
		b.accept(f, f.byPrompt("without"))
		b.token(f, f.byPrompt("with"), 0)
		b.lose(f)
		g := b.attach(LastExit{})
		b.Step(g, changed(g.byPrompt("with")))
		b.Step(g, changed(g.byPrompt("without")))
		b.want(with, "a", api.TypeModelChanged, true)
		s := g.byPrompt("without")
		if s.Attempt != 2 || s.ExpectRevision != nil {
			t.Errorf("started afresh as %+v", s)
		}
		b.serve(g, s, 1)
		b.want(without, "a", "", true)
		with.Settle(Failed)
		without.Settle(Delivered)
		b.wantValue(1, "failed_inferences_total", "error_type=model_changed")
		b.wantValue(1, "llm_requests_replayed_total", "result=model_changed")
		b.wantValue(2, "tokens_generated_total")
	})
}

func TestReplaysAreBoundedAndOldestFirst(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		b.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 32}}})
		var answers []Answer
		for i := range 20 {
			answers = append(answers, b.admit(prompt(fmt.Sprint(i))))
			b.accept(f, f.last(t))
			b.token(f, f.last(t), 0)
		}
		b.lose(f)
		newest := b.admit(prompt("new"))
		g := b.attach(LastExit{})
		b.Stats(g, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 32}}})
		for i := range answers {
			if want := min(i+replaysAhead, len(answers)); i < len(answers)-replaysAhead && len(g.infers) != want {
				t.Fatalf("%d replays are out after %d came back, want %d", len(g.infers), i, want)
			}
			if g.infers[i].Prompt != fmt.Sprint(i) {
				t.Fatalf("replay %d is of request %s", i, g.infers[i].Prompt)
			}
			b.accept(g, g.infers[i])
			b.token(g, g.infers[i], 1)
		}
		if g.last(t).Prompt != "new" {
			t.Error("the new request doesn't follow the replays")
		}
		for _, a := range append(answers, newest) {
			a.Settle(ClientGone)
		}
	})
}

func TestHandOver(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		s := f.last(t)
		b.accept(f, s)
		b.token(f, s, 0)
		g := b.attach(LastExit{Kind: ExitUpgrade})
		other := b.admit(prompt("new"))
		if len(g.infers) != 1 || f.last(t) != s {
			t.Error("new work doesn't go to the newest engine")
		}
		b.Draining(f, time.Minute, false)
		if !f.move || f.drained {
			t.Fatalf("asked to move: %v, to go: %v", f.move, f.drained)
		}
		b.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishMoved}}})
		b.Moved(f)
		if !f.drained {
			t.Error("the old engine isn't told to go")
		}
		moved := g.last(t)
		if moved.ID != s.ID || moved.Attempt != 1 || len(moved.Generated) != 1 {
			t.Fatalf("the request didn't move: %+v", moved)
		}
		b.lose(f)
		b.wantValue(1, "llm_engine_up")
		b.serve(g, moved, 3)
		b.want(a, "abc", "", true)
		a.Settle(Delivered)
		other.Settle(ClientGone)
		b.wantValue(0, "llm_requests_quarantined_total")
		b.wantValue(1, "llm_engine_restarts_total", "reason=upgrade")
	})
}

func TestDrainWithoutANextEngineLosesNothing(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		b.Draining(f, time.Minute, false)
		other := b.admit(nil) // or it would never end
		time.Sleep(time.Minute)
		if f.move || f.drained || len(f.infers) != 1 {
			t.Fatalf("move %v, drained %v, %d requests", f.move, f.drained, len(f.infers))
		}
		if s := b.Status(); !s.EngineUp || s.EngineAwayFor != time.Minute {
			t.Errorf("up %v, nobody takes new requests for %s", s.EngineUp, s.EngineAwayFor)
		}
		b.serve(f, f.infers[0], 1)
		if !f.drained {
			t.Error("not told to go after the last answer")
		}
		third := b.admit(nil) // too late for it
		b.lose(f)
		time.Sleep(9 * time.Second)
		g := b.attach(LastExit{Kind: ExitUpgrade})
		if len(f.infers) != 1 || len(g.infers) != 2 || b.Status().EngineAwayFor != 0 {
			t.Fatalf("%d requests at the old engine, %d at the next one", len(f.infers), len(g.infers))
		}
		for _, s := range g.infers {
			b.serve(g, s, 1)
		}
		for _, x := range []Answer{a, other, third} {
			b.want(x, "a", "", true)
			x.Settle(Delivered)
		}
		b.wantValue(3, "successful_inferences_total")
	})
}

func TestDrainWithoutANextEngineAtAllIsRefusedInTheEnd(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		b.Draining(f, time.Minute, false)
		if !f.drained {
			t.Fatal("an idle engine may go at once")
		}
		a := b.admit(nil)
		time.Sleep(time.Minute)
		b.want(a, "", "", false)
		b.lose(f)
		time.Sleep(11 * time.Second)
		b.want(a, "", api.TypeEngineUnavailable, true)
		a.Settle(Failed)
	})
}

func TestWhatWaitsGoesToALeavingEngineWhenTheProxyEndsAsWell(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		b.Draining(f, time.Minute, false)
		other := b.admit(nil)
		b.Drain()
		if len(f.infers) != 2 {
			t.Fatalf("%d requests at the engine", len(f.infers))
		}
		for _, s := range f.infers {
			if f.drained {
				t.Error("told to go too early")
			}
			b.serve(f, s, 1)
		}
		for _, x := range []Answer{a, other} {
			b.want(x, "a", "", true)
			x.Settle(Delivered)
		}
		if !f.drained {
			t.Error("not told to go after the last answer")
		}
	})
}

func TestAnswerThatGoesOnWithOtherNumericsIsCounted(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		attach := func(numerics string) *fakeEngine {
			b.instance++
			f := &fakeEngine{}
			b.Attached(f, Hello{Instance: b.instance, Device: "cpu", Numerics: numerics})
			b.Catalog(f, demoCatalog())
			return f
		}
		a := b.admit(nil)
		for i, numerics := range []string{"x", "x", "y", "y", "x"} {
			f := attach(numerics)
			b.accept(f, f.last(t))
			b.token(f, f.last(t), i)
			if i < 4 {
				b.lose(f)
			} else {
				b.stop(f, f.last(t), 5)
			}
		}
		b.want(a, "abcde", "", true)
		a.Settle(Delivered)
		b.wantValue(2, "llm_requests_replayed_total", "result=resumed")
		b.wantValue(2, "llm_requests_replayed_total", "result=other_numerics")
	})
}

func TestSameEngineAgainIsNoRestart(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		a := b.admit(nil)
		b.accept(f, f.last(t))
		b.lose(f)
		g := &fakeEngine{}
		b.Attached(g, Hello{Instance: b.instance, LastExit: signalled(syscall.SIGSEGV)})
		b.Catalog(g, demoCatalog())
		b.serve(g, g.last(t), 1)
		b.want(a, "a", "", true)
		a.Settle(Delivered)
		b.wantValue(1, "llm_ipc_reconnects_total")
		b.wantValue(0, "llm_engine_restarts_total")
	})
}

func TestWhatIsLoadedIsShown(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		f := b.attach(LastExit{})
		b.Event(f, ModelEvent{Kind: EventLoading, Model: "demo", Version: "v1.0"})
		b.Event(f, ModelEvent{Kind: EventLoaded, Model: "demo", Version: "v1.0", Took: time.Second, Bytes: 1000, Facts: Facts{WeightBytes: 40_000, CacheBytes: 10_000, Quantization: "Q8_0"}})
		b.wantValue(1, "llm_model_loaded", "model=demo", "version=v1.0")
		b.wantValue(1000, "model_memory_usage_bytes", "version=v1.0")
		b.wantValue(50_000, "model_memory_usage_bytes", "version=base")
		b.wantValue(1, "model_load_time_seconds", "version=v1.0")
		s := b.Status()
		if !s.DefaultLoaded || s.DefaultModel != "demo" || s.DefaultVersion != "v1.0" || len(s.Loaded) != 1 || s.Device != "cpu" || !s.EngineUp {
			t.Errorf("status %+v", s)
		}
		b.Event(f, ModelEvent{Kind: EventEvicted, Model: "demo", Version: "v1.0", Reason: "lru"})
		b.wantValue(0, "llm_model_loaded")
		b.wantValue(0, "model_memory_usage_bytes")
		b.wantValue(1, "llm_model_evictions_total", "reason=lru")
		b.Event(f, ModelEvent{Kind: EventLoaded, Model: "demo", Version: "v1.0", Bytes: 1000})
		b.lose(f)
		b.wantValue(0, "llm_model_loaded")
		b.wantValue(0, "model_memory_usage_bytes")
		time.Sleep(2 * time.Second)
		if s := b.Status(); s.EngineUp || s.EngineAwayFor != 2*time.Second || s.Device != "cpu" || len(s.Loaded) != 0 {
			t.Errorf("status without an engine %+v", s)
		}
	})
}
