package batch

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// simulatedDevice takes a fixed time a step, and more for each decoding sequence, prompt token and attended cell.
type simulatedDevice struct{ fixed, sequence, prompt, cell time.Duration }

// device takes some time for a step.
type device interface {
	takes(stepWork) time.Duration
}

var simulatedDevices = map[string]simulatedDevice{
	"two cores":  {8 * time.Millisecond, 2200 * time.Microsecond, 1100 * time.Microsecond, 1500 * time.Nanosecond},
	"GPU":        {9 * time.Millisecond, 20 * time.Microsecond, 30 * time.Microsecond, 2 * time.Nanosecond},
	"all fixed":  {30 * time.Millisecond, 0, 0, 0},
	"no weights": {0, 1 * time.Millisecond, 1 * time.Millisecond, 0},
}

func (d simulatedDevice) takes(w stepWork) time.Duration {
	return d.fixed + time.Duration(w.decodes)*d.sequence + time.Duration(w.prompts)*d.prompt + time.Duration(w.cells)*d.cell
}

// short is work with few cells.
func short(decodes, prompts int) stepWork {
	return stepWork{decodes: decodes, prompts: prompts, cells: 50*decodes + attendedCells(0, prompts)}
}

func closeTo(got, want time.Duration, part float64) bool {
	return float64((got - want).Abs()) <= part*float64(want)+float64(2*time.Millisecond)
}

// promptsBeside is how many tokens of a new prompt the next step may have beside some decoding.
func (b *stepBudget) promptsBeside(decoding stepWork) int {
	return b.promptTokens(b.allowPrompts(decoding, promptShare, true), 0)
}

// Steps of all kinds, up to a tenth longer or shorter than the device's rule.
func TestStepBudgetLearnsWhatStepsTake(t *testing.T) {
	for name, d := range simulatedDevices {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, 2))
			budget := stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512}
			if got := budget.promptsBeside(short(3, 0)); got != firstPromptTokens {
				t.Errorf("first budget %d", got)
			}
			for range 200 {
				w := stepWork{decodes: rng.IntN(33)}
				w.cells = w.decodes * rng.IntN(3000)
				if w.decodes == 0 || rng.IntN(2) == 0 {
					w.prompts = 1 + rng.IntN(256)
					w.cells += attendedCells(rng.IntN(3000), w.prompts)
				}
				noise := 0.9 + 0.2*rng.Float64()
				budget.observe(w, time.Duration(noise*float64(d.takes(w))))
			}
			for _, w := range []stepWork{short(1, 0), short(8, 0), short(32, 0), short(0, 64), short(0, 512), short(8, 64), short(32, 128),
				{1, 0, 8000}, {0, 64, attendedCells(5000, 64)}, {4, 32, 2000 + attendedCells(2000, 32)}} {
				if got, want := budget.predict(w), d.takes(w); !closeTo(got, want, 0.15) {
					t.Errorf("%+v takes %s, predicted %s", w, want, got)
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
			budget.observe(short(0, firstPromptTokens), d.takes(short(0, firstPromptTokens)))
			for range 50 {
				budget.observe(short(2, 0), d.takes(short(2, 0)))
			}
			for range 100 {
				n := budget.promptsBeside(short(30, 0))
				budget.observe(short(30, n), d.takes(short(30, n)))
			}
			decoding := d.takes(short(30, 0))
			want := max(budget.targetDuration-decoding, time.Duration(promptShare*float64(decoding)))
			n := budget.promptsBeside(short(30, 0))
			got := d.takes(short(30, n)) - decoding
			if n == budget.maxPromptTokens && got < want {
				return
			}
			if !closeTo(got, want, 0.2) {
				t.Errorf("%d prompt tokens that take %s, want %s", n, got, want)
			}
		})
	}
}

