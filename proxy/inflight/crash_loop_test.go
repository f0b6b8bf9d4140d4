package inflight

import (
	"syscall"
	"testing"
	"time"
)

func TestCrashLoop(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	tests := []struct {
		name   string
		deaths []int // seconds
		asked  int
		want   bool
	}{
		{"four", []int{0, 1, 2, 3}, 4, false},
		{"five", []int{0, 1, 2, 3, 4}, 4, true},
		{"five, a minute after the first", []int{0, 1, 2, 3, 4}, 60, false},
		{"five over a longer time", []int{0, 20, 40, 60, 80}, 80, false},
		{"the newest five count", []int{0, 50, 100, 101, 102, 103, 104}, 105, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var c crashLoop
			for _, d := range tt.deaths {
				c.recordDeath(at(d))
			}
			if got := c.isActive(at(tt.asked)); got != tt.want {
				t.Errorf("on: %v", got)
			}
			c.reset()
			if c.isActive(at(tt.asked)) {
				t.Error("still a loop after progress")
			}
		})
	}
}

func TestCrashLoopFailsWaitingRequests(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		var answers []Answer
		for i := range crashLoopDeaths {
			if table.Status().CrashLoop {
				t.Fatalf("%d deaths are a crash loop", i)
			}
			answers = append(answers, table.admit(nil))
			time.Sleep(time.Second)
			f := &fakeEngine{} // dies before it can serve anything
			table.instance++
			table.Attached(f, Hello{Instance: table.instance, LastExit: LastExit{Kind: ExitCode, Code: 1}})
			table.lose(f)
		}
		if !table.Status().CrashLoop { // its supervisor gives up, so no engine will report the fifth
			t.Fatal("five deaths in five seconds aren't a crash loop")
		}
		for _, a := range answers {
			if p := a.Take(nil); !p.Done || p.Err == nil || p.Err.Status() != 503 {
				t.Errorf("held: %+v", p)
			}
			a.Settle(Failed)
		}
		time.Sleep(time.Minute)
		if table.Status().CrashLoop {
			t.Error("still a crash loop after a quiet minute")
		}
	})
}

// Engines that refuse a request before they die give no token: the supervisor, which counts tokens, gives up, too.
func TestRefusalsDoNotEndACrashLoop(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		for range crashLoopDeaths {
			f := table.attach(killedBy(syscall.SIGSEGV))
			a := table.admit(nil)
			s := f.last(t)
			table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishError, Failure: Failure{Code: "invalid_request", Text: "no"}}}})
			a.Settle(Failed)
			table.lose(f)
		}
		if !table.Status().CrashLoop {
			t.Error("five deaths at once, without a token, aren't a crash loop")
		}
	})
}
