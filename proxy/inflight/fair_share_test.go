package inflight

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/proxy/api"
)

// keyLoad is how many requests a second a key sends, at random times.
type keyLoad struct {
	key       string
	perSecond float64
	weight    float64
	as        string // the key by which the table knows it; "": its own
}

const (
	sharedFor       = 2 * time.Minute
	sharedSequences = 16
	sharedStep      = 40 * time.Millisecond // of any batch, as on a GPU that is not full
	sharedAsked     = 64
	// sharedCapacity is the requests a second that the engine can answer: 48 tokens on average, in 16 sequences.
	sharedCapacity = sharedSequences / (48 * 0.04)
)

// freeBatches has a step take as long whatever is in it.
func freeBatches(e *simulatedEngine) {
	e.stepBase, e.stepEach, e.stepPrompt = sharedStep, 0, 100*time.Microsecond
}

// share runs an engine under the loads of several keys and returns each key's requests.
func share(t *testing.T, timeout time.Duration, prepare func(*simulatedEngine), loads ...keyLoad) map[string][]*simulatedClient {
	clients := make(map[string][]*simulatedClient)
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		lengths := rand.New(rand.NewPCG(3, 3))
		engine := newSimulatedEngine(table, sharedSequences, func(*Submission) int { return sharedAsked/2 + lengths.IntN(sharedAsked/2+1) })
		prepare(engine)
		stop := engine.start()
		defer stop()
		start := time.Now()
		next := make([]time.Duration, len(loads))
		pauses := make([]*rand.Rand, len(loads))
		for i := range loads { // each key's requests come at the same times whoever else sends some
			pauses[i] = rand.New(rand.NewPCG(4, uint64(len(loads[i].key))))
		}
		for {
			i := 0
			for j := range next {
				if next[j] < next[i] {
					i = j
				}
			}
			if next[i] > sharedFor {
				break
			}
			time.Sleep(time.Until(start.Add(next[i]))) // fake time
			next[i] += time.Duration(pauses[i].ExpFloat64() / loads[i].perSecond * float64(time.Second))
			r := newRequest(nil)
			r.Key, r.Weight, r.Timeout = cmp.Or(loads[i].as, loads[i].key), loads[i].weight, timeout
			r.Infer = &api.Request{Prompt: strings.Repeat("word", 48), MaxNewTokens: new(sharedAsked)}
			clients[loads[i].key] = append(clients[loads[i].key], table.ask(t, r, 0))
		}
		for _, list := range clients {
			for _, c := range list {
				<-c.done
			}
		}
	})
	return clients
}

// p95 of the times of those that were answered, and how many were.
func p95(clients []*simulatedClient) (time.Duration, int) {
	var took []time.Duration
	for _, c := range clients {
		if c.err == nil {
			took = append(took, c.took)
		}
	}
	slices.Sort(took)
	return took[len(took)*95/100], len(took)
}

// A key that sends a tenth of what another one does is served nearly as if it were alone, although both together ask
// for more than the engine can do, where a full batch costs no more than a single request.
func TestSmallKeyBesideLargeOne(t *testing.T) {
	small := keyLoad{key: "small", perSecond: 0.12 * sharedCapacity}
	large := keyLoad{key: "large one", perSecond: 1.2 * sharedCapacity}
	alone, _ := p95(share(t, 20*time.Second, freeBatches, small)["small"])
	both := share(t, 20*time.Second, freeBatches, small, large)
	beside, answered := p95(both["small"])
	_, large95 := p95(both["large one"])
	t.Logf("p95 alone %v, beside the other %v; %d of %d answered; of the large one %d of %d", alone, beside, answered, len(both["small"]), large95, len(both["large one"]))
	if beside > alone*3/2 || answered != len(both["small"]) {
		t.Errorf("p95 %v beside the other, %v alone; %d of %d answered", beside, alone, answered, len(both["small"]))
	}
	if rest := 0.85 * sharedFor.Seconds() * (sharedCapacity - small.perSecond); float64(large95) < rest {
		t.Errorf("the large one got %d answers, want the rest of the capacity (%.0f)", large95, rest)
	}
}

// Where each sequence costs time, as on a CPU, a key's answers take longer beside others however the queue orders them.
// It still waits for its turn less than if all were one key.
func TestSmallKeyBesideLargeOneOnACPU(t *testing.T) {
	const capacity = 2.9 // requests a second, about
	cpu := func(*simulatedEngine) {}
	small := keyLoad{key: "small", perSecond: 0.12 * capacity}
	large := keyLoad{key: "large one", perSecond: 1.2 * capacity}
	alone, _ := p95(share(t, 20*time.Second, cpu, small)["small"])
	both := share(t, 20*time.Second, cpu, small, large)["small"]
	beside, answered := p95(both)
	small.as, large.as = "all", "all"
	oneKey, answeredOfOne := p95(share(t, 20*time.Second, cpu, small, large)["small"])
	t.Logf("p95 alone %v, beside the other %v, as one key %v; %d and %d of %d answered", alone, beside, oneKey, answered, answeredOfOne, len(both))
	if answered != len(both) || float64(beside) > 0.6*float64(oneKey) {
		t.Errorf("p95 %v beside the other, %v as one key; %d of %d answered", beside, oneKey, answered, len(both))
	}
}

