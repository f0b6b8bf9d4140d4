package inflight

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"tandem/proxy/api"
)

func TestModelThatKillsEnginesWhileItLoads(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		big := func(r *Request) { r.Infer.Model = "big" }
		bad, good := b.admit(big), b.admit(nil)
		died := signalled(syscall.SIGABRT)
		died.Loads = []Load{{"big", "base"}}
		f := b.attach(LastExit{})
		b.lose(f)
		f = b.attach(died)
		if n := len(f.infers); n != 1 || f.infers[0].Model != "demo" {
			t.Fatalf("other models go first, %d were sent", n)
		}
		b.serve(f, f.last(t), 1)
		if f.last(t).Model != "big" {
			t.Fatal("and then the one that killed the engine")
		}
		b.lose(f)
		b.attach(died)
		b.want(bad, "", api.TypeModelLoadFailed, true)
		b.want(good, "a", "", true)
		bad.Settle(Failed)
		good.Settle(Delivered)
		b.wantValue(2, "model_load_failures_total", "model=big", "reason=engine_crash")
		b.wantValue(0, "llm_requests_quarantined_total")
		if _, err := b.Admit(t.Context(), infer(big)); err == nil || err.Type != api.TypeModelLoadFailed || err.Status() != 503 {
			t.Errorf("the model again: %v", err)
		}
		time.Sleep(9*time.Minute + 30*time.Second)
		if _, err := b.Admit(t.Context(), infer(big)); err == nil || err.RetryAfterSeconds() != 30 {
			t.Errorf("half a minute before the end: %v, to be tried again after %d s", err, err.RetryAfterSeconds())
		}
		time.Sleep(90 * time.Second)
		b.admit(big).Settle(ClientGone)
	})
}

// version asks for one of the default model.
func version(v string) func(*Request) { return func(r *Request) { r.Infer.Version = v } }

func TestOfSeveralLoadsTheOneThatKillsIsFound(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		bad, good, big := b.admit(version("v2.0")), b.admit(version("v1.0")), b.admit(func(r *Request) { r.Infer.Model = "big" })
		died := signalled(syscall.SIGABRT)
		died.Loads = []Load{{"demo", "v1.0"}, {"demo", "v2.0"}, {"big", "base"}}
		f := b.attach(LastExit{})
		if n := len(f.infers); n != 3 {
			t.Fatalf("%d were sent to a new engine", n)
		}
		b.lose(f)
		f = b.attach(died)
		for len(f.infers) > 0 && f.last(t).Version != "v2.0" { // in whatever order they come
			n := len(f.infers)
			b.serve(f, f.last(t), 1)
			time.Sleep(time.Second)
			if len(f.infers) > n+1 {
				t.Fatalf("%d loads that may kill were begun at a time", len(f.infers)-n)
			}
		}
		if f.last(t).Version != "v2.0" {
			t.Fatal("one of the three was never tried")
		}
		b.lose(f)
		died.Loads = []Load{{"demo", "v2.0"}}
		f = b.attach(died)
		b.want(bad, "", api.TypeModelLoadFailed, true)
		for i := 0; i < len(f.infers); i++ { // those that hadn't had their turn before
			b.serve(f, f.infers[i], 1)
			time.Sleep(time.Second)
		}
		b.want(good, "a", "", true)
		b.want(big, "a", "", true)
		for _, a := range []Answer{bad, good, big} {
			a.Settle(Delivered)
		}
		b.wantValue(0, "llm_requests_quarantined_total")
	})
}

func TestDeathJustAfterALoadIsTheRequests(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		died := signalled(syscall.SIGABRT)
		died.Loads = []Load{{"demo", "v1.0"}} // the supervisor's word is a moment old
		a := b.admit(prompt("poison"))
		exit := LastExit{}
		for range quarantineAt {
			f := b.attach(exit)
			b.Event(f, ModelEvent{Kind: EventLoaded, Model: "demo", Version: "v1.0"})
			b.accept(f, f.byPrompt("poison"))
			b.lose(f)
			exit = died
		}
		b.attach(exit)
		b.want(a, "", api.TypeQuarantined, true)
		a.Settle(Failed)
		b.wantValue(1, "llm_requests_quarantined_total")
		b.wantValue(0, "model_load_failures_total", "model=demo", "reason=engine_crash")
	})
}

// load says that the engine loads a version of the demo model, and with ends, that it has.
func (b *bench) load(f *fakeEngine, version string, ends bool) {
	b.Event(f, ModelEvent{Kind: EventLoading, Model: "demo", Version: version})
	if ends {
		b.Event(f, ModelEvent{Kind: EventLoaded, Model: "demo", Version: version})
	}
}

func promptOf(text, version string) func(*Request) {
	return func(r *Request) { r.Infer = &api.Request{Prompt: text, Version: version} }
}

