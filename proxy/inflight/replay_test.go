package inflight

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"tandem/proxy/api"
)

func TestAnswerContinuesAfterARestart(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		first := f.last(t)
		table.sendAccepted(f, first)
		table.sendToken(f, first, 0)
		table.sendToken(f, first, 1)
		table.wantAnswer(a, "ab", "", false)
		table.sendToken(f, first, 2) // came, and wasn't taken yet
		table.lose(f)
		table.wantMetric(0, "llm_engine_up")
		time.Sleep(3 * time.Second)
		g := table.attach(killedBy(syscall.SIGKILL))
		second := g.last(t)
		if second.Attempt != first.Attempt+1 || second.ID != first.ID || len(second.Generated) != 3 || second.Generated[2] != 12 {
			t.Fatalf("replayed %+v", second)
		}
		if second.Rendered == nil || second.Rendered.Grammar != "root" || len(second.Rendered.Triggers) != 1 || second.Rendered.Triggers[0].Value != "<call>" || string(second.ExpectRevision) != "rev1" || second.MaxNewTokens != 100 ||
			second.Sampling.Seed != first.Sampling.Seed {
			t.Errorf("replay isn't in the form that the engine rendered: %+v", second)
		}
		table.sendToken(g, first, 3) // of the old attempt
		table.sendAccepted(g, second)
		table.sendToken(g, second, 3)
		table.sendStop(g, second, 4)
		p := table.wantAnswer(a, "cd", "", true)
		if p.Result == nil || p.Result.OutputTokens != 4 || p.Result.GenerationTime != 4*time.Millisecond {
			t.Errorf("result %+v", p.Result)
		}
		a.Settle(Delivered)
		table.wantMetric(4, "tokens_generated_total")
		table.wantMetric(1, "llm_frames_dropped_total", "reason=stale_attempt")
		table.wantMetric(1, "llm_requests_replayed_total", "result=resumed")
		table.wantMetric(1, "llm_engine_restarts_total", "reason=crash")
		table.wantMetric(1, "llm_engine_recovery_seconds")
		table.wantMetric(1, "model_cache_misses_total")
		table.wantMetric(1, "llm_request_phase_seconds", "phase=restart")
		table.wantMetric(1, "successful_inferences_total")
	})
}

func TestRestartBeforeTheFirstToken(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		table.sendAccepted(f, f.last(t))
		table.lose(f)
		g := table.attach(LastExit{})
		s := g.last(t)
		if s.Rendered != nil || s.Generated != nil || s.Prompt == "" {
			t.Errorf("nothing was generated, so it starts afresh: %+v", s)
		}
		table.serve(g, s, 2)
		table.wantAnswer(a, "ab", "", true)
		a.Settle(Delivered)
		table.wantMetric(1, "llm_requests_replayed_total", "result=restarted")
	})
}

func TestModelChanged(t *testing.T) {
	changed := func(s *Submission) *Step {
		return &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishError, Failure: Failure{Code: "model_changed"}}}}
	}
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		with, without := table.admit(withPrompt("with")), table.admit(withPrompt("without"))
		table.sendAccepted(f, f.byPrompt("with"))
		table.sendAccepted(f, f.byPrompt("without"))
		table.sendToken(f, f.byPrompt("with"), 0)
		table.lose(f)
		g := table.attach(LastExit{})
		table.Step(g, changed(g.byPrompt("with")))
		table.Step(g, changed(g.byPrompt("without")))
		table.wantAnswer(with, "a", api.TypeModelChanged, true)
		s := g.byPrompt("without")
		if s.Attempt != 2 || s.ExpectRevision != nil {
			t.Errorf("started afresh as %+v", s)
		}
		table.serve(g, s, 1)
		table.wantAnswer(without, "a", "", true)
		with.Settle(Failed)
		without.Settle(Delivered)
		table.wantMetric(1, "failed_inferences_total", "error_type=model_changed")
		table.wantMetric(1, "llm_requests_replayed_total", "result=model_changed")
		table.wantMetric(2, "tokens_generated_total")
	})
}

func TestReplaysAreBoundedAndOldestFirst(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		table.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 32}}})
		var answers []Answer
		for i := range 20 {
			answers = append(answers, table.admit(withPrompt(fmt.Sprint(i))))
			table.sendAccepted(f, f.last(t))
			table.sendToken(f, f.last(t), 0)
		}
		table.lose(f)
		newest := table.admit(withPrompt("new"))
		g := table.attach(LastExit{})
		table.Stats(g, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 32}}})
		for i := range answers {
			if want := min(i+maxReplaysSent, len(answers)); i < len(answers)-maxReplaysSent && len(g.infers) != want {
				t.Fatalf("%d replays are out after %d came back, want %d", len(g.infers), i, want)
			}
			if g.infers[i].Prompt != fmt.Sprint(i) {
				t.Fatalf("replay %d is of request %s", i, g.infers[i].Prompt)
			}
			table.sendAccepted(g, g.infers[i])
			table.sendToken(g, g.infers[i], 1)
		}
		if g.last(t).Prompt != "new" {
			t.Error("the new request doesn't follow the replays")
		}
		for _, a := range append(answers, newest) {
			a.Settle(ClientGone)
		}
	})
}