// Keys that both ask for more than there is are served by their weights.
func TestSharesFollowWeights(t *testing.T) {
	both := share(t, 20*time.Second, freeBatches, keyLoad{key: "a", perSecond: 2 * sharedCapacity, weight: 3}, keyLoad{key: "bb", perSecond: 2 * sharedCapacity})
	_, a := p95(both["a"])
	_, b := p95(both["bb"])
	if ratio := float64(a) / float64(b); ratio < 2.6 || ratio > 3.4 {
		t.Errorf("%d and %d answers with weights 3 and 1", a, b)
	}
	if total := float64(a + b); total < 0.9*sharedFor.Seconds()*sharedCapacity {
		t.Errorf("%v answers in all, the engine can give %v", total, sharedFor.Seconds()*sharedCapacity)
	}
}

// closedLoop keeps so many clients of two keys busy for a minute, each with its next request when the last is answered,
// those of the small key after a pause. It returns how long the small key's answers took, how long these waited for a
// sequence on average, and the tokens a second of both keys.
func closedLoop(t *testing.T, small, large int, pause time.Duration, prepare func(*simulatedEngine)) (p95, queued time.Duration, perSecond float64) {
	const tokens, duration = 32, time.Minute
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		engine := newSimulatedEngine(table, sharedSequences, func(*Submission) int { return tokens })
		engine.chunks = 2.5
		prepare(engine)
		stop := engine.start()
		defer stop()
		start := time.Now()
		var mu sync.Mutex
		var took []time.Duration
		answers := 0
		client := func(key string) {
			for time.Since(start) < duration {
				r := newRequest(nil)
				r.Key, r.Infer = key, &api.Request{Prompt: strings.Repeat("word", 48), MaxNewTokens: new(tokens)}
				sentAt, answer := time.Now(), table.admit(func(own *Request) { *own = r })
				for done := false; !done; done = answer.Take(nil).Last {
					<-answer.Ready()
				}
				answer.Settle(Delivered)
				mu.Lock()
				answers++
				if key == "small" {
					took = append(took, time.Since(sentAt))
					queued += answer.(*entry).firstSentAt.Sub(sentAt)
				}
				mu.Unlock()
				if key == "small" {
					time.Sleep(pause) // fake time
				}
			}
		}
		var wg sync.WaitGroup
		for range small {
			wg.Go(func() { client("small") })
		}
		for range large {
			wg.Go(func() {
				time.Sleep(time.Millisecond) // fake time: the small key's first requests find a sequence, too
				client("large")
			})
		}
		wg.Wait()
		if slices.Sort(took); len(took) > 0 {
			p95, queued = took[len(took)*95/100], queued/time.Duration(len(took))
		}
		perSecond = float64(answers*tokens) / time.Since(start).Seconds()
	})
	return p95, queued, perSecond
}

// A key that sends something now and then doesn't wait for the end of anybody's answer, though another key has more
// requests than there are sequences.
func TestKeyThatComesBackFindsASequence(t *testing.T) {
	const pause = time.Second // some 25 answers
	alone, _, _ := closedLoop(t, 1, 0, pause, freeBatches)
	beside, _, perSecond := closedLoop(t, 1, 40, pause, freeBatches)
	_, _, all := closedLoop(t, 0, 40, pause, freeBatches)
	t.Logf("p95 %v alone, %v beside; %.0f tokens/s, %.0f without it", alone, beside, perSecond, all)
	if float64(beside) > 1.15*float64(alone) || perSecond < 0.93*all {
		t.Errorf("p95 %v alone, %v beside; %.0f tokens/s, %.0f without it", alone, beside, perSecond, all)
	}
}

// A key's request goes before those of others that wait, and when it comes, not with the engine's next report.
func TestDueRequestIsSentAtOnce(t *testing.T) {
	const sequences = 32
	table := newTableTest(t, Options{})
	engine := table.attach(LastExit{})
	table.reportLoad(engine, "base", true)
	table.Stats(engine, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: sequences}}})
	table.admit(func(r *Request) { r.Key = "small" })
	table.serve(engine, engine.last(t), 3)
	for range 2 * sequences {
		table.admit(func(r *Request) { r.Key = "large" })
	}
	for n := 1; n <= 2; n++ {
		before := len(engine.infers)
		table.admit(func(r *Request) { r.Key = "small" })
		if len(engine.infers) != before+1 {
			t.Errorf("small request %d isn't sent behind %d of the other key's", n, before)
		}
	}
	if large := len(engine.infers) - 3; large < sequences-4 || large > sequences {
		t.Errorf("%d requests of the large key are at the engine", large)
	}
}

// A key with a few clients that ask without a pause doesn't lose its sequences to another one between two requests.
func TestFewClientsKeepTheirSequences(t *testing.T) {
	beside, queued, _ := closedLoop(t, 3, 40, 0, func(e *simulatedEngine) { e.stepEach /= 2 })
	if queued > beside/100 {
		t.Errorf("requests wait %v for a sequence of %v in all", queued, beside)
	}
}