// besideStreams is a budget after some time of four streams, their work in a step, and how long a step with prompt
// tokens should take beside them.
func besideStreams(d simulatedDevice) (budget stepBudget, streams stepWork, want time.Duration) {
	budget = stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512}
	budget.observe(short(0, 48), d.takes(short(0, 48)))
	streams = short(4, 0)
	for range 100 {
		budget.observe(streams, d.takes(streams))
	}
	return budget, streams, max(budget.targetDuration, time.Duration((1+promptShare)*float64(d.takes(streams))))
}

// The further a long prompt gets, the more each of its tokens takes. That must not be taken for the cost of decoding,
// of which prompts may take a multiple: steps would grow with the prompt.
func TestStepsOfALongPromptKeepTheirLength(t *testing.T) {
	d := simulatedDevices["two cores"]
	budget, streams, want := besideStreams(d)
	for position := 0; position < 5000; {
		n := budget.promptTokens(budget.allowPrompts(streams, promptShare, true), position)
		w := stepWork{decodes: streams.decodes, prompts: n, cells: streams.cells + attendedCells(position, n)}
		took := d.takes(w)
		if n > minPromptTokens && took > want*115/100 {
			t.Fatalf("at %d the step has %d prompt tokens and takes %s, want about %s", position, n, took, want)
		}
		if position > 1000 && took < want*3/4 {
			t.Fatalf("at %d the step has only %d prompt tokens and takes %s, want about %s", position, n, took, want)
		}
		budget.observe(w, took)
		position += n
	}
}

// While a long prompt comes beside streams, another process takes the processors for some steps. Steps of both speeds
// together must not be read as something that they aren't, and steps have their length again soon after.
func TestStepBudgetAfterATimeOfSlowSteps(t *testing.T) {
	d := simulatedDevices["two cores"]
	for _, slowdown := range []time.Duration{2, 5, 20} {
		slow := simulatedDevice{slowdown * d.fixed, slowdown * d.sequence, slowdown * d.prompt, slowdown * d.cell}
		budget, streams, want := besideStreams(d)
		position := 0
		for i := range 100 {
			n := budget.promptTokens(budget.allowPrompts(streams, promptShare, true), position)
			w := stepWork{decodes: streams.decodes, prompts: n, cells: streams.cells + attendedCells(position, n)}
			device := d
			if i >= 20 && i < 50 {
				device = slow
			}
			took := device.takes(w)
			if i >= 50+speedSteps && took > want*115/100 {
				t.Fatalf("%d times as slow: %d steps later a step has %d prompt tokens and takes %s, want %s", slowdown, i-50, n, took, want)
			}
			budget.observe(w, took)
			position += n
		}
	}
}

func TestStepBudgetPromptTokens(t *testing.T) {
	d := simulatedDevices["two cores"]
	budget := stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512, promptSeen: true}
	budget.cost.coefficients = costVector{float64(d.fixed), decodeUnit * float64(d.sequence), promptUnit * float64(d.prompt), 0}
	for _, tc := range []struct {
		why          string
		decodes      int
		someoneWaits bool
		want         int
	}{
		{"what decoding leaves of the target", 1, true, 36},         // 50 - 10.2 ms
		{"a multiple of the time that decoding takes", 4, true, 38}, // 2.5 · 16.8 ms
		{"the same of many", 32, true, 178},                         // 2.5 · 78.4 ms
		{"another base or adapter waits", 0, true, 38},              // 50 - 8 ms
		{"nobody waits: all that a step takes", 0, false, 512},      // 1000 - 8 ms
	} {
		if got := budget.promptTokens(budget.allowPrompts(short(tc.decodes, 0), promptShare, tc.someoneWaits), 0); got != tc.want {
			t.Errorf("%s: %d prompt tokens beside %d sequences (%v), want %d", tc.why, got, tc.decodes, tc.someoneWaits, tc.want)
		}
	}
	budget.cost.coefficients = costVector{float64(time.Second), 0, float64(promptUnit * time.Second), 0}
	if got := budget.promptsBeside(stepWork{}); got != minPromptTokens {
		t.Errorf("a slow device gets %d prompt tokens a step, want the least", got)
	}
	budget.cost.coefficients = costVector{}
	if got := budget.promptsBeside(short(1, 0)); got != budget.maxPromptTokens {
		t.Errorf("a device without a cost gets %d prompt tokens a step", got)
	}
}