func TestReplayWithOtherNumericsIsCounted(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		attach := func(numerics string) *fakeEngine {
			table.instance++
			f := &fakeEngine{}
			table.Attached(f, Hello{Instance: table.instance, Device: "cpu", Numerics: numerics})
			table.Catalog(f, demoCatalog())
			return f
		}
		a := table.admit(nil)
		for i, numerics := range []string{"x", "x", "y", "y", "x"} {
			f := attach(numerics)
			table.sendAccepted(f, f.last(t))
			table.sendToken(f, f.last(t), i)
			if i < 4 {
				table.lose(f)
			} else {
				table.sendStop(f, f.last(t), 5)
			}
		}
		table.wantAnswer(a, "abcde", "", true)
		a.Settle(Delivered)
		table.wantMetric(2, "llm_requests_replayed_total", "result=resumed")
		table.wantMetric(2, "llm_requests_replayed_total", "result=other_numerics")
	})
}

func TestReconnectIsNoRestart(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		table.sendAccepted(f, f.last(t))
		table.lose(f)
		g := &fakeEngine{}
		table.Attached(g, Hello{Instance: table.instance, LastExit: killedBy(syscall.SIGSEGV)})
		table.Catalog(g, demoCatalog())
		table.serve(g, g.last(t), 1)
		table.wantAnswer(a, "a", "", true)
		a.Settle(Delivered)
		table.wantMetric(1, "llm_ipc_reconnects_total")
		table.wantMetric(0, "llm_engine_restarts_total")
	})
}

// An outage whose requests are gone doesn't last until somebody asks again.
func TestOutageEndsWithoutTheRequestsThatWaited(t *testing.T) {
	for name, leavesFirst := range map[string]bool{"they left before the next engine": true, "they left after it came": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
				f := table.attach(LastExit{})
				a := table.admit(nil)
				table.lose(f)
				if leavesFirst {
					a.Settle(ClientGone)
				}
				time.Sleep(time.Second)
				f = table.attach(LastExit{})
				if !leavesFirst {
					time.Sleep(time.Second)
					a.Settle(ClientGone)
				}
				time.Sleep(time.Hour)
				b := table.admit(nil)
				table.serve(f, f.last(t), 1)
				b.Settle(Delivered)
				table.wantMetric(1, "llm_engine_recovery_seconds")
				if seconds := table.histogramSum("llm_engine_recovery_seconds"); seconds != 1 {
					t.Errorf("recovered after %v s, want 1", seconds)
				}
			})
		})
	}
}

// A refusal isn't a token: the pause goes on until the load that was refused has memory.
func TestOutageEndsWithATokenAndNotWithARefusal(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		table.lose(f)
		f = table.attach(killedBy(syscall.SIGKILL))
		table.refuseForMemory(f, f.last(t))
		time.Sleep(20 * time.Second)
		table.wantMetric(0, "llm_engine_recovery_seconds")
		table.serve(f, table.nextSubmission(f, len(f.infers)-1, time.Second), 1)
		table.wantAnswer(a, "a", "", true)
		a.Settle(Delivered)
		table.wantMetric(1, "llm_engine_recovery_seconds")
		if seconds := table.histogramSum("llm_engine_recovery_seconds"); seconds < 20 {
			t.Errorf("recovered after %v s, want 20", seconds)
		}
	})
}

// An engine lists its models before it has loaded any.
func TestOutageOfAnIdleServerEndsWhenTheDefaultModelIsThere(t *testing.T) {
	for name, comeBack := range map[string]func(*tableTest, *fakeEngine){
		"it is loading": func(table *tableTest, f *fakeEngine) {
			c := demoCatalog()
			c.Loaded = []Loaded{{Model: "demo", Version: "v1.0", Loading: true}}
			table.Catalog(f, c)
			time.Sleep(time.Minute)
			table.reportLoad(f, "v1.0", true)
		},
		"its memory comes late": func(table *tableTest, f *fakeEngine) {
			c := demoCatalog()
			c.Loaded = []Loaded{{Model: "demo", Version: "v1.0", Loading: true}}
			table.Catalog(f, c)
			table.Event(f, ModelEvent{Kind: EventLoadFailed, Model: "demo", Version: "v1.0", Reason: "out_of_memory"})
			time.Sleep(time.Minute)
			table.reportLoad(f, "v1.0", true)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
				table.lose(table.attach(LastExit{}))
				f := &fakeEngine{}
				table.Attached(f, Hello{Instance: 2, Device: "cpu", LastExit: killedBy(syscall.SIGKILL)})
				comeBack(table, f)
				table.wantMetric(1, "llm_engine_recovery_seconds")
				if seconds := table.histogramSum("llm_engine_recovery_seconds"); seconds != 60 {
					t.Errorf("recovered after %v s, want 60", seconds)
				}
			})
		})
	}
}

// The trace of a request names each engine that was lost; a load that is tried again isn't one.
func TestPiecesTellOfLostEngines(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		one, many := table.admit(nil), table.admit(withChoices(3))
		start := time.Now()
		f := table.attach(LastExit{})
		time.Sleep(time.Second)
		table.lose(f)
		f = table.attach(LastExit{})
		for _, s := range f.infers {
			table.refuseForMemory(f, s)
		}
		table.nextSubmission(f, 2*len(f.infers)-1, 2*time.Second)
		table.lose(f)
		end := time.Now()
		for _, a := range []Answer{one, many} {
			r := a.Take(nil).Requeues
			if len(r) != 2 || r[0].At.Sub(start) != time.Second || !r[1].At.Equal(end) {
				t.Errorf("requeued %+v", r)
			}
			if again := a.Take(nil).Requeues; len(again) > 0 {
				t.Errorf("requeued again: %+v", again)
			}
			a.Settle(ClientGone)
		}
	})
}
