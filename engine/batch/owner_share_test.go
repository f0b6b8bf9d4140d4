package batch

import (
	"math"
	"strings"
	"testing"
	"time"
)

// ownersTest has sequences of several owners in the slots of a scheduler that knows what a device's steps take.
type ownersTest struct{ *loadTest }

func newOwnersTest(t *testing.T, d device) *ownersTest {
	return &ownersTest{newLoadTest(t, d)}
}

// decode has so many sequences of an owner that decode without end.
func (o *ownersTest) decode(owner string, weight float64, sequences int) {
	for range sequences {
		q := o.submit(owner, nil, 2, 1000)
		q.req.OwnerWeight = weight
	}
	for o.decoding(owner) < sequences {
		o.step()
	}
}

func (o *ownersTest) decoding(owner string) (n int) {
	for i := range o.scheduler.slots {
		if q := o.scheduler.slots[i].seq; q != nil && q.req.Owner == owner && q.decoding() {
			n++
		}
	}
	return n
}

// rows is how many sequences of each owner are in the last step.
func (o *ownersTest) rows() map[string]int {
	rows := make(map[string]int)
	for _, it := range o.plan.items {
		if !it.prompt {
			rows[it.seq.req.Owner]++
		}
	}
	return rows
}

// The owners with the least to compute are in each step, and steps take as much longer than theirs alone as they should
// by the weights, on average.
func TestStepsOfOwners(t *testing.T) {
	type owner struct {
		name      string
		weight    float64
		sequences int
	}
	gpu, twoCores := simulatedDevices["GPU"], simulatedDevices["two cores"]
	for name, tc := range map[string]struct {
		device  device
		owners  []owner
		light   string  // each of these letters is an owner that is in each step with all of its sequences
		stretch float64 // 0: all sequences are in each step
	}{
		"one owner":                            {xeon, []owner{{"a", 1, 32}}, "a", 0},
		"one sequence beside many":             {xeon, []owner{{"a", 1, 1}, {"b", 1, 28}}, "a", 2},
		"a few beside many":                    {xeon, []owner{{"a", 1, 4}, {"b", 1, 28}}, "a", 2},
		"another device":                       {twoCores, []owner{{"a", 1, 2}, {"b", 1, 28}}, "a", 2},
		"alike":                                {xeon, []owner{{"a", 1, 14}, {"b", 1, 14}}, "ab", 0},
		"nearly alike":                         {xeon, []owner{{"a", 1, 14}, {"b", 1, 16}}, "ab", 0},
		"a quarter of the weight":              {xeon, []owner{{"a", 1, 1}, {"b", 3, 28}}, "a", 4},
		"three quarters of the weight":         {xeon, []owner{{"a", 3, 1}, {"b", 1, 28}}, "a", 4. / 3},
		"two small ones":                       {xeon, []owner{{"a", 1, 1}, {"b", 1, 1}, {"c", 1, 28}}, "ab", 1.5},
		"a small, a middle and a large one":    {xeon, []owner{{"a", 1, 1}, {"b", 1, 8}, {"c", 1, 20}}, "a", 3},
		"many owners with one":                 {xeon, []owner{{"a", 1, 1}, {"b", 1, 1}, {"c", 1, 1}, {"d", 1, 1}, {"e", 1, 2}}, "abcde", 0},
		"where sequences cost next to nothing": {gpu, []owner{{"a", 1, 1}, {"b", 1, 28}}, "ab", 0},
		"where they cost all of it":            {simulatedDevices["no weights"], []owner{{"a", 1, 1}, {"b", 1, 28}}, "a", 2},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOwnersTest(t, tc.device)
			for _, w := range tc.owners {
				o.decode(w.name, w.weight, w.sequences)
			}
			const steps = 60
			began, tokens := o.now, make(map[string]int)
			lightRows := 0
			for _, w := range tc.owners {
				if strings.Contains(tc.light, w.name) {
					lightRows += w.sequences
				}
			}
			alone := tc.device.takes(short(lightRows, 0))
			for range steps {
				for _, w := range tc.owners {
					o.scheduler.use.add(w.name, float64(useMemory), o.now) // as much as there is
				}
				o.step()
				for owner, n := range o.rows() {
					tokens[owner] += n
				}
			}
			for _, w := range tc.owners {
				if n := tokens[w.name]; n == 0 || strings.Contains(tc.light, w.name) && n != steps*w.sequences {
					t.Errorf("%d tokens of %d sequences of %s in %d steps", n, w.sequences, w.name, steps)
				}
			}
			if got := (o.now - began).Seconds() / alone.Seconds() / steps; tc.stretch > 0 && math.Abs(got-tc.stretch) > 0.15*tc.stretch {
				t.Errorf("steps take %.2f times those of %s alone, want %.2f", got, tc.light, tc.stretch)
			}
		})
	}
}