// What a number of tokens takes is what that many tokens are had for.
func TestPromptTokensWithinATime(t *testing.T) {
	for name, d := range simulatedDevices {
		c := stepCost{coefficients: costVector{float64(d.fixed), decodeUnit * float64(d.sequence), promptUnit * float64(d.prompt), cellUnit * float64(d.cell)}}
		for _, position := range []int{0, 10, 5000} {
			for _, n := range []int{0, 1, 17, 400} {
				ns := c.prompt(position, n)
				got := c.promptTokensWithin(ns, position, 512)
				if c.prompt(position, 1) == 0 {
					n = 512
				}
				if got < n-1 || got > n {
					t.Errorf("%s: %d tokens at %d within the %g ns of %d", name, got, position, ns, n)
				}
			}
		}
	}
}

// The machine becomes four times as slow, as when a neighbour takes its processors.
func TestStepBudgetFollowsTheDevice(t *testing.T) {
	d := simulatedDevices["two cores"]
	slow := simulatedDevice{4 * d.fixed, 4 * d.sequence, 4 * d.prompt, 4 * d.cell}
	budget := stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512}
	steps := func(d simulatedDevice, n int) {
		for i := range n {
			w := short(8, i%2*budget.promptsBeside(short(8, 0)))
			budget.observe(w, d.takes(w))
		}
	}
	steps(d, 50)
	steps(slow, 40)
	if got, want := budget.predict(short(8, 32)), slow.takes(short(8, 32)); !closeTo(got, want, 0.2) {
		t.Errorf("40 steps after the device became slow a step of %s is predicted as %s", want, got)
	}
}

// Where small steps have a smaller fixed part, as with the kernels of a CPU, some of them don't make large ones look
// cheap.
func TestStepBudgetAfterSmallSteps(t *testing.T) {
	large, small := simulatedDevice{fixed: 25 * time.Millisecond, sequence: 2 * time.Millisecond, prompt: time.Millisecond}, simulatedDevice{fixed: 4 * time.Millisecond, sequence: time.Millisecond}
	budget := stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512}
	for i := range 60 {
		w := short(24+i%5, i%3*16)
		budget.observe(w, large.takes(w))
	}
	for i := range 12 {
		rows := 3
		if i%4 == 3 {
			rows = 12
		}
		budget.observe(short(rows, 0), small.takes(short(rows, 0)))
	}
	if got, want := budget.predict(short(26, 16)), large.takes(short(26, 16)); !closeTo(got, want, 0.3) {
		t.Errorf("a large step takes %s, predicted %s", want, got)
	}
}

// While all steps have about as many sequences, that of one token tells what a few take.
func TestStepBudgetOfAFewAfterMany(t *testing.T) {
	d := simulatedDevice{5 * time.Millisecond, 1900 * time.Microsecond, 900 * time.Microsecond, 500 * time.Nanosecond}
	rng := rand.New(rand.NewPCG(1, 2))
	budget := newStepBudget(Options{TargetStep: 50 * time.Millisecond, StepTokens: 512}, measuredRunner{nil, measuredSteps(d, 32)})
	for range 2000 {
		w := short(27+rng.IntN(3), 0)
		budget.observe(w, time.Duration((0.8+0.4*rng.Float64())*float64(d.takes(w))))
	}
	for _, w := range []stepWork{short(3, 0), short(8, 0), short(28, 0)} {
		if got, want := budget.predict(w), d.takes(w); !closeTo(got, want, 0.2) {
			t.Errorf("%+v takes %s, predicted %s", w, want, got)
		}
	}
}

