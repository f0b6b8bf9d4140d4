package queue

import (
	"math"
	"slices"
	"testing"
	"time"
)

const (
	keyA, keyB, keyC = 1, 2, 3
	forever          = 1 << 40
)

func keyItem(id, key uint64) Item {
	return Item{ID: id, Order: id, Class: Fresh, Base: "m", Key: key, Bytes: 1, Work: 100}
}

// serve takes out n items, charges each with its work, and returns whose they were.
func serve(q *Queue, n int) (keys []uint64) {
	for range n {
		it, ok := q.Next(always)
		if !ok {
			return keys
		}
		c := q.Account(it.Base, it.Key, it.Weight).Charge(float64(it.Work))
		c.Use(float64(it.Work))
		c.Settle()
		keys = append(keys, it.Key)
	}
	return keys
}

func fairQueue() *Queue { return New(Limits{Items: forever, Bytes: forever}) }

func TestLeastServedKeyGoesNext(t *testing.T) {
	q := fairQueue()
	for id := uint64(1); id <= 10; id++ {
		q.Push(keyItem(id, keyA))
	}
	for id := uint64(11); id <= 13; id++ {
		q.Push(keyItem(id, keyB))
	}
	// Both begin alike; of those the one with less waiting goes first.
	if got, want := serve(q, 8), []uint64{keyB, keyA, keyB, keyA, keyB, keyA, keyA, keyA}; !slices.Equal(got, want) {
		t.Errorf("served %v, want %v", got, want)
	}
}

func TestWeights(t *testing.T) {
	q := fairQueue()
	for id := uint64(1); id <= 80; id++ {
		it := keyItem(id, id%2)
		if it.Key == 1 {
			it.Weight = 3
		}
		q.Push(it)
	}
	heavy := 0
	for _, key := range serve(q, 40) {
		if key == 1 {
			heavy++
		}
	}
	if heavy < 29 || heavy > 31 {
		t.Errorf("%d of 40 went to the key with weight 3 against 1, want 30", heavy)
	}
}

// A weight that changes while a request runs takes back no more than was charged for it.
func TestWeightChangesWhileRequestsRun(t *testing.T) {
	for _, after := range []float64{1, 100} {
		q := fairQueue()
		a := q.Account("m", keyA, 10)
		before := a.Charge(1000)
		before.Use(200)
		q.Account("m", keyA, after)
		before.Use(300)
		before.Settle()
		if want := 500.0 / 10; math.Abs(a.served-want) > 1e-9 || a.unused != 0 {
			t.Errorf("weight 10, then %v: %v was served and %v is unused, want %v and 0", after, a.served, a.unused, want)
		}
	}
}

// Who did nothing while others were served has no claim to be served before them for as long.
func TestIdleKeySavesNothingUp(t *testing.T) {
	q := fairQueue()
	q.Push(keyItem(1, keyB))
	serve(q, 1)
	for id := uint64(2); id <= 200; id++ {
		q.Push(keyItem(id, keyA))
	}
	serve(q, 100)
	for id := uint64(201); id <= 220; id++ {
		q.Push(keyItem(id, keyB))
	}
	if b := servedOf(q, 10, keyB); b != 5 {
		t.Errorf("%d of 10 went to the key that came back, want 5", b)
	}
}

// servedOf serves n items and returns how many of them are the key's.
func servedOf(q *Queue, n int, key uint64) int {
	of := 0
	for _, served := range serve(q, n) {
		if served == key {
			of++
		}
	}
	return of
}

// Neither has a key that comes when nothing waits, after others had the engine for themselves.
func TestKeyThatComesToAnIdleQueue(t *testing.T) {
	q := fairQueue()
	for id := uint64(1); id <= 50; id++ {
		q.Push(keyItem(id, keyA))
	}
	serve(q, 50)
	for id := uint64(51); id <= 70; id++ {
		q.Push(keyItem(id, keyB))
		q.Push(keyItem(id+100, keyA))
	}
	if b := servedOf(q, 10, keyB); b != 5 {
		t.Errorf("%d of 10 went to the new key, want 5", b)
	}
}

