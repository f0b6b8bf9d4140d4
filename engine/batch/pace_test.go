package batch

import (
	"math/rand/v2"
	"testing"
	"time"
)

// device takes a fixed time a step, and more for each decoding sequence and each prompt token.
type device struct{ fixed, sequence, prompt time.Duration }

var devices = map[string]device{
	"two cores":  {8 * time.Millisecond, 2200 * time.Microsecond, 1100 * time.Microsecond},
	"GPU":        {9 * time.Millisecond, 20 * time.Microsecond, 30 * time.Microsecond},
	"all fixed":  {30 * time.Millisecond, 0, 0},
	"no weights": {0, 1 * time.Millisecond, 1 * time.Millisecond},
}

func (d device) takes(decodes, prompts int) time.Duration {
	return d.fixed + time.Duration(decodes)*d.sequence + time.Duration(prompts)*d.prompt
}

func near(got, want time.Duration, part float64) bool {
	return float64((got - want).Abs()) <= part*float64(want)+float64(2*time.Millisecond)
}

// Steps of all kinds, up to a tenth longer or shorter than the device's rule.
func TestPaceLearnsWhatStepsTake(t *testing.T) {
	for name, d := range devices {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			p := pace{target: 50 * time.Millisecond, most: 512}
			if got := p.budget(3, true); got != firstPrompt {
				t.Errorf("first budget %d", got)
			}
			for range 200 {
				decodes, prompts := rng.IntN(33), 0
				if decodes == 0 || rng.IntN(2) == 0 {
					prompts = 1 + rng.IntN(256)
				}
				noise := 0.9 + 0.2*rng.Float64()
				p.measured(decodes, prompts, time.Duration(noise*float64(d.takes(decodes, prompts))))
			}
			for _, step := range [][2]int{{1, 0}, {8, 0}, {32, 0}, {0, 64}, {0, 512}, {8, 64}, {32, 128}} {
				if got, want := p.predict(step[0], step[1]), d.takes(step[0], step[1]); !near(got, want, 0.15) {
					t.Errorf("%d sequences and %d prompt tokens take %s, predicted %s", step[0], step[1], want, got)
				}
			}
		})
	}
}

// A crowd comes while few are decoding, and from then on every step has prompt tokens: their price must not be taken for that of a
// few tokens, or the prompts get the least for ever.
func TestPaceUnderSteadyLoad(t *testing.T) {
	for name, d := range devices {
		t.Run(name, func(t *testing.T) {
			p := pace{target: 50 * time.Millisecond, most: 512}
			p.measured(0, firstPrompt, d.takes(0, firstPrompt))
			for range 50 {
				p.measured(2, 0, d.takes(2, 0))
			}
			for range 100 {
				n := p.budget(30, true)
				p.measured(30, n, d.takes(30, n))
			}
			decoding := d.takes(30, 0)
			want := max(p.target-decoding, time.Duration(promptPart*float64(decoding)))
			n := p.budget(30, true)
			if n == p.most && d.takes(0, n)-d.fixed < want {
				return
			}
			if got := d.takes(30, n) - decoding; !near(got, want, 0.2) {
				t.Errorf("%d prompt tokens that take %s, want %s", n, got, want)
			}
		})
	}
}

func TestPaceBudget(t *testing.T) {
	d := devices["two cores"]
	p := pace{target: 50 * time.Millisecond, most: 512, prompts: true}
	p.price.parts = [3]float64{float64(d.fixed), priceDecodes * float64(d.sequence), pricePrompts * float64(d.prompt)}
	for _, tc := range []struct {
		why     string
		decodes int
		waited  bool
		want    int
	}{
		{"what decoding leaves of the target", 4, true, 30}, // 50 - 16.8 ms
		{"as much time as decoding takes", 32, true, 71},    // 78.4 ms
		{"another base or adapter waits", 0, true, 38},      // 50 - 8 ms
		{"nobody waits", 0, false, 356},                     // 400 - 8 ms
	} {
		if got := p.budget(tc.decodes, tc.waited); got != tc.want {
			t.Errorf("%s: budget(%d, %v) is %d, want %d", tc.why, tc.decodes, tc.waited, got, tc.want)
		}
	}
	p.price.parts = [3]float64{float64(time.Second), 0, float64(pricePrompts * time.Second)}
	if got := p.budget(0, true); got != minPromptTokens {
		t.Errorf("a slow device gets %d prompt tokens a step, want the least", got)
	}
	p.price.parts = [3]float64{}
	if got := p.budget(1, true); got != p.most {
		t.Errorf("a device without a price gets %d prompt tokens a step", got)
	}
}

// The machine becomes four times as slow, as when a neighbour takes its processors.
func TestPaceFollowsTheDevice(t *testing.T) {
	d := devices["two cores"]
	slow := device{4 * d.fixed, 4 * d.sequence, 4 * d.prompt}
	p := pace{target: 50 * time.Millisecond, most: 512}
	for i := range 50 {
		n := i % 2 * p.budget(8, true)
		p.measured(8, n, d.takes(8, n))
	}
	for i := range 40 {
		n := i % 2 * p.budget(8, true)
		p.measured(8, n, slow.takes(8, n))
	}
	if got, want := p.predict(8, 32), slow.takes(8, 32); !near(got, want, 0.2) {
		t.Errorf("40 steps after the device became slow a step of %s is predicted as %s", want, got)
	}
}

// One step hangs for half a minute, as when the machine was suspended.
func TestPaceForgetsAHiccup(t *testing.T) {
	d := devices["two cores"]
	p := pace{target: 50 * time.Millisecond, most: 512}
	step := func(i int) {
		n := i % 2 * p.budget(8, true)
		p.measured(8, n, d.takes(8, n))
	}
	for i := range 50 {
		step(i)
	}
	p.measured(8, 0, 30*time.Second)
	for i := range 20 {
		step(i)
	}
	if got, want := p.predict(8, 32), d.takes(8, 32); !near(got, want, 0.2) {
		t.Errorf("20 steps after the hiccup a step of %s is predicted as %s", want, got)
	}
}