// A request may kill the engine while another version loads, before a word about its own load came.
func TestDeathBesideALoadIsTheRequests(t *testing.T) {
	for name, loadedSaid := range map[string]bool{"its own load was over": true, "nothing was said of it": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, b *bench) {
				died := signalled(syscall.SIGABRT)
				died.Loads = []Load{{"demo", "v2.0"}}
				innocent := b.admit(promptOf("innocent", "v2.0")) // the older one, so that it goes first where nothing speaks against it
				poison := b.admit(promptOf("poison", "v1.0"))
				f := b.attach(LastExit{})
				if loadedSaid {
					b.load(f, "v1.0", true)
				}
				b.load(f, "v2.0", false)
				b.lose(f)
				f = b.attach(died)
				if f.byPrompt("innocent") != nil || f.byPrompt("poison") == nil {
					t.Fatal("the load that may have killed the engine isn't held back until the others have their tokens")
				}
				b.load(f, "v1.0", true)
				b.lose(f)
				f = b.attach(signalled(syscall.SIGABRT)) // no load was under way
				b.load(f, "v2.0", true)
				b.serve(f, f.byPrompt("innocent"), 2)
				b.want(innocent, "ab", "", true)
				if f.last(t).Prompt != "poison" {
					t.Fatal("the suspect doesn't go when it is alone")
				}
				b.lose(f)
				b.attach(signalled(syscall.SIGABRT))
				b.want(poison, "", api.TypeQuarantined, true)
				poison.Settle(Failed)
				innocent.Settle(Delivered)
				b.wantValue(0, "model_load_failures_total", "model=demo", "reason=engine_crash")
			})
		})
	}
}

// A load that the engine begins by itself, at its start, kills it beside whatever is there.
func TestLoadThatNobodyAskedForIsFound(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		exit := LastExit{}
		attach := func() *fakeEngine {
			b.instance++
			f := &fakeEngine{}
			b.Attached(f, Hello{Instance: b.instance, LastExit: exit})
			c := demoCatalog()
			c.Loaded = []Loaded{{Model: "demo", Version: "v2.0", Loading: true}}
			b.Catalog(f, c)
			exit = signalled(syscall.SIGABRT)
			exit.Loads = []Load{{"demo", "v2.0"}}
			return f
		}
		a := b.admit(promptOf("innocent", "v1.0"))
		for range suspectAt { // either may have done it
			f := attach()
			b.accept(f, f.byPrompt("innocent"))
			b.lose(f)
		}
		f := attach()
		if len(f.infers) != 0 {
			t.Fatal("a suspect goes beside a load")
		}
		b.lose(f)
		f = attach()
		b.wantValue(3, "model_load_failures_total", "model=demo", "reason=engine_crash")
		b.load(f, "v2.0", true)
		b.serve(f, f.last(t), 2)
		b.want(a, "ab", "", true)
		a.Settle(Delivered)
		b.wantValue(0, "llm_requests_quarantined_total")
	})
}

// Requests that come all the time neither wait for a load that may kill the engine nor hide it.
func TestLoadThatDiesUnderTrafficIsFound(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		bad := b.admit(promptOf("bad", "v2.0"))
		exit, died := LastExit{}, signalled(syscall.SIGABRT)
		died.Loads = []Load{{"demo", "v2.0"}}
		var others []Answer
		for i := range loadDeathsAt {
			f := b.attach(exit)
			b.load(f, "v1.0", true)
			for f.byPrompt("bad") == nil { // the others first
				b.serve(f, f.last(t), 1)
			}
			b.load(f, "v2.0", false)
			others = append(others, b.admit(promptOf(fmt.Sprint("other ", i), "v1.0")))
			if f.last(t).Version != "v1.0" {
				t.Fatal("a load stops all others")
			}
			b.lose(f)
			exit = died
		}
		f := b.attach(exit)
		b.want(bad, "", api.TypeModelLoadFailed, true)
		bad.Settle(Failed)
		b.serve(f, f.last(t), 1)
		for _, a := range others {
			b.want(a, "a", "", true)
			a.Settle(Delivered)
		}
		b.wantValue(2, "model_load_failures_total", "model=demo", "reason=engine_crash")
	})
}

func TestTwoLoadsUnderSuspicionDoNotWaitForEachOther(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, b *bench) {
		one, two := b.admit(promptOf("one", "v1.0")), b.admit(promptOf("two", "v2.0"))
		exit := LastExit{}
		for _, v := range []string{"v1.0", "v2.0"} {
			f := b.attach(exit)
			b.load(f, v, false)
			b.lose(f)
			exit = signalled(syscall.SIGABRT)
			exit.Loads = []Load{{"demo", v}}
		}
		f := b.attach(exit)
		for range 2 {
			s := f.last(t)
			b.load(f, s.Version, true)
			b.serve(f, s, 1)
		}
		for _, a := range []Answer{one, two} {
			b.want(a, "a", "", true)
			a.Settle(Delivered)
		}
	})
}
