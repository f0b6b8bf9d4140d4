package batch

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// xeon takes about what SmolLM2-135M takes on two cores.
var xeon = simulatedDevice{5 * time.Millisecond, 1900 * time.Microsecond, 900 * time.Microsecond, 500 * time.Nanosecond}

const shortPrompt = 49

// loadTest sends requests to a scheduler and measures what their clients would see.
type loadTest struct {
	*schedulerTest
	tokens  map[*sequence][]time.Duration // when each token came
	answers []time.Duration               // from request to last token
	gaps    []time.Duration
}

func newLoadTest(t *testing.T, d device) *loadTest {
	st := newSchedulerTest(t, Limits{Cells: 65536, Sequences: 32, SequenceMax: 8192, StepTokens: 512, MixedAdapters: true, Prefix: true})
	runner := measuredRunner{nil, measuredSteps(d, 32)}
	st.scheduler.budget = newStepBudget(Options{TargetStep: 50 * time.Millisecond, StepTokens: 512}, runner)
	st.device = d
	return &loadTest{schedulerTest: st, tokens: make(map[*sequence][]time.Duration)}
}

// step does one step and returns the sequences that it ended.
func (lt *loadTest) step() []*sequence {
	before := len(lt.ended)
	if !lt.schedulerTest.step() {
		lt.t.Fatal("nothing to do")
	}
	for _, it := range lt.plan.items {
		if it.seq.answerTokens() == len(lt.tokens[it.seq]) {
			continue
		}
		times := append(lt.tokens[it.seq], lt.now)
		lt.tokens[it.seq] = times
		if n := len(times); n > 1 {
			lt.gaps = append(lt.gaps, times[n-1]-times[n-2])
		}
	}
	for _, q := range lt.ended[before:] {
		lt.answers = append(lt.answers, lt.now-q.submittedAt)
	}
	return lt.ended[before:]
}

// closed has so many clients, each of which sends its next request when the last is answered.
func (lt *loadTest) closed(clients, requests, answer int) {
	sent := 0
	send := func() {
		if sent < requests {
			lt.submit("", nil, shortPrompt, answer)
			sent++
		}
	}
	for range clients {
		send()
	}
	for len(lt.answers) < requests {
		for range lt.step() {
			send()
		}
	}
}

func nearestRank(list []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[(len(sorted)*percent+99)/100-1]
}

// allAtOnce is what a server takes for an answer that computes all prompts in one step and then all answers together:
// clients that began together stay together.
func allAtOnce(d device, clients, answer int) time.Duration {
	took := d.takes(short(0, clients*shortPrompt))
	for i := 1; i < answer; i++ {
		took += d.takes(stepWork{decodes: clients, cells: clients * (shortPrompt + i)})
	}
	return took
}

// Clients that come all at once, and go on asking: the slowest answers take little longer than if the server had
// stopped for each crowd of prompts, and there are more answers in all.
func TestShortAnswersOfACrowd(t *testing.T) {
	for _, tc := range []struct{ clients, requests, answer int }{{16, 128, 16}, {32, 128, 32}, {16, 512, 16}, {32, 512, 32}, {32, 96, 64}} {
		t.Run(fmt.Sprint(tc), func(t *testing.T) {
			lt := newLoadTest(t, xeon)
			lt.closed(tc.clients, tc.requests, tc.answer)
			other := allAtOnce(xeon, tc.clients, tc.answer)
			p99, gap := nearestRank(lt.answers, 99), float64(nearestRank(lt.gaps, 99))/float64(nearestRank(lt.gaps, 50))
			rate := float64(tc.requests) / lt.now.Seconds() / (float64(tc.clients) / other.Seconds())
			t.Logf("p99 %s, all at once %s (%.2f); %.2f of its requests a second; gaps' p99 by their median %.2f", p99, other, p99.Seconds()/other.Seconds(), rate, gap)
			if p99 > other*112/100 || rate < 1.08 || gap > 4 {
				t.Errorf("p99 %s, all at once %s; %.2f of its requests a second; gaps' p99 by their median %.2f", p99, other, rate, gap)
			}
		})
	}
}

// Answers that waited long for their first tokens aren't held up by prompts that have only come; those that got theirs
// at once make room for them, and a prompt that has waited as long as they did gets all of the share.
func TestPromptShare(t *testing.T) {
	const waited = 400 * time.Millisecond
	for name, tc := range map[string]struct {
		waits   []time.Duration // of the answers in progress, for their first tokens
		waiting time.Duration   // of the prompt
		want    float64
	}{
		"nobody decodes":             {nil, 0, promptShare},
		"it has only come":           {[]time.Duration{waited, waited}, 0, leastPromptShare},
		"half as long":               {[]time.Duration{waited, waited}, waited / 2, waitShare / 2.0},
		"as long as they did":        {[]time.Duration{waited, waited}, waited, promptShare},
		"longer":                     {[]time.Duration{waited, waited}, 3 * waited, promptShare},
		"as long as their mean":      {[]time.Duration{waited / 2, waited * 3 / 2}, waited, promptShare},
		"they have no wait measured": {[]time.Duration{0}, 0, promptShare},
	} {
		st := newSchedulerTest(t, Limits{Cells: 1000, Sequences: 8, StepTokens: 100})
		for i, wait := range tc.waits {
			q := st.submit("", nil, 2, 9)
			q.slot, q.stage, q.filled, q.firstTokenWait = i, stageReady, 2, wait
			q.tokens = append(q.tokens, 1)
			st.scheduler.slots[i].seq = q
		}
		q := st.submit("", nil, 5, 9)
		q.slot, q.stage = 7, stageReady
		st.scheduler.slots[7].seq = q
		if got := st.scheduler.choosePromptShare(tc.waiting); got != tc.want {
			t.Errorf("%s: prompts get %g times the time of decoding, want %g", name, got, tc.want)
		}
	}
}