// Sequences that don't all have room in a step take turns, so each gets as many tokens as any other of its owner.
func TestSequencesOfAnOwnerTakeTurns(t *testing.T) {
	o := newOwnersTest(t, xeon)
	o.decode("small", 1, 2)
	o.decode("large", 1, 20)
	answered := make(map[*sequence]int)
	for i := range o.scheduler.slots {
		if q := o.scheduler.slots[i].seq; q != nil {
			answered[q] = q.answerTokens()
		}
	}
	const steps = 100
	for range steps {
		o.step()
	}
	least, most := steps, 0
	for q, before := range answered {
		n := q.answerTokens() - before
		if q.req.Owner == "small" {
			if n != steps {
				t.Errorf("%d tokens in %d steps", n, steps)
			}
			continue
		}
		least, most = min(least, n), max(most, n)
	}
	if least == 0 || most > least+1 || most > steps/2 {
		t.Errorf("%d to %d tokens in %d steps", least, most, steps)
	}
}

// Prompts of the others advance, long ones and short ones, and those of the lightest owner are computed as if it were
// alone.
func TestPromptsInDividedSteps(t *testing.T) {
	o := newOwnersTest(t, xeon)
	o.decode("small", 1, 1)
	o.decode("large", 1, 20)
	long, short := o.submit("large", nil, 3000, 4), o.submit("large", nil, 40, 4)
	own := o.submit("small", nil, 20, 4)
	o.step()
	if own.filled != 20 {
		t.Errorf("%d of 20 tokens of the lightest owner's prompt in the first step", own.filled)
	}
	const round = 6 // steps within which the others have one
	for i := range 20 {
		filled := long.filled
		for range round {
			o.step()
		}
		if long.filled == filled {
			t.Errorf("after %d steps, %d had none of the long prompt: %s", i*round, round, o.planString())
		}
	}
	if !short.decoding() {
		t.Errorf("%d of the short prompt's tokens after %d of the long one's", short.filled, long.filled)
	}
}

// The prompts of all owners together have no more scored tokens in a step than a runner has rows for.
func TestScoredPromptsOfSeveralOwners(t *testing.T) {
	o := newOwnersTest(t, simulatedDevice{fixed: 20 * time.Millisecond, sequence: time.Millisecond, prompt: 300 * time.Microsecond})
	o.decode("large", 1, 20)
	var prompts []*sequence
	for _, owner := range []string{"small", "large", "large"} {
		q := o.submit(owner, nil, 300, 4)
		q.req.PromptLogprobs = true
		prompts = append(prompts, q)
	}
	for !prompts[0].decoding() || !prompts[1].decoding() || !prompts[2].decoding() {
		if o.step(); o.plan.scoredTokens() > MaxScoredTokens {
			t.Fatalf("%d scored tokens in a step: %s", o.plan.scoredTokens(), o.planString())
		}
	}
}

// Where a step's fixed part is longer than the step's target, as with weights of some GB on a CPU, light owners'
// prompts are computed all the same, and the others go on beside them.
func TestPromptsBesideLongSteps(t *testing.T) {
	o := newOwnersTest(t, simulatedDevice{100 * time.Millisecond, 4 * time.Millisecond, 500 * time.Microsecond, 0})
	o.decode("large", 1, 12)
	prompts := []*sequence{o.submit("a", nil, 1000, 2), o.submit("b", nil, 1000, 2)}
	steps, large := 0, 0
	for ; !prompts[0].decoding() || !prompts[1].decoding(); steps++ {
		if o.step(); steps > 200 {
			t.Fatalf("%d and %d tokens of 1000 after %d steps", prompts[0].filled, prompts[1].filled, steps)
		}
		large += o.rows()["large"]
	}
	if large < steps {
		t.Errorf("%d tokens of the others in %d steps", large, steps)
	}
}

// An owner of next to no weight goes on: it keeps its slots until its answers end.
func TestOwnerOfSmallWeightGoesOn(t *testing.T) {
	o := newOwnersTest(t, xeon)
	o.decode("b", 0.01, 10)
	o.decode("a", 100, 1)
	tokens := 0
	for range 200 {
		o.step()
		tokens += o.rows()["b"]
	}
	if tokens < 10 {
		t.Errorf("%d tokens of ten sequences in 200 steps", tokens)
	}
}

