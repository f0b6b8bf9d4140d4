package inflight

import (
	"fmt"
	"syscall"
	"testing"
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
