package batch

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// However far an answer had come, the rest of it is what an undisturbed run would have said: text, indices, end.
func TestReplayContinuesAtEveryPlace(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	id := uint64(0)
	for seed := range 6 {
		whole := sink.request(id, prompt(seed+3, 12), 40)
		if seed > 0 { // a stop string that begins and ends within tokens, and one that is held back but never complete
			_, text, _ := expectedAnswer(whole)
			runes := []rune(text)
			at := len(runes) * seed / 7
			whole.Stops = []string{string(runes[at : at+5]), string(runes[at-3:at]) + "never"}
		}
		stops := whole.Stops
		submit(t, e, whole)
		w := sink.wait(id)
		checkAnswer(t, whole, w)
		for cut := 1; cut <= len(w.tokens); cut++ {
			for _, steps := range []bool{false, true} {
				id++
				r := sink.request(id, whole.Prompt, 40)
				r.Stops, r.Generated, r.ReplaySteps = stops, w.tokens[:cut], steps
				submit(t, e, r)
				checkContinuation(t, sink.wait(id), w, cut)
			}
		}
		id++
	}
}

// checkContinuation compares what came after the cut with the undisturbed run.
func checkContinuation(t *testing.T, a, whole *recordedAnswer, cut int) {
	t.Helper()
	sent := whole.steps[cut-1].TextEnd
	if fmt.Sprint(a.tokens) != fmt.Sprint(whole.tokens[cut:]) || string(a.text) != string(whole.text[sent:]) {
		t.Errorf("cut at %d: got %v %q, want %v %q", cut, a.tokens, a.text, whole.tokens[cut:], whole.text[sent:])
	}
	if len(a.tokens) > 0 && a.firstIndex != cut {
		t.Errorf("cut at %d: first index %d", cut, a.firstIndex)
	}
	if n := len(a.steps); n > 0 && a.steps[n-1].TextEnd != len(whole.text) {
		t.Errorf("cut at %d: text ends at %d, want %d", cut, a.steps[n-1].TextEnd, len(whole.text))
	}
	if a.summary.Reason != whole.summary.Reason || a.summary.OutputTokens != len(whole.tokens) {
		t.Errorf("cut at %d: %+v, undisturbed %+v", cut, a.summary, whole.summary)
	}
}

func TestReplayThatIsOverDecodesNothing(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	seen := &countingObserver{}
	e := startExecutor(t, f, Options{Observe: seen})
	ended := append(make([]Token, 0), 7, 8, 0)
	for id, tc := range []struct {
		generated []Token
		stops     []string
		most      int
		want      FinishReason
	}{
		{ended, nil, 10, FinishStop},
		{[]Token{7, 8}, nil, 2, FinishLength},
		{[]Token{7, 8}, []string{string(fakePieces[8])}, 10, FinishStop},
	} {
		r := sink.request(uint64(id), prompt(1, 4), tc.most)
		r.Generated, r.Stops = tc.generated, tc.stops
		submit(t, e, r)
		a := sink.wait(uint64(id))
		if a.summary.Reason != tc.want || len(a.tokens) != 0 || a.summary.OutputTokens != len(tc.generated) {
			t.Errorf("%v: %d tokens, %+v", tc.generated, len(a.tokens), a.summary)
		}
	}
	if n := seen.decodes.Load(); n != 0 {
		t.Errorf("%d decode calls", n)
	}
}

func TestReplayTimings(t *testing.T) {
	for _, steps := range []bool{false, true} {
		t.Run(fmt.Sprint("steps ", steps), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
				f.stepTime = func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
				calls := 0
				f.onStep = func(Adapter, []Slice, map[int]int) { calls++ }
				e := startExecutor(t, f, Options{})
				whole := sink.request(1, longAnswerPrompt, 30)
				submit(t, e, whole)
				w := sink.wait(1)
				calls = 0
				r := sink.request(2, longAnswerPrompt, 30)
				r.Generated, r.ReplaySteps = w.tokens[:20], steps
				submit(t, e, r)
				a := sink.wait(2)
				checkContinuation(t, a, w, 20)
				s := a.summary
				// Ten prompt tokens and nineteen of the answer; the twentieth is fed by the step that draws the next.
				if s.Restart != 29*time.Millisecond || s.Prefill != 0 || s.Decode != 10*time.Millisecond || a.took != s.Decode {
					t.Errorf("tokens took %s, summary %+v", a.took, s)
				}
				if want := map[bool]int{false: 1 + 10, true: 1 + 19 + 10}[steps]; calls != want {
					t.Errorf("%d steps, want %d", calls, want)
				}
			})
		})
	}
}