// While steps are divided nobody awaits a beginning that another owner computes, which may have little of each step.
func TestNoWaitForAnotherOwnersPrompt(t *testing.T) {
	for name, several := range map[string]bool{"one owner lately": false, "several owners lately": true} {
		o := newOwnersTest(t, xeon)
		if several {
			o.scheduler.use.add("a", float64(time.Second), o.now)
			o.scheduler.use.add("b", float64(time.Second), o.now)
		}
		leader := o.submit("b", nil, 1000, 4)
		o.step()
		q := o.submit("a", nil, 1000, 4)
		copy(q.tokens, leader.tokens[:900])
		o.step()
		if awaits := q.stage == stageAwaiting; awaits == several {
			t.Errorf("%s: awaits the beginning: %v", name, awaits)
		}
	}
}

// A step of one token that was disturbed, or is from when the machine was slower, isn't believed.
func TestLoneStepThatTookTooLong(t *testing.T) {
	budget := newStepBudget(Options{TargetStep: 50 * time.Millisecond, StepTokens: 512}, measuredRunner{nil, measuredSteps(xeon, 32)})
	budget.cost.lone = float64(time.Second)
	for range 40 {
		budget.observe(short(16, 0), xeon.takes(short(16, 0)))
	}
	if got, want := budget.predict(short(16, 0)), xeon.takes(short(16, 0)); !closeTo(got, want, 0.2) {
		t.Errorf("16 sequences take %s, predicted %s", want, got)
	}
	if got := budget.predict(short(1, 0)); got > budget.predict(short(16, 0)) {
		t.Errorf("one token alone is predicted to take %s", got)
	}
	budget.observe(short(1, 0), xeon.takes(short(1, 0)))
	if got, want := budget.predict(short(1, 0)), xeon.takes(short(1, 0)); !closeTo(got, want, 0.1) {
		t.Errorf("one token alone takes %s, predicted %s", want, got)
	}
}

// A sequence that waits for the draw of a token will be in the next step, which should come soon.
func TestDrawingCountsAsRow(t *testing.T) {
	o := newOwnersTest(t, xeon)
	o.decode("small", 1, 1)
	o.decode("large", 1, 28)
	for i := range o.scheduler.slots {
		if q := o.scheduler.slots[i].seq; q != nil && q.req.Owner == "small" {
			q.stage = stageDrawing
		}
	}
	if o.step(); o.rows()["large"] > 10 {
		t.Errorf("%v in a step beside a draw", o.rows())
	}
}

func TestStretch(t *testing.T) {
	const share = 0.25
	var u ownerUse
	if got := stretch(u.of("a", 0), share); got != leastStretch {
		t.Errorf("an owner that used nothing: %g", got)
	}
	if got := stretch(1, 0.9); got != 1/0.9 {
		t.Errorf("an owner whose share is nine tenths: %g", got)
	}
	for now := time.Duration(0); now < 5*useMemory; now += time.Millisecond {
		u.add("a", share*float64(time.Millisecond), now)
	}
	now := 5 * useMemory
	if got := stretch(u.of("a", now), share); got < 0.95/share || got > 1/share {
		t.Errorf("an owner that used its share: %g", got)
	}
	if got := stretch(u.of("a", now+useMemory), share); got < leastStretch || got > 0.5/share {
		t.Errorf("later: %g", got)
	}
	if u.of("a", now+30*useMemory); len(u.ns) > 0 {
		t.Errorf("long after, there is still %v", u.ns)
	}
}

// Where steps don't mix adapters, steps that are divided between owners don't make the turns of other adapters come
// later: a turn has as many steps as if all of its sequences were in each.
func TestDividedStepsKeepTheTurnsOfAdapters(t *testing.T) {
	o := newOwnersTest(t, xeon)
	o.scheduler.limits.MixedAdapters = false
	o.decode("small", 1, 1)
	o.decode("large", 1, 25)
	other := o.submit("small", &fakeAdapter{"other"}, 2, 1000)
	for !other.decoding() {
		o.step()
	}
	longest, waited := 0, 0
	for range 300 {
		o.step()
		if waited++; o.plan.items[0].seq == other {
			longest, waited = max(longest, waited), 0
		}
	}
	if most := int(o.scheduler.stepsOfTurn) + 1; longest == 0 || longest > most {
		t.Errorf("the other adapter waits for %d steps, want at most %d", longest, most)
	}
}