// What a request took beyond what was expected of it counts, and what it didn't take is given back.
func TestCorrections(t *testing.T) {
	q := fairQueue()
	a, b := q.Account("m", keyA, 0), q.Account("m", keyB, 0)
	long, short, next := a.Charge(100), b.Charge(100), b.Charge(100)
	long.Use(150) // its answer is longer than expected
	short.Use(40)
	short.Settle()
	next.Use(100)
	q.Push(keyItem(1, keyA))
	q.Push(keyItem(2, keyB))
	q.Push(keyItem(3, keyB))
	// 40 + 100 against 150.
	if got, want := serve(q, 3), []uint64{keyB, keyA, keyB}; !slices.Equal(got, want) {
		t.Errorf("served %v, want %v", got, want)
	}
}

// A key that comes while another's first answers run begins where that one is, not where it was guessed to be.
func TestKeyThatJoinsOwesNoGuess(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after float64 // work of the answers that is done after the key came
		first int     // items until it was served as much since
	}{{"as they end", 0, 0}, {"in their midst", 200, 80}} {
		t.Run(tt.name, func(t *testing.T) {
			q := fairQueue()
			a := q.Account("m", keyA, 0)
			var running []Charge
			for range 40 {
				c := a.Charge(16_000)
				c.Use(500 - tt.after)
				running = append(running, c)
			}
			for id := uint64(1); id <= 200; id++ {
				q.Push(keyItem(id, keyA))
				q.Push(keyItem(1000+id, keyB))
			}
			for i := range running {
				running[i].Use(tt.after)
				running[i].Settle()
			}
			if b := servedOf(q, tt.first, keyB); b != tt.first {
				t.Errorf("%d of the first %d went to the key that came, want all", b, tt.first)
			}
			if b := servedOf(q, 10, keyB); b != 5 {
				t.Errorf("%d of the next 10 went to the key that came, want 5", b)
			}
		})
	}
}

// Nor does one that comes when all of them have ended.
func TestKeyThatComesAfterAGuess(t *testing.T) {
	q := fairQueue()
	c := q.Account("m", keyA, 0).Charge(16_000)
	c.Use(500)
	c.Settle()
	for id := uint64(1); id <= 10; id++ {
		q.Push(keyItem(id, keyB))
		q.Push(keyItem(100+id, keyA))
	}
	if b := servedOf(q, 10, keyB); b != 5 {
		t.Errorf("%d of 10 went to the key that came, want 5", b)
	}
}

func TestShare(t *testing.T) {
	type key struct {
		weight, served float64
		running        bool
	}
	tests := []struct {
		name string
		keys []key // the share of the first is asked for
		want float64
	}{
		{"alone", []key{{1, 100, true}}, 1},
		{"another key that did nothing lately", []key{{1, 100, true}, {1, 0, false}}, 1},
		{"new beside a busy one", []key{{1, 0, true}, {1, 100, true}}, 0.5},
		{"busy beside one that wants little", []key{{1, 90, true}, {1, 10, true}}, 0.9},
		{"two busy ones", []key{{1, 50, true}, {1, 50, true}}, 0.5},
		{"a heavier one", []key{{3, 75, true}, {1, 25, true}}, 0.75},
		{"one of four", []key{{1, 25, true}, {1, 25, true}, {1, 25, true}, {1, 25, true}}, 0.25},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := fairQueue()
			now := time.Unix(1000, 0)
			for i, k := range tt.keys {
				a := q.Account("m", uint64(i), k.weight)
				if k.running {
					a.Charge(k.served)
				}
			}
			q.Shares("m").Sample(now)
			if got := q.Account("m", 0, tt.keys[0].weight).Share(); math.Abs(got-tt.want) > 0.01 {
				t.Errorf("share %v, want %v", got, tt.want)
			}
		})
	}
}

