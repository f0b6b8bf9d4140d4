package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// overloadTokenDelay is what the mock takes for a token of each answer, so that at most so many answers can be given in
// overloadAnswer as there are sequences, on a busy machine fewer.
const (
	overloadTokenDelay = 20 * time.Millisecond
	overloadAnswer     = overloadTokens * overloadTokenDelay
	overloadTokens     = 50
)

// overloadRequest is echoed by the mock, in overloadTokens tokens.
func overloadRequest() string { return echoRequest(10) }

func echoRequest(words int) string { return question(strings.Repeat("abcd ", words), "v1.0") }

// closedLoop keeps so many requests in flight for a time and returns how many were answered a second.
func (s *testServer) closedLoop(clients int, duration time.Duration) float64 {
	ctx, cancel := context.WithTimeout(s.t.Context(), duration)
	defer cancel()
	var wg sync.WaitGroup
	var mu sync.Mutex
	answered := 0
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				a, err := s.infer(ctx, overloadRequest())
				if err != nil || a.Status != 200 {
					continue
				}
				mu.Lock()
				answered++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return float64(answered) / duration.Seconds()
}

// openLoop sends requests at random times, so many a second on average, and returns what came back.
func (s *testServer) openLoop(perSecond float64, duration time.Duration, body func() string, headers ...string) []timedAnswer {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []timedAnswer
	pauses := rand.New(rand.NewPCG(1, 2))
	for start, next := time.Now(), time.Duration(0); next < duration; next += time.Duration(pauses.ExpFloat64() / perSecond * float64(time.Second)) {
		time.Sleep(time.Until(start.Add(next))) // the arrivals' own pace
		text := body()
		wg.Go(func() {
			sentAt := time.Now()
			a, err := s.infer(s.t.Context(), text, headers...)
			if err != nil {
				s.t.Errorf("no answer: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, timedAnswer{a, time.Since(sentAt)})
		})
	}
	wg.Wait()
	return all
}

type timedAnswer struct {
	*answer
	took time.Duration
}

// sampleRunning looks for a time how many requests hold a sequence, and then sends their number on average.
func (s *testServer) sampleRunning(duration time.Duration) <-chan float64 {
	average := make(chan float64, 1)
	go func() {
		sum, n := 0, 0
		for start := time.Now(); time.Since(start) < duration; time.Sleep(100 * time.Millisecond) {
			if v, err := s.askAsPicker(); err == nil {
				sum, n = sum+v.Running, n+1
			}
		}
		average <- float64(sum) / float64(max(n, 1))
	}()
	return average
}

// With four times as many requests as can be answered, the server answers in time nearly as many as it can, and says at
// once to the others when to come again.
func TestOverloadIsRefusedAtOnce(t *testing.T) {
	onceWithMock(t)
	const sequences, deadline, duration = 8, 5 * time.Second, 12 * time.Second
	s := startServer(t, "ENGINE_MOCK=true", "MOCK_TOKEN_DELAY="+overloadTokenDelay.String(), fmt.Sprintf("PARALLEL=%d", sequences), "QUEUE_CAPACITY=10000")
	measured := s.closedLoop(2*sequences, 6*time.Second) // from which the server knows its speed, too
	if measured == 0 {
		t.Fatal("nothing was answered")
	}
	before := s.waitIdle().sum("tokens_generated_total")
	runningOnAverage := s.sampleRunning(duration)
	answers := s.openLoop(4*sequences/overloadAnswer.Seconds(), duration, overloadRequest, "X-Request-Timeout", deadline.String())
	inTime, inTimeTokens, refused, late := 0, 0, 0, 0
	var slowest time.Duration
	for _, a := range answers {
		switch {
		case a.Status == 200 && a.took <= deadline:
			inTime++
			inTimeTokens += a.Metadata.Tokens
		case a.Status == 503 && strings.Contains(a.Body, "queue_full"):
			refused++
			slowest = max(slowest, a.took)
			if after, err := strconv.Atoi(a.Header.Get("Retry-After")); err != nil || after < 1 || after > 60 {
				t.Errorf("Retry-After %q of a refusal: %s", a.Header.Get("Retry-After"), a.Body)
			}
		default:
			late++
		}
	}
	scraped := s.waitIdle()
	useful := float64(inTimeTokens) / (scraped.sum("tokens_generated_total") - before)
	running := <-runningOnAverage
	t.Logf("measured %.1f/s; %d offered, %d in time with %.0f%% of the tokens, %.1f running on average, %d refused within %v, %d late",
		measured, len(answers), inTime, 100*useful, running, refused, slowest, late)
	// What can be answered is all sequences at work for answers that come in time, however fast the machine is just
	// now. That is 0.9 in the simulation.
	if share := useful * running / sequences; !(share >= 0.6) { // without a token it is no number
		t.Errorf("%.0f%% of the tokens were of answers in time, and %.1f of %d sequences at work", 100*useful, running, sequences)
	}
	if late > len(answers)/10 {
		t.Errorf("%d of %d were let in and not answered in time", late, len(answers))
	}
	if got := scraped.sum("llm_admission_refusals_total", "reason", "deadline"); got != float64(refused) {
		t.Errorf("%v refusals counted, %d seen", got, refused)
	}
	if scraped.sum("llm_admission_speed_tokens_per_second") == 0 {
		t.Error("no speed is shown")
	}
}

// withKey makes the headers of another key than the server's first.
func withKey(secret string) []string { return []string{"X-API-Key", secret} }

// p95 of the times of those answered, each in times that its generation took, and how many were answered. A machine
// that has other work for a while makes both times longer.
func p95(answers []timedAnswer) (slowness float64, answered int) {
	var all []float64
	for _, a := range answers {
		if a.Status == 200 {
			all = append(all, a.took.Seconds()/a.Metadata.GenerationTime)
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[len(all)*95/100], len(all)
}

// A key beside one that sends ten times as much, and both together more than can be answered, waits little longer than
// alone.
func TestSmallKeyBesideLargeOne(t *testing.T) {
	onceWithMock(t)
	const sequences, duration = 16, 12 * time.Second
	s := startServer(t, "ENGINE_MOCK=true", "MOCK_TOKEN_DELAY="+overloadTokenDelay.String(), fmt.Sprintf("PARALLEL=%d", sequences), "API_KEYS=test:test-secret,large:large-secret")
	measured := s.closedLoop(2*sequences, 5*time.Second)
	small := 0.15 * measured
	alone, _ := p95(s.openLoop(small, duration, overloadRequest))
	lengths := rand.New(rand.NewPCG(5, 6))
	mixed := func() string { return echoRequest(6 + lengths.IntN(7)) } // so that answers don't end together
	var both, others []timedAnswer
	var wg sync.WaitGroup
	wg.Go(func() {
		others = s.openLoop(1.2*sequences/overloadAnswer.Seconds(), duration, mixed, withKey("large-secret")...)
	})
	both = s.openLoop(small, duration, overloadRequest)
	wg.Wait()
	beside, answered := p95(both)
	othersP95, othersAnswered := p95(others)
	t.Logf("measured %.1f/s; p95 %.2f times the generation alone, %.2f beside the large key (%d of %d answered), whose own is %.2f (%d of %d answered)",
		measured, alone, beside, answered, len(both), othersP95, othersAnswered, len(others))
	// 1.5 times in the simulation; here the machine may have other work meanwhile. First come, first served is 5 times.
	if answered != len(both) || beside > alone*5/2 {
		t.Errorf("p95 is %.2f beside the large key and %.2f alone; %d of %d answered", beside, alone, answered, len(both))
	}
	if othersP95 < alone*3/2 {
		t.Errorf("the large key's p95 is %.2f: there was no overload to be protected from", othersP95)
	}
}
