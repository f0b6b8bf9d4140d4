package batch

import (
	"fmt"
	"math"
	"testing"
)

func checkScores(t *testing.T, r *Request, a *recordedAnswer) {
	t.Helper()
	if len(a.prompt) != len(r.Prompt) {
		t.Fatalf("request %d: log-probabilities of %d tokens, the prompt has %d", r.ID, len(a.prompt), len(r.Prompt))
	}
	for i, got := range a.prompt {
		want := float32(math.NaN())
		if i > 0 {
			want = fakeLogprob(r.Adapter, r.Prompt[:i], r.Prompt[i])
		}
		if got.Token != r.Prompt[i] || got.Logprob != want && !(i == 0 && math.IsNaN(float64(got.Logprob))) {
			t.Errorf("request %d, place %d: token %d with %g, want %d with %g", r.ID, i, got.Token, got.Logprob, r.Prompt[i], want)
		}
	}
}

// Each token of a prompt has its log-probability, once: in chunks, beside others, with kept cells of the same prompt,
// and when cells run out on the way.
func TestPromptLogprobs(t *testing.T) {
	for name, limits := range map[string]Limits{
		"roomy":       {Cells: 1 << 16, Sequences: 8, SequenceMax: 1 << 12, StepTokens: 128, Prefix: true},
		"few a step":  {Cells: 1 << 16, Sequences: 8, SequenceMax: 1 << 12, StepTokens: 7, Prefix: true},
		"preemptions": {Cells: 300, Sequences: 8, SequenceMax: 250, StepTokens: 32, Prefix: true},
	} {
		t.Run(name, func(t *testing.T) {
			f, sink := newFakeRunner(limits), newRecordingSink(t)
			rows := 0
			f.onStep = func(_ Adapter, slices []Slice, _ map[int]int) {
				n := 0
				for i := range slices {
					n += len(slices[i].Score.Targets)
				}
				rows = max(rows, n)
			}
			seen := &countingObserver{}
			e := startExecutor(t, f, Options{Observe: seen})
			var requests []*Request
			for id := range uint64(20) {
				r := sink.request(id, prompt(int(id/4), 1+int(id%4)*40), 100)
				r.PromptLogprobs = id%3 != 0
				requests = append(requests, r)
				submit(t, e, r)
			}
			for _, r := range requests {
				a := sink.wait(r.ID)
				checkAnswer(t, r, a)
				if r.PromptLogprobs {
					checkScores(t, r, a)
				} else if len(a.prompt) > 0 {
					t.Errorf("request %d didn't ask for log-probabilities", r.ID)
				}
			}
			if rows == 0 || rows > MaxScoredTokens {
				t.Errorf("a step computed log-probabilities of %d tokens", rows)
			}
			if name == "preemptions" && seen.preempted.Load() == 0 {
				t.Error("nothing was preempted, so this test is too easy")
			}
		})
	}
}

// A replay with tokens sends no log-probabilities of the prompt again; one without sends them all.
func TestPromptLogprobsOfReplays(t *testing.T) {
	f, sink := newFakeRunner(roomyLimits), newRecordingSink(t)
	e := startExecutor(t, f, Options{})
	first := sink.request(1, longAnswerPrompt, 10)
	first.PromptLogprobs = true
	submit(t, e, first)
	checkScores(t, first, sink.wait(1))
	again := sink.request(2, longAnswerPrompt, 10)
	again.PromptLogprobs, again.Generated = true, sink.get(1).tokens[:3]
	submit(t, e, again)
	if a := sink.wait(2); len(a.prompt) != 0 || len(a.tokens) != 7 {
		t.Errorf("a replay gave %d tokens of the prompt and %d of the answer", len(a.prompt), len(a.tokens))
	}
}

// What a prompt with log-probabilities can't use of a step is another prompt's.
func TestPromptsWithLogprobsLeaveTheRestToOthers(t *testing.T) {
	const perStep = 300
	st := newSchedulerTest(t, Limits{Cells: 2000, Sequences: 4, SequenceMax: 500, StepTokens: 500})
	st.scheduler.budget.cost = promptCost(float64(st.scheduler.budget.targetDuration) / perStep)
	st.scheduler.budget.maxPromptTokens = perStep
	st.submit("", nil, 400, 9).req.PromptLogprobs = true
	st.submit("", nil, 400, 9)
	if st.step(); st.planString() != fmt.Sprintf("0:%d 1:%d", MaxScoredTokens, perStep-MaxScoredTokens) {
		t.Errorf("step %s", st.planString())
	}
}