// One key can't fill the queue while another one is there, whatever base that one uses; alone it can.
func TestOneKeyLeavesRoom(t *testing.T) {
	tests := []struct {
		name  string
		other string // base that another key uses; "": none
		waits bool   // something of the other key waits
		own   int    // items that the key may have
		why   PushResult
	}{
		{"alone", "", false, 8, TooManyItems},
		{"beside another key", "m", false, 6, KeyTooManyItems},
		{"beside a key that uses another base", "n", false, 6, KeyTooManyItems},
		{"beside a key that waits for another base", "n", true, 6, KeyTooManyItems},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q := New(Limits{Items: 8, Bytes: 1000, Work: 10_000, KeyShare: 0.75})
			fill := func(key uint64, from int) (n int, last PushResult) {
				for ; last == Queued; n++ {
					last = q.Push(keyItem(uint64(from+n), key))
				}
				return n - 1, last
			}
			now, waiting := time.Unix(1000, 0), 0
			q.Shares("m").Sample(now)
			if tt.waits {
				waiting = 1
				q.PushAdmitted(Item{ID: 99, Class: Replay, Base: tt.other, Key: keyB})
			} else if tt.other != "" {
				q.Account(tt.other, keyB, 0).Charge(1)
				q.Shares(tt.other).Sample(now)
			}
			if n, why := fill(keyA, 1); n != tt.own || why != tt.why {
				t.Errorf("%d items, then %v; want %d, then %v", n, why, tt.own, tt.why)
			}
			rest := 8 - tt.own - waiting
			if n, why := fill(keyB, 50); n != rest || why != TooManyItems {
				t.Errorf("the other key: %d items, then %v; want the rest, %d", n, why, rest)
			}
		})
	}
}

// What a key was served counts also where each of its requests is over before anybody looks.
func TestShortRequestsAreRemembered(t *testing.T) {
	q := fairQueue()
	s, now := q.Shares("m"), time.Unix(1000, 0)
	s.Sample(now)
	for range 10 {
		for _, key := range []uint64{keyA, keyA, keyA, keyB} {
			c := q.Account("m", key, 0).Charge(100)
			c.Use(100)
			c.Settle()
		}
		now = now.Add(100 * time.Millisecond)
		s.Sample(now)
		if !s.Contended() {
			t.Fatal("two keys use the engine")
		}
	}
	if a, b := q.Account("m", keyA, 0), q.Account("m", keyB, 0); a.recent < 2*b.recent {
		t.Errorf("recent work %v and %v, three to one was served", a.recent, b.recent)
	}
}

func TestKeysWithoutRequestsAreForgotten(t *testing.T) {
	q := fairQueue()
	now := time.Unix(1000, 0)
	for key := range uint64(1000) {
		c := q.Account("m", key, 0).Charge(1)
		if key > 0 {
			c.Settle()
		}
	}
	s := q.Shares("m")
	q.Account("idle", keyA, 0)
	q.Sample(now)
	q.Sample(now.Add(forgetAccount + time.Second))
	if n := len(s.accounts); n > 2 {
		t.Errorf("%d accounts are kept, one has a request", n)
	}
	if n := len(q.shares); n != 1 {
		t.Errorf("%d bases are kept, one has a key", n)
	}
}

// A skipped item lets those of other keys pass, too.
func TestSkippedItemOfAKey(t *testing.T) {
	q := fairQueue()
	q.Push(keyItem(1, keyA))
	q.Push(keyItem(2, keyB))
	q.Push(keyItem(3, keyC))
	it, ok := q.Next(func(it Item) Verdict {
		if it.Key != keyC {
			return SkipItem
		}
		return Dispatch
	})
	if !ok || it.Key != keyC {
		t.Errorf("%+v goes", it)
	}
}

// A key that has fewer requests at the engine than its part, and none that waits, is expected to send two for a minute.
func TestExpectedKeys(t *testing.T) {
	const sequences = 30
	q, start := fairQueue(), time.Now()
	var large []Charge
	for range 12 {
		large = append(large, q.Account("m", keyA, 0).Charge(1))
	}
	q.Sample(start)
	b, c := q.Account("m", keyB, 0).Charge(1), q.Account("m", keyC, 0).Charge(1)
	expect := func(when string, of uint64, most, want int) {
		t.Helper()
		if n := q.Shares("m").Expected(q.Account("m", of, 0), sequences, most); n != want {
			t.Errorf("%s, beside key %d: %d requests are expected, want %d", when, of, n, want)
		}
	}
	expect("two keys with one request", keyA, 9, 4)
	expect("at most three count", keyA, 3, 3)
	expect("a key with less than its part", keyB, 9, 0)
	q.Push(keyItem(1, keyB))
	expect("one's next request waits", keyA, 9, 2)
	q.Remove(1)
	b.Settle()
	c.Settle()
	expect("they have no requests", keyA, 9, 4)
	q.Sample(start.Add(expectedFor / 2))
	expect("half a minute later", keyA, 9, 4)
	q.Sample(start.Add(expectedFor + time.Second))
	expect("after a minute", keyA, 9, 0)
	for i := range large {
		large[i].Settle()
	}
}