// One step hangs for half a minute, as when the machine was suspended.
func TestStepBudgetForgetsAHiccup(t *testing.T) {
	d := simulatedDevices["two cores"]
	budget := stepBudget{targetDuration: 50 * time.Millisecond, maxPromptTokens: 512}
	step := func(i int) {
		w := short(8, i%2*budget.promptsBeside(short(8, 0)))
		budget.observe(w, d.takes(w))
	}
	for i := range 50 {
		step(i)
	}
	budget.observe(short(8, 0), 30*time.Second)
	for i := range 20 {
		step(i)
	}
	if got, want := budget.predict(short(8, 32)), d.takes(short(8, 32)); !closeTo(got, want, 0.2) {
		t.Errorf("20 steps after the hiccup a step of %s is predicted as %s", want, got)
	}
}

// measuredRunner has timed steps before it is attached.
type measuredRunner struct {
	Runner
	steps []MeasuredStep
}

func (r measuredRunner) MeasuredSteps() []MeasuredStep { return r.steps }

// measuredSteps is what a device takes for the steps of a load: part of a prompt, a token of each of so many sequences,
// of eight and of two, and one token.
func measuredSteps(d device, sequences int) []MeasuredStep {
	steps := []MeasuredStep{{Prompts: 32}, {Decodes: sequences}, {Decodes: 8}, {Decodes: 2}, {Decodes: 1}}
	for i := range steps {
		s := &steps[i]
		s.Took = d.takes(stepWork{s.Decodes, s.Prompts, s.Decodes + attendedCells(0, s.Prompts)})
	}
	return steps
}

// What was measured when a model was loaded decides the first steps of its requests: a crowd's first prompts beside
// answers take what they may, and not what a guess of tokens takes.
func TestStepBudgetFromMeasuredSteps(t *testing.T) {
	for name, d := range simulatedDevices {
		t.Run(name, func(t *testing.T) {
			budget := newStepBudget(Options{TargetStep: 50 * time.Millisecond, StepTokens: 512}, measuredRunner{nil, measuredSteps(d, 32)})
			for _, w := range []stepWork{short(1, 0), short(8, 0), short(32, 0), short(0, 64), short(0, 128), short(8, 64)} {
				if got, want := budget.predict(w), d.takes(w); !closeTo(got, want, 0.2) {
					t.Errorf("%+v takes %s, predicted %s", w, want, got)
				}
			}
		})
	}
}

// Where a token alone has other kernels, as on a CPU, and steps take half or twice as long as they should, since other
// programs run, a step of some sequences is always predicted to take less than one of many, by the part that it does:
// also when there were only steps of a few for some time, or only large ones.
func TestStepBudgetOnANoisyMachine(t *testing.T) {
	budget := newStepBudget(Options{TargetStep: 50 * time.Millisecond, StepTokens: 512}, measuredRunner{nil, measuredSteps(smolLM2{}, 32)})
	random := rand.New(rand.NewPCG(1, 1))
	predict := func(decodes int) float64 { return float64(budget.predict(short(decodes, 0))) }
	want := func(decodes int) float64 { return float64((smolLM2{}).takes(short(decodes, 0))) }
	for i := range 4000 {
		w := short(4, 0)
		switch n := random.IntN(8); {
		case i/500%4 == 1 && n > 0: // one or two sequences
			w = short(1+n%2, 0)
		case i/500%4 == 3: // about as many in each
			w = short(21+random.IntN(3), 24+random.IntN(6))
		case n == 0: // many
			w = short(20+random.IntN(9), random.IntN(60))
		case n < 3:
			w = short(5+random.IntN(9), random.IntN(10))
		}
		noise := math.Exp(0.35 * random.NormFloat64())
		budget.observe(w, time.Duration(noise*float64((smolLM2{}).takes(w))))
		if i < 200 {
			continue
		}
		if got, want := predict(28)/predict(4), want(28)/want(4); got < want/2 || got > 2*want {
			t.Errorf("after %d steps, one of 28 is predicted to take %.2f times as long as one of 4, want %.2f", i, got, want)
		}
		for _, n := range []int{1, 2, 4, 28} {
			if got, want := predict(n), want(n); got < 0.4*want || got > 2*want {
				t.Errorf("after %d steps, one of %d is predicted to take %.1f ms, want %.1f", i, n, got/1e6, want/1e6)
			}
		}
		if t.Failed() {
			return
		}
	}
}
