package inflight

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tandem/proxy/api"
)

func TestPoisonRequestIsQuarantined(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		answers := map[string]Answer{}
		for i := range 8 {
			text := fmt.Sprint("prompt ", i)
			if i == 3 {
				text = "poison"
			}
			answers[text] = table.admit(withPrompt(text))
		}
		crashes, exit := 0, LastExit{}
		for alive := false; !alive; {
			f := table.attach(exit)
			alive = true
			for i := 0; i < len(f.infers) && alive; i++ {
				if f.byPrompt("poison") == nil {
					table.serve(f, f.infers[i], 2)
					continue
				}
				table.lose(f) // before any request got a token, so that most get a strike
				exit, alive = killedBy(syscall.SIGABRT), false
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
		table.wantMetric(1, "llm_requests_quarantined_total")
		table.wantMetric(1, "llm_requests_replayed_total", "result=quarantined")
		if _, err := table.Admit(t.Context(), newRequest(withPrompt("poison"))); err == nil || err.Type != api.TypeQuarantined {
			t.Errorf("the same request again: %v", err)
		}
		time.Sleep(11 * time.Minute)
		table.admit(withPrompt("poison")).Settle(ClientGone)
	})
}

func TestKillsFromOutsideGiveNoStrikes(t *testing.T) {
	for _, exit := range []LastExit{killedBy(syscall.SIGKILL), killedBy(syscall.SIGTERM), {Kind: ExitStall}, {Kind: ExitUpgrade}, {}} {
		t.Run(fmt.Sprint(exit.Kind, exit.Signal), func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
				a := table.admit(nil)
				for range 20 {
					f := table.attach(exit)
					table.sendAccepted(f, f.last(t))
					table.lose(f)
				}
				f := table.attach(exit)
				table.serve(f, f.last(t), 3)
				table.wantAnswer(a, "abc", "", true)
				a.Settle(Delivered)
				if table.Status().CrashLoop {
					t.Error("kills from outside count as a crash loop")
				}
				table.wantMetric(0, "llm_requests_quarantined_total")
			})
		})
	}
}

func TestTokenClearsStrikes(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		a := table.admit(nil)
		for i := range 12 { // two crashes without a token, then one with
			f := table.attach(killedBy(syscall.SIGSEGV))
			s := f.last(t)
			table.sendAccepted(f, s)
			if i%3 == 2 {
				table.sendToken(f, s, len(s.Generated))
			}
			table.lose(f)
		}
		f := table.attach(killedBy(syscall.SIGSEGV))
		table.serve(f, f.last(t), 6)
		table.wantAnswer(a, "abcdef", "", true)
		a.Settle(Delivered)
		table.wantMetric(0, "llm_requests_quarantined_total")
		table.wantMetric(6, "tokens_generated_total")
	})
}

func TestSuspectsAreSentAlone(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		answers := []Answer{table.admit(nil), table.admit(nil), table.admit(nil)}
		for _, exit := range []LastExit{{}, killedBy(syscall.SIGSEGV)} {
			table.lose(table.attach(exit))
		}
		f := table.attach(killedBy(syscall.SIGSEGV))
		for i := range answers {
			if len(f.infers) != i+1 {
				t.Fatalf("%d are at the engine, want one suspect after the other", len(f.infers))
			}
			answers = append(answers, table.admit(nil)) // new ones wait behind them
			if len(f.infers) != i+1 {
				t.Fatal("a new request went beside a suspect")
			}
			table.sendAccepted(f, f.infers[i])
			table.sendToken(f, f.infers[i], 0)
		}
		if len(f.infers) != len(answers) {
			t.Errorf("%d of %d are at the engine after the suspects were cleared", len(f.infers), len(answers))
		}
		for _, a := range answers {
			a.Settle(ClientGone)
		}
	})
}

