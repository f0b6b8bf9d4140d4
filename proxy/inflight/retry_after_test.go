package inflight

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/proxy/api"
)

// follower is a client that comes back when a refusal tells it to, as often as libraries of OpenAI and Anthropic do.
type follower struct {
	attempts []*simulatedClient // the first one, and then those at which it came back
}

const followerReturns = 2

// phase is a time in which so many requests come, as a multiple of what the engine can answer.
type phase struct {
	load     float64
	duration time.Duration
}

// follow lets clients come in phases, one after the other, and waits for all of them, also those that come back later.
func follow(t *testing.T, table *tableTest, seed uint64, phases ...phase) []*follower {
	pauses := rand.New(rand.NewPCG(seed, 2))
	var all []*follower
	var wg sync.WaitGroup
	for _, p := range phases {
		for start := time.Now(); time.Since(start) < p.duration; {
			pause := pauses.ExpFloat64() / (p.load * overloadCapacity)
			time.Sleep(time.Duration(pause * float64(time.Second))) // fake time
			f := &follower{}
			all = append(all, f)
			wg.Go(func() { f.ask(t, table) })
		}
	}
	wg.Wait()
	return all
}

// ask asks for an answer of usual length until there is one, or it has come back as often as it does.
func (f *follower) ask(t *testing.T, table *tableTest) {
	for range 1 + followerReturns {
		r := newRequest(nil)
		r.Timeout, r.Infer = overloadDeadline, &api.Request{Prompt: strings.Repeat("word", 48), MaxNewTokens: new(overloadAsked)}
		c := table.ask(t, r, 0)
		f.attempts = append(f.attempts, c)
		<-c.done
		if c.err == nil || c.err.RetryAfterSeconds() == 0 {
			return
		}
		time.Sleep(time.Duration(c.err.RetryAfterSeconds()) * time.Second) // fake time
	}
}

// returns counts attempts by their place: the first one, the first return and the second.
type returns struct{ made, inTime [1 + followerReturns]int }

func (r *returns) add(place int, c *simulatedClient) {
	r.made[place]++
	if c.err == nil && c.took <= overloadDeadline {
		r.inTime[place]++
	}
}

// part is which part of the first attempts had an answer in time, at one attempt or another.
func (r *returns) part() float64 {
	all := 0
	for _, n := range r.inTime {
		all += n
	}
	return float64(all) / float64(r.made[0])
}

// overloadWithReturns lets a usual load come for half a minute, and then four times as much as can be answered. It
// counts the attempts of those who came during the overload, and of them those when it was over.
func overloadWithReturns(t *testing.T, seed uint64, duration time.Duration, all, afterwards *returns) (longest int) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		lengths := rand.New(rand.NewPCG(seed, 9))
		engine := newSimulatedEngine(table, overloadSequences, func(*Submission) int { return overloadAsked/2 + lengths.IntN(overloadAsked/2+1) })
		stop := engine.start()
		defer stop()
		begins := time.Now().Add(30 * time.Second)
		ends := begins.Add(duration)
		for _, f := range follow(t, table, seed, phase{1, 30 * time.Second}, phase{4, duration}) {
			if f.attempts[0].sentAt.Before(begins) {
				continue
			}
			for i, c := range f.attempts {
				all.add(i, c)
				if c.sentAt.After(ends) {
					afterwards.add(i, c)
				}
				if c.err != nil {
					longest = max(longest, c.err.RetryAfterSeconds())
				}
			}
		}
	})
	return longest
}

// When a crowd of which most are refused has come and each comes back when it is told to, the crowd doesn't come back
// as one: everyone finds a place at the first return that isn't part of the crowd any more.
func TestCrowdThatFollowsRetryAfterFindsRoom(t *testing.T) {
	var all, afterwards returns
	longest := 0
	for seed := range uint64(5) {
		longest = max(longest, overloadWithReturns(t, 1+seed, 20*time.Second, &all, &afterwards))
	}
	first := float64(afterwards.inTime[1]) / float64(afterwards.made[1])
	t.Logf("made %v, in time %v: %.3f of all; when it was over made %v, in time %v: %.3f of first returns; at most %d s", all.made, all.inTime, all.part(), afterwards.made, afterwards.inTime, first, longest)
	if first < 0.95 || all.part() < 0.95 {
		t.Errorf("answered in time were %.3f of first returns when it was over, and %.3f of all", first, all.part())
	}
	if longest > 60 {
		t.Errorf("%d s are more than client libraries follow", longest)
	}
}

// While the overload lasts nobody can be promised a place, since others come meanwhile. But who comes back later finds
// fewer others who have come back, so more come through in the attempts that they make.
func TestCrowdsThatKeepComing(t *testing.T) {
	var all, afterwards returns
	for seed := range uint64(3) {
		overloadWithReturns(t, 1+seed, 4*time.Minute, &all, &afterwards)
	}
	t.Logf("made %v, in time %v: %.3f of all", all.made, all.inTime, all.part())
	if all.part() < 0.33 {
		t.Errorf("answered in time were %.3f of all", all.part())
	}
}
