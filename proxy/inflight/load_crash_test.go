package inflight

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"tandem/proxy/api"
)

func TestModelThatCrashesEnginesInItsLoadIsQuarantined(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		big := func(r *Request) { r.Infer.Model = "big" }
		bad, good := table.admit(big), table.admit(nil)
		crash := killedBy(syscall.SIGABRT)
		crash.Loads = []Load{{"big", "base"}}
		f := table.attach(LastExit{})
		table.lose(f)
		f = table.attach(crash)
		if n := len(f.infers); n != 1 || f.infers[0].Model != "demo" {
			t.Fatalf("other models go first, %d were sent", n)
		}
		table.serve(f, f.last(t), 1)
		if f.last(t).Model != "big" {
			t.Fatal("and then the one that killed the engine")
		}
		table.lose(f)
		table.attach(crash)
		table.wantAnswer(bad, "", api.TypeModelLoadFailed, true)
		table.wantAnswer(good, "a", "", true)
		bad.Settle(Failed)
		good.Settle(Delivered)
		table.wantMetric(2, "model_load_failures_total", "model=big", "reason=engine_crash")
		table.wantMetric(0, "llm_requests_quarantined_total")
		if _, err := table.Admit(t.Context(), newRequest(big)); err == nil || err.Type != api.TypeModelLoadFailed || err.Status() != 503 {
			t.Errorf("the model again: %v", err)
		}
		time.Sleep(9*time.Minute + 30*time.Second)
		if _, err := table.Admit(t.Context(), newRequest(big)); err == nil || err.RetryAfterSeconds() != 30 {
			t.Errorf("half a minute before the end: %v, to be tried again after %d s", err, err.RetryAfterSeconds())
		}
		time.Sleep(90 * time.Second)
		table.admit(big).Settle(ClientGone)
	})
}

func TestCrashingLoadIsFoundAmongSeveral(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		bad, good, big := table.admit(withVersion("v2.0")), table.admit(withVersion("v1.0")), table.admit(func(r *Request) { r.Infer.Model = "big" })
		crash := killedBy(syscall.SIGABRT)
		crash.Loads = []Load{{"demo", "v1.0"}, {"demo", "v2.0"}, {"big", "base"}}
		f := table.attach(LastExit{})
		if n := len(f.infers); n != 3 {
			t.Fatalf("%d were sent to a new engine", n)
		}
		table.lose(f)
		f = table.attach(crash)
		for len(f.infers) > 0 && f.last(t).Version != "v2.0" { // in whatever order they come
			n := len(f.infers)
			table.serve(f, f.last(t), 1)
			time.Sleep(time.Second)
			if len(f.infers) > n+1 {
				t.Fatalf("%d loads that may kill were begun at a time", len(f.infers)-n)
			}
		}
		if f.last(t).Version != "v2.0" {
			t.Fatal("one of the three was never tried")
		}
		table.lose(f)
		crash.Loads = []Load{{"demo", "v2.0"}}
		f = table.attach(crash)
		table.wantAnswer(bad, "", api.TypeModelLoadFailed, true)
		for i := 0; i < len(f.infers); i++ { // those that weren't sent before
			table.serve(f, f.infers[i], 1)
			time.Sleep(time.Second)
		}
		table.wantAnswer(good, "a", "", true)
		table.wantAnswer(big, "a", "", true)
		for _, a := range []Answer{bad, good, big} {
			a.Settle(Delivered)
		}
		table.wantMetric(0, "llm_requests_quarantined_total")
	})
}

func TestCrashAfterALoadIsAttributedToTheRequest(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		crash := killedBy(syscall.SIGABRT)
		crash.Loads = []Load{{"demo", "v1.0"}} // the supervisor's list is a moment old
		a := table.admit(withPrompt("poison"))
		exit := LastExit{}
		for range quarantineAfterStrikes {
			f := table.attach(exit)
			table.Event(f, ModelEvent{Kind: EventLoaded, Model: "demo", Version: "v1.0"})
			table.sendAccepted(f, f.byPrompt("poison"))
			table.lose(f)
			exit = crash
		}
		table.attach(exit)
		table.wantAnswer(a, "", api.TypeQuarantined, true)
		a.Settle(Failed)
		table.wantMetric(1, "llm_requests_quarantined_total")
		table.wantMetric(0, "model_load_failures_total", "model=demo", "reason=engine_crash")
	})
}

// A request may crash the engine while another version loads, and before its own load was reported.
func TestCrashDuringAnotherLoadIsAttributedToTheRequest(t *testing.T) {
	for name, loadedSaid := range map[string]bool{"its own load was over": true, "nothing was said of it": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
				crash := killedBy(syscall.SIGABRT)
				crash.Loads = []Load{{"demo", "v2.0"}}
				// the older one, so that it goes first where nothing is suspected
				innocent := table.admit(withPromptAndVersion("innocent", "v2.0"))
				poison := table.admit(withPromptAndVersion("poison", "v1.0"))
				f := table.attach(LastExit{})
				if loadedSaid {
					table.reportLoad(f, "v1.0", true)
				}
				table.reportLoad(f, "v2.0", false)
				table.lose(f)
				f = table.attach(crash)
				if f.byPrompt("innocent") != nil || f.byPrompt("poison") == nil {
					t.Fatal("the load that may have killed the engine isn't held back until the others have their tokens")
				}
				table.reportLoad(f, "v1.0", true)
				table.lose(f)
				f = table.attach(killedBy(syscall.SIGABRT)) // no load was under way
				table.reportLoad(f, "v2.0", true)
				table.serve(f, f.byPrompt("innocent"), 2)
				table.wantAnswer(innocent, "ab", "", true)
				if f.last(t).Prompt != "poison" {
					t.Fatal("the suspect doesn't go when the other one has its token")
				}
				table.lose(f) // while the other one is there, too
				f = table.attach(killedBy(syscall.SIGABRT))
				if f.last(t).Prompt != "poison" {
					t.Fatal("the suspect isn't sent to an engine without anything else")
				}
				table.lose(f)
				table.attach(killedBy(syscall.SIGABRT))
				table.wantAnswer(poison, "", api.TypeQuarantined, true)
				poison.Settle(Failed)
				innocent.Settle(Delivered)
				table.wantMetric(0, "model_load_failures_total", "model=demo", "reason=engine_crash")
			})
		})
	}
}