// One that kills each engine after a token of its own is never a candidate. Nobody else is refused for it.
func TestInnocentIsNotBlamedForOneThatDiesInMidAnswer(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		answers := []Answer{table.admit(withPrompt("culprit")), table.admit(withPrompt("innocent"))}
		exit := LastExit{}
		for range 10 {
			f := table.attach(exit)
			if s := f.last(t); s.Prompt == "innocent" && len(f.infers) == 1 { // alone, and so it gets its token
				table.sendAccepted(f, s)
				table.sendToken(f, s, len(s.Generated))
			}
			s := f.byPrompt("culprit")
			table.sendAccepted(f, s)
			table.sendToken(f, s, len(s.Generated)) // and dies at the next one, in the other's prefill
			table.lose(f)
			exit = killedBy(syscall.SIGSEGV)
		}
		table.wantMetric(0, "llm_requests_quarantined_total")
		for _, a := range answers {
			if p := a.Take(nil); p.Err != nil {
				t.Errorf("ended with %v", p.Err)
			}
			a.Settle(ClientGone)
		}
	})
}

// A poison is found after a few crashes, although there is always something else at the engine.
func TestPoisonIsFoundBesideStreams(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		others := []Answer{table.admit(withPrompt("first"))}
		poison := table.admit(withPrompt("poison"))
		exit, crashes := LastExit{}, 0
		for alive := false; !alive; {
			others = append(others, table.admit(withPrompt(fmt.Sprint("while no engine was there: ", crashes))))
			f := table.attach(exit)
			table.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 32}}})
			others = append(others, table.admit(withPrompt(fmt.Sprint("to an engine: ", crashes))))
			alive = true
			for i := 0; i < len(f.infers) && alive; i++ {
				table.sendAccepted(f, f.infers[i])
				if f.infers[i].Prompt != "poison" {
					table.sendToken(f, f.infers[i], len(f.infers[i].Generated))
					continue
				}
				table.lose(f)
				exit, alive = killedBy(syscall.SIGSEGV), false
				if crashes++; crashes > 4 {
					t.Fatal("the poison wasn't found within four crashes")
				}
			}
		}
		table.wantAnswer(poison, "", api.TypeQuarantined, true)
		poison.Settle(Failed)
		for _, a := range others {
			if p := a.Take(nil); p.Err != nil || p.Tokens == 0 {
				t.Errorf("another one has %d tokens, error %v", p.Tokens, p.Err)
			}
			a.Settle(ClientGone)
		}
	})
}

// A call may have killed the engine as well: none begins while a suspect is alone, and with one under way it isn't.
func TestCallsAreNotMadeBesideALoneSuspect(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		a, other := table.admit(withPrompt("suspect")), table.admit(withPrompt("other"))
		calls := 0
		call := func() {
			go func() {
				if _, err := table.Tokenize(t.Context(), ModelCall{}, "four", false); err == nil {
					table.mu.Lock()
					calls++
					table.mu.Unlock()
				}
			}()
			synctest.Wait()
		}
		f := table.attach(LastExit{})
		table.sendAccepted(f, f.byPrompt("other"))
		table.sendToken(f, f.byPrompt("other"), 0)
		table.lose(f)
		f = table.attach(killedBy(syscall.SIGSEGV))
		table.sendAccepted(f, f.byPrompt("other"))
		table.sendToken(f, f.byPrompt("other"), 1)
		table.lose(f)

		gate := make(chan struct{})
		f = table.attachEngine(&fakeEngine{callGate: gate, callError: errors.New("engine is disconnected")}, killedBy(syscall.SIGSEGV))
		call()
		table.serve(f, f.byPrompt("other"), 3)
		if f.last(t).Prompt != "suspect" {
			t.Fatal("the suspect wasn't sent")
		}
		table.lose(f)
		close(gate)
		synctest.Wait()
		f = table.attach(killedBy(syscall.SIGSEGV)) // the call or the suspect
		call()
		synctest.Wait()
		if f.last(t).Prompt != "suspect" || calls != 0 {
			t.Errorf("%d calls were made beside the suspect", calls)
		}
		table.serve(f, f.last(t), 1)
		synctest.Wait()
		if calls != 2 {
			t.Errorf("%d calls were made after its first token, want 2", calls)
		}
		table.wantAnswer(a, "a", "", true)
		table.wantMetric(0, "llm_requests_quarantined_total")
		a.Settle(Delivered)
		other.Settle(Delivered)
	})
}
