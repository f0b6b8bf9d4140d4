package batch

import (
	"maps"
	"testing"
	"time"
)

// ownersTest has sequences of several owners in the slots of a scheduler that knows what a device's steps take.
type ownersTest struct{ *loadTest }

func newOwnersTest(t *testing.T, d simulatedDevice) *ownersTest {
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

// The lightest owner's sequences are in each step, with as many of the others as take the time that is theirs.
func TestRowsOfOwners(t *testing.T) {
	type owner struct {
		name      string
		weight    float64
		sequences int
	}
	for name, tc := range map[string]struct {
		device simulatedDevice
		owners []owner
		want   map[string]int
	}{
		"one owner":                             {xeon, []owner{{"a", 1, 32}}, map[string]int{"a": 32}},
		"one sequence beside many":              {xeon, []owner{{"a", 1, 1}, {"b", 1, 28}}, map[string]int{"a": 1, "b": 3}},
		"a few beside many":                     {xeon, []owner{{"a", 1, 4}, {"b", 1, 28}}, map[string]int{"a": 4, "b": 6}},
		"alike":                                 {xeon, []owner{{"a", 1, 14}, {"b", 1, 14}}, map[string]int{"a": 14, "b": 14}},
		"nearly alike":                          {xeon, []owner{{"a", 1, 14}, {"b", 1, 15}}, map[string]int{"a": 14, "b": 15}},
		"a quarter of the weight":               {xeon, []owner{{"a", 1, 4}, {"b", 3, 28}}, map[string]int{"a": 4, "b": 19}},
		"the weights of three":                  {xeon, []owner{{"a", 1, 1}, {"b", 1, 14}, {"c", 2, 14}}, map[string]int{"a": 1, "b": 4, "c": 6}},
		"many owners with one":                  {xeon, []owner{{"a", 1, 1}, {"b", 1, 1}, {"c", 1, 1}, {"d", 1, 1}, {"e", 1, 9}}, map[string]int{"a": 1, "b": 1, "c": 1, "d": 1, "e": 9}},
		"where sequences cost next to nothing":  {simulatedDevices["GPU"], []owner{{"a", 1, 1}, {"b", 1, 28}}, map[string]int{"a": 1, "b": 28}},
		"where a step's time is all sequences'": {simulatedDevices["no weights"], []owner{{"a", 1, 1}, {"b", 1, 28}}, map[string]int{"a": 1, "b": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOwnersTest(t, tc.device)
			for _, w := range tc.owners {
				o.decode(w.name, w.weight, w.sequences)
			}
			for _, w := range tc.owners {
				o.scheduler.use.add(w.name, float64(useMemory), o.now) // as much as there is
			}
			o.step()
			if got := o.rows(); !maps.Equal(got, tc.want) {
				t.Errorf("rows %v, want %v", got, tc.want)
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

// Prompts of the others advance in every other step, long ones and short ones, and those of the lightest owner are computed as
// if it were alone.
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
	for i := range 50 {
		filled := long.filled
		o.step()
		if o.step(); long.filled == filled {
			t.Errorf("after %d steps two had none of the long prompt: %s", 2*i, o.planString())
		}
	}
	if !short.decoding() {
		t.Errorf("%d of the short prompt's tokens after %d of the long one's", short.filled, long.filled)
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
	if o.step(); o.rows()["large"] > 4 {
		t.Errorf("%v in a step beside a draw", o.rows())
	}
}

func TestStretch(t *testing.T) {
	const share = 0.25
	var u ownerUse
	if got := u.stretch("a", share, 0); got != leastStretch {
		t.Errorf("an owner that used nothing: %g", got)
	}
	if got := u.stretch("a", 0.9, 0); got != 1/0.9 {
		t.Errorf("an owner whose share is nine tenths: %g", got)
	}
	for now := time.Duration(0); now < 5*useMemory; now += time.Millisecond {
		u.add("a", share*float64(time.Millisecond), now)
	}
	now := 5 * useMemory
	if got := u.stretch("a", share, now); got < 0.95/share || got > 1/share {
		t.Errorf("an owner that used its share: %g", got)
	}
	if got := u.stretch("a", share, now+useMemory); got < leastStretch || got > 0.5/share {
		t.Errorf("later: %g", got)
	}
	if u.stretch("a", share, now+30*useMemory); len(u.ns) > 0 {
		t.Errorf("long after, there is still %v", u.ns)
	}
}
