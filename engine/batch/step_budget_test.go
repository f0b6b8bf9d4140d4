package batch

import (
	"math/rand/v2"
	"testing"
	"time"
)

// simulatedDevice takes a fixed time a step, and more for each decoding sequence and each prompt token.
type simulatedDevice struct{ fixed, sequence, prompt time.Duration }

var simulatedDevices = map[string]simulatedDevice{
	"two cores":  {8 * time.Millisecond, 2200 * time.Microsecond, 1100 * time.Microsecond},
	"GPU":        {9 * time.Millisecond, 20 * time.Microsecond, 30 * time.Microsecond},
	"all fixed":  {30 * time.Millisecond, 0, 0},
	"no weights": {0, 1 * time.Millisecond, 1 * time.Millisecond},
}

func (d simulatedDevice) takes(decodes, prompts int) time.Duration {
	return d.fixed + time.Duration(decodes)*d.sequence + time.Duration(prompts)*d.prompt
}

func closeTo(got, want time.Duration, part float64) bool {
	return float64((got - want).Abs()) <= part*float64(want)+float64(2*time.Millisecond)
}

// Steps of all kinds, up to a tenth longer or shorter than the device's rule.
func TestStepBudgetLearnsWhatStepsTake(t *testing.T) {
	for name, d := range simulatedDevices {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			budget := stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512}
			if got := budget.promptTokens(3, true); got != firstPromptTokens {
				t.Errorf("first budget %d", got)
			}
			for range 200 {
				decodes, prompts := rng.IntN(33), 0
				if decodes == 0 || rng.IntN(2) == 0 {
					prompts = 1 + rng.IntN(256)
				}
				noise := 0.9 + 0.2*rng.Float64()
				budget.observe(decodes, prompts, time.Duration(noise*float64(d.takes(decodes, prompts))))
			}
			for _, step := range [][2]int{{1, 0}, {8, 0}, {32, 0}, {0, 64}, {0, 512}, {8, 64}, {32, 128}} {
				if got, want := budget.predict(step[0], step[1]), d.takes(step[0], step[1]); !closeTo(got, want, 0.15) {
					t.Errorf("%d sequences and %d prompt tokens take %s, predicted %s", step[0], step[1], want, got)
				}
			}
		})
	}
}

// A crowd comes while few are decoding, and from then on every step has prompt tokens: their cost must not be taken
// for that of a few tokens, or the prompts get the least for ever.
func TestStepBudgetUnderSteadyLoad(t *testing.T) {
	for name, d := range simulatedDevices {
		t.Run(name, func(t *testing.T) {
			budget := stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512}
			budget.observe(0, firstPromptTokens, d.takes(0, firstPromptTokens))
			for range 50 {
				budget.observe(2, 0, d.takes(2, 0))
			}
			for range 100 {
				n := budget.promptTokens(30, true)
				budget.observe(30, n, d.takes(30, n))
			}
			decoding := d.takes(30, 0)
			want := max(budget.targetDuration-decoding, time.Duration(promptShare*float64(decoding)))
			n := budget.promptTokens(30, true)
			if n == budget.maxPromptTokens && d.takes(0, n)-d.fixed < want {
				return
			}
			if got := d.takes(30, n) - decoding; !closeTo(got, want, 0.2) {
				t.Errorf("%d prompt tokens that take %s, want %s", n, got, want)
			}
		})
	}
}

func TestStepBudgetPromptTokens(t *testing.T) {
	d := simulatedDevices["two cores"]
	budget := stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512, promptSeen: true}
	budget.cost.coefficients = [3]float64{float64(d.fixed), decodeUnit * float64(d.sequence), promptUnit * float64(d.prompt)}
	for _, tc := range []struct {
		why          string
		decodes      int
		someoneWaits bool
		want         int
	}{
		{"what decoding leaves of the target", 4, true, 30}, // 50 - 16.8 ms
		{"as much time as decoding takes", 32, true, 71},    // 78.4 ms
		{"another base or adapter waits", 0, true, 38},      // 50 - 8 ms
		{"nobody waits", 0, false, 356},                     // 400 - 8 ms
	} {
		if got := budget.promptTokens(tc.decodes, tc.someoneWaits); got != tc.want {
			t.Errorf("%s: budget(%d, %v) is %d, want %d", tc.why, tc.decodes, tc.someoneWaits, got, tc.want)
		}
	}
	budget.cost.coefficients = [3]float64{float64(time.Second), 0, float64(promptUnit * time.Second)}
	if got := budget.promptTokens(0, true); got != minPromptTokens {
		t.Errorf("a slow device gets %d prompt tokens a step, want the least", got)
	}
	budget.cost.coefficients = [3]float64{}
	if got := budget.promptTokens(1, true); got != budget.maxPromptTokens {
		t.Errorf("a device without a cost gets %d prompt tokens a step", got)
	}
}

// The machine becomes four times as slow, as when a neighbour takes its processors.
func TestStepBudgetFollowsTheDevice(t *testing.T) {
	d := simulatedDevices["two cores"]
	slow := simulatedDevice{4 * d.fixed, 4 * d.sequence, 4 * d.prompt}
	budget := stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512}
	for i := range 50 {
		n := i % 2 * budget.promptTokens(8, true)
		budget.observe(8, n, d.takes(8, n))
	}
	for i := range 40 {
		n := i % 2 * budget.promptTokens(8, true)
		budget.observe(8, n, slow.takes(8, n))
	}
	if got, want := budget.predict(8, 32), slow.takes(8, 32); !closeTo(got, want, 0.2) {
		t.Errorf("40 steps after the device became slow a step of %s is predicted as %s", want, got)
	}
}

// One step hangs for half a minute, as when the machine was suspended.
func TestStepBudgetForgetsAHiccup(t *testing.T) {
	d := simulatedDevices["two cores"]
	budget := stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512}
	step := func(i int) {
		n := i % 2 * budget.promptTokens(8, true)
		budget.observe(8, n, d.takes(8, n))
	}
	for i := range 50 {
		step(i)
	}
	budget.observe(8, 0, 30*time.Second)
	for i := range 20 {
		step(i)
	}
	if got, want := budget.predict(8, 32), d.takes(8, 32); !closeTo(got, want, 0.2) {
		t.Errorf("20 steps after the hiccup a step of %s is predicted as %s", want, got)
	}
}
