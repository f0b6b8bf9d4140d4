package inflight

import (
	"testing"
	"testing/synctest"
	"time"

	"tandem/proxy/api"
)

func TestHandOver(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		s := f.last(t)
		table.sendAccepted(f, s)
		table.sendToken(f, s, 0)
		g := table.attach(LastExit{Kind: ExitUpgrade})
		other := table.admit(withPrompt("new"))
		if len(g.infers) != 1 || f.last(t) != s {
			t.Error("new work doesn't go to the newest engine")
		}
		table.Draining(f, time.Minute, false)
		if !f.move || f.drained {
			t.Fatalf("asked to move: %v, to go: %v", f.move, f.drained)
		}
		table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishMoved}}})
		table.Moved(f)
		if !f.drained {
			t.Error("the old engine isn't told to go")
		}
		moved := g.last(t)
		if moved.ID != s.ID || moved.Attempt != 1 || len(moved.Generated) != 1 {
			t.Fatalf("the request didn't move: %+v", moved)
		}
		table.lose(f)
		table.wantMetric(1, "llm_engine_up")
		table.serve(g, moved, 3)
		table.wantAnswer(a, "abc", "", true)
		a.Settle(Delivered)
		other.Settle(ClientGone)
		table.wantMetric(0, "llm_requests_quarantined_total")
		table.wantMetric(1, "llm_engine_restarts_total", "reason=upgrade")
	})
}

// The engine that comes may not have a model that the leaving one has: that one finishes the model's answers.
func TestAnswersThatNoOtherEngineTakesArentMoved(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		table.Catalog(f, catalogOf("a", "b"))
		var answers []Answer
		for _, model := range []string{"a", "b"} {
			answers = append(answers, table.admit(func(r *Request) { r.Infer.Model = model }))
			table.sendAccepted(f, f.last(t))
			table.sendToken(f, f.last(t), 0)
		}
		g := table.attach(LastExit{Kind: ExitUpgrade})
		table.Catalog(g, catalogOf("a"))
		table.Draining(f, time.Minute, false)
		if f.move {
			t.Error("asked to give back an answer that nobody takes")
		}
		table.sendToken(f, f.infers[1], 1)
		table.sendStop(f, f.infers[1], 2)
		if !f.move {
			t.Error("not asked to give back the rest")
		}
		table.Moved(f)
		table.serve(g, g.last(t), 2)
		for _, a := range answers {
			table.wantAnswer(a, "ab", "", true)
			a.Settle(Delivered)
		}
	})
}

func TestDrainBeforeTheNextEngineLosesNothing(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		table.Draining(f, time.Minute, false)
		other := table.admit(nil) // or it would never end
		time.Sleep(time.Minute)
		if f.move || f.drained || len(f.infers) != 1 {
			t.Fatalf("move %v, drained %v, %d requests", f.move, f.drained, len(f.infers))
		}
		if s := table.Status(); !s.EngineUp || s.EngineAwayFor != time.Minute {
			t.Errorf("up %v, nobody takes new requests for %s", s.EngineUp, s.EngineAwayFor)
		}
		table.serve(f, f.infers[0], 1)
		if !f.drained {
			t.Error("not told to go after the last answer")
		}
		third := table.admit(nil) // too late for it
		table.lose(f)
		time.Sleep(9 * time.Second)
		g := table.attach(LastExit{Kind: ExitUpgrade})
		if len(f.infers) != 1 || len(g.infers) != 2 || table.Status().EngineAwayFor != 0 {
			t.Fatalf("%d requests at the old engine, %d at the next one", len(f.infers), len(g.infers))
		}
		for _, s := range g.infers {
			table.serve(g, s, 1)
		}
		for _, x := range []Answer{a, other, third} {
			table.wantAnswer(x, "a", "", true)
			x.Settle(Delivered)
		}
		table.wantMetric(3, "successful_inferences_total")
	})
}

func TestRequestsTimeOutWhenNoEngineFollowsADrain(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		table.Draining(f, time.Minute, false)
		if !f.drained {
			t.Fatal("an idle engine may go at once")
		}
		a := table.admit(nil)
		time.Sleep(time.Minute)
		table.wantAnswer(a, "", "", false)
		table.lose(f)
		time.Sleep(11 * time.Second)
		table.wantAnswer(a, "", api.TypeEngineUnavailable, true)
		a.Settle(Failed)
	})
}

func TestDrainingEngineGetsWaitingRequestsWhileTheProxyDrains(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		table.Draining(f, time.Minute, false)
		other := table.admit(nil)
		table.Drain()
		if len(f.infers) != 2 {
			t.Fatalf("%d requests at the engine", len(f.infers))
		}
		for _, s := range f.infers {
			if f.drained {
				t.Error("told to go too early")
			}
			table.serve(f, s, 1)
		}
		for _, x := range []Answer{a, other} {
			table.wantAnswer(x, "a", "", true)
			x.Settle(Delivered)
		}
		if !f.drained {
			t.Error("not told to go after the last answer")
		}
	})
}

func TestProxyDrains(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		table.Drain()
		if _, err := table.Admit(t.Context(), newRequest(nil)); err == nil || err.Type != api.TypeDraining {
			t.Errorf("admitted while draining: %v", err)
		}
		table.Draining(f, time.Minute, true)
		if f.move || f.drained {
			t.Error("an engine must keep what it has while the proxy drains")
		}
		table.serve(f, f.last(t), 1)
		table.wantAnswer(a, "a", "", true)
		a.Settle(Delivered)
		if !f.drained {
			t.Error("the engine wasn't told that nothing is left")
		}
		table.wantMetric(1, "llm_draining")
		if s := table.Status(); !s.Draining {
			t.Error("status doesn't say so")
		}
	})
}

func TestShutdownAnswersRemainingRequests(t *testing.T) {
	table := newTableTest(t, Options{})
	f := table.attach(LastExit{})
	a := table.admit(nil)
	table.shutdown()
	table.wantAnswer(a, "", api.TypeDraining, true)
	if len(f.cancels) != 1 {
		t.Error("the engine still works")
	}
	a.Settle(Failed)
	if !table.isIdle() {
		t.Error("not idle after the last one was settled")
	}
}

// An engine that nobody replaces answers its calls before it goes; another one would be asked again.
func TestDrainingEngineFinishesItsCalls(t *testing.T) {
	for name, replaced := range map[string]bool{"nobody takes its place": false, "another one is there": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
				gate := make(chan struct{})
				f := table.attachEngine(&fakeEngine{callGate: gate}, LastExit{})
				done := make(chan *api.Error, 1)
				go func() {
					_, err := table.Tokenize(t.Context(), ModelCall{}, "four", false)
					done <- err
				}()
				synctest.Wait()
				if replaced {
					table.attach(LastExit{})
				}
				table.Draining(f, time.Minute, false)
				if f.drained != replaced {
					t.Errorf("told to go in mid-call: %v", f.drained)
				}
				close(gate)
				if err := <-done; err != nil || !f.drained {
					t.Errorf("error %v, told to go after its last call: %v", err, f.drained)
				}
			})
		})
	}
}