// A load that the engine begins by itself, at its start, crashes it whatever else is there.
func TestCrashingLoadAtEngineStartIsFound(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		exit := LastExit{}
		attach := func() *fakeEngine {
			table.instance++
			f := &fakeEngine{}
			table.Attached(f, Hello{Instance: table.instance, LastExit: exit})
			c := demoCatalog()
			c.Loaded = []Loaded{{Model: "demo", Version: "v2.0", Loading: true}}
			table.Catalog(f, c)
			exit = killedBy(syscall.SIGABRT)
			exit.Loads = []Load{{"demo", "v2.0"}}
			return f
		}
		a := table.admit(withPromptAndVersion("innocent", "v1.0"))
		for range suspectAfterStrikes { // the request or the load may have caused it
			f := attach()
			table.sendAccepted(f, f.byPrompt("innocent"))
			table.lose(f)
		}
		f := attach()
		if len(f.infers) != 0 {
			t.Fatal("a suspect goes beside a load")
		}
		table.lose(f)
		f = attach()
		table.wantMetric(3, "model_load_failures_total", "model=demo", "reason=engine_crash")
		table.reportLoad(f, "v2.0", true)
		table.serve(f, f.last(t), 2)
		table.wantAnswer(a, "ab", "", true)
		a.Settle(Delivered)
		table.wantMetric(0, "llm_requests_quarantined_total")
	})
}

// Steady traffic neither waits for a load that may crash the engine nor hides it.
func TestCrashingLoadUnderTrafficIsFound(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		bad := table.admit(withPromptAndVersion("bad", "v2.0"))
		exit, crash := LastExit{}, killedBy(syscall.SIGABRT)
		crash.Loads = []Load{{"demo", "v2.0"}}
		var others []Answer
		for i := range quarantineAfterLoadCrashes {
			f := table.attach(exit)
			table.reportLoad(f, "v1.0", true)
			for f.byPrompt("bad") == nil { // the others first
				table.serve(f, f.last(t), 1)
			}
			table.reportLoad(f, "v2.0", false)
			others = append(others, table.admit(withPromptAndVersion(fmt.Sprint("other ", i), "v1.0")))
			if f.last(t).Version != "v1.0" {
				t.Fatal("a load stops all others")
			}
			table.lose(f)
			exit = crash
		}
		f := table.attach(exit)
		table.wantAnswer(bad, "", api.TypeModelLoadFailed, true)
		bad.Settle(Failed)
		table.serve(f, f.last(t), 1)
		for _, a := range others {
			table.wantAnswer(a, "a", "", true)
			a.Settle(Delivered)
		}
		table.wantMetric(2, "model_load_failures_total", "model=demo", "reason=engine_crash")
	})
}

// While one request after the other is before its first token, a load that waits for that would never begin.
func TestSuspectLoadHasItsTurnUnderTraffic(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		bad := table.admit(withPromptAndVersion("bad", "v2.0"))
		table.lose(table.attach(LastExit{}))
		crash := killedBy(syscall.SIGABRT)
		crash.Loads = []Load{{"demo", "v2.0"}}
		others := []Answer{table.admit(withPromptAndVersion("other", "v1.0"))}
		f := table.attach(LastExit{})
		table.lose(f) // has both
		f = table.attach(crash)
		if f.byPrompt("other") == nil || f.byPrompt("bad") != nil {
			t.Fatal("the load that may have killed the engine isn't held back")
		}
		for range 3 {
			s := f.last(t) // before its first token, when the next one comes
			others = append(others, table.admit(func(r *Request) { r.Infer.Model = "big" }))
			table.serve(f, s, 1)
			time.Sleep(time.Second)
		}
		if f.byPrompt("bad") == nil {
			t.Error("the load never begins")
		}
		for _, a := range append(others, bad) {
			a.Settle(ClientGone)
		}
	})
}

func TestTwoSuspectLoadsDoNotWaitForEachOther(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		one, two := table.admit(withPromptAndVersion("one", "v1.0")), table.admit(withPromptAndVersion("two", "v2.0"))
		exit := LastExit{}
		for _, v := range []string{"v1.0", "v2.0"} {
			f := table.attach(exit)
			table.reportLoad(f, v, false)
			table.lose(f)
			exit = killedBy(syscall.SIGABRT)
			exit.Loads = []Load{{"demo", v}}
		}
		f := table.attach(exit)
		for range 2 {
			s := f.last(t)
			table.reportLoad(f, s.Version, true)
			table.serve(f, s, 1)
		}
		for _, a := range []Answer{one, two} {
			table.wantAnswer(a, "a", "", true)
			a.Settle(Delivered)
		}
	})
}
