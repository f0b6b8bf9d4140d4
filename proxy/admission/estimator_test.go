package admission

import (
	"math"
	"testing"
	"time"
)

var start = time.Unix(1000, 0)

// measured returns an estimator that has seen an engine do so much work a second, and answers of that many tokens to
// prompts of 100 tokens in 400 bytes.
func measured(perSecond float64, asked, generated int) *Estimator {
	e := &Estimator{}
	e.Sample(start, true)
	for i := 1; i <= 100; i++ {
		e.Add(perSecond / 10)
		e.Sample(start.Add(time.Duration(i)*100*time.Millisecond), true)
	}
	for range enoughAnswers {
		e.Answered(400, 100, asked, generated)
	}
	return e
}

func TestEstimate(t *testing.T) {
	unmeasured := &Estimator{}
	noAnswers := measured(100, 50, 50)
	noAnswers.finished = 0
	e := measured(100, 50, 50) // a request is 100 + 2 × 50 = 200 tokens of work: two seconds of a whole engine
	tests := []struct {
		name      string
		estimator *Estimator
		load      Load
		known     bool
		startTime time.Duration
		run       time.Duration
	}{
		{"speed unknown", unmeasured, Load{Sequences: 4, AtEngine: 8, Ahead: 1000, Share: 1}, false, 0, 0},
		{"lengths unknown", noAnswers, Load{Sequences: 4, AtEngine: 8, Ahead: 1000, Share: 1}, false, 0, 0},
		{"model not loaded", e, Load{AtEngine: 8, Ahead: 1000, Share: 1}, false, 0, 0},
		{"a sequence is free", e, Load{Sequences: 4, AtEngine: 3, Share: 1}, true, 0, 8 * time.Second},
		{"the next answer to end makes room", e, Load{Sequences: 4, AtEngine: 4, Share: 1}, true, 2 * time.Second, 8 * time.Second},
		{"others wait at the engine", e, Load{Sequences: 4, AtEngine: 6, Share: 1}, true, 6 * time.Second, 8 * time.Second},
		{"others wait here", e, Load{Sequences: 4, AtEngine: 4, Ahead: 600, Share: 1}, true, 8 * time.Second, 8 * time.Second},
		{"half the engine is others'", e, Load{Sequences: 4, AtEngine: 4, Ahead: 600, Share: 0.5}, true, 14 * time.Second, 8 * time.Second},
		{"no engine now, but others wait", e, Load{Sequences: 4, Ahead: 600, Share: 1}, true, 8 * time.Second, 8 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.estimator.Estimate(tt.load, Size{PromptTokens: 100, NewTokens: 50})
			near := func(a, b time.Duration) bool { return (a - b).Abs() < 10*time.Millisecond }
			if got.Known != tt.known || !near(got.Start, tt.startTime) || !near(got.Run, tt.run) {
				t.Errorf("%+v, want start %v, run %v, known %v", got, tt.startTime, tt.run, tt.known)
			}
		})
	}
}

// How long a request takes that has a sequence, by what was seen of others: each row is what one of 32 sequences did
// again and again while the engine did 1000 tokens of work a second.
func TestRun(t *testing.T) {
	ms := time.Millisecond
	type prompt struct {
		tokens int
		took   time.Duration
	}
	tests := []struct {
		name    string
		gaps    []time.Duration
		prompts []prompt
		want    time.Duration // for a prompt of 5000 tokens and 50 new ones
	}{
		{"nothing: a part of the speed", nil, nil, 5100 * 32 * ms},
		{"new tokens only: their pace, and a part of the speed", []time.Duration{200 * ms}, nil, (5000*32 + 50*200) * ms},
		{"prompts only", nil, []prompt{{5000, 10 * time.Second}}, (10_000 + 100*32) * ms},
		{"prompts as long", []time.Duration{200 * ms}, []prompt{{5000, 10_200 * ms}}, (10_000 + 50*200) * ms},
		{"short ones: what they take beyond a step", []time.Duration{200 * ms, 300 * ms}, []prompt{{50, 300 * ms}}, (5000*2 + 50*250) * ms},
		{"a long one decides", []time.Duration{200 * ms}, []prompt{{50, 700 * ms}, {5000, 15_200 * ms}}, (5000*3 + 50*200) * ms},
		{"tokens that come together are no step", []time.Duration{200 * ms, 0}, []prompt{{50, 300 * ms}}, (5000*2 + 50*100) * ms},
		{"short ones that waited: no more than a part of the speed", []time.Duration{200 * ms}, []prompt{{1, 2 * time.Second}}, (5000*32 + 50*200) * ms},
		{"short ones from a cache", []time.Duration{200 * ms}, []prompt{{50, 150 * ms}}, 50 * 200 * ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := measured(1000, 50, 50)
			for i := range 100 {
				for _, gap := range tt.gaps {
					e.Decoded(gap)
				}
				for _, p := range tt.prompts {
					e.Prefilled(p.tokens, p.took)
				}
				e.Add(100)
				e.Sample(start.Add(10*time.Second+time.Duration(i+1)*100*ms), true)
			}
			got := e.Estimate(Load{Sequences: 32, AtEngine: 40, Share: 1}, Size{PromptTokens: 5000, NewTokens: 50}).Run
			if (got - tt.want).Abs() > tt.want/50 {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// The pace of a busy engine isn't that of one with a request or two.
func TestPaceIsOfSaturatedTime(t *testing.T) {
	e := measured(1000, 50, 50)
	size, load := Size{PromptTokens: 5000, NewTokens: 50}, Load{Sequences: 32, AtEngine: 40, Share: 1}
	want := e.Estimate(load, size).Run
	for i := range 100 {
		e.Decoded(time.Millisecond)
		e.Prefilled(50, 10*time.Millisecond)
		e.Add(100)
		e.Sample(start.Add(10*time.Second+time.Duration(i+1)*100*time.Millisecond), false)
	}
	if got := e.Estimate(load, size).Run; got != want {
		t.Errorf("%v, before the engine was idle %v", got, want)
	}
}

func TestDecide(t *testing.T) {
	tests := []struct {
		name     string
		estimate Estimate
		left     time.Duration
		want     Decision
	}{
		{"nothing is known", Estimate{}, time.Second, Decision{Admit: true}},
		{"enough time", Estimate{Known: true, Start: 5 * time.Second, Run: 5 * time.Second, margin: 1.1}, 12 * time.Second, Decision{Admit: true}},
		{"too little for the margin", Estimate{Known: true, Start: 5 * time.Second, Run: 5 * time.Second, margin: 1.5}, 12 * time.Second, Decision{Wait: 3 * time.Second}},
		{"too much is ahead", Estimate{Known: true, Start: 30 * time.Second, Run: 5 * time.Second, margin: 1}, 20 * time.Second, Decision{Wait: 15 * time.Second}},
		{"soon", Estimate{Known: true, Start: 15 * time.Second, Run: 5 * time.Second, margin: 1}, 20*time.Second - 1, Decision{Wait: 1}},
		{"never in time under load: when a sequence may be free", Estimate{Known: true, Start: 4 * time.Second, Run: 50 * time.Second, margin: 1}, 20 * time.Second, Decision{Wait: 4 * time.Second}},
		{"it doesn't wait, whatever it takes", Estimate{Known: true, Run: 50 * time.Second, margin: 1}, 20 * time.Second, Decision{Admit: true}},
		{"no time at all", Estimate{Known: true, Start: 1000 * time.Hour, margin: 1}, -time.Second, Decision{Wait: 1000 * time.Hour}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.estimate.Decide(tt.left); got != tt.want {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// What the speed is measured by: only time in which the engine had as much to do as it can.
func TestSpeed(t *testing.T) {
	type sample struct {
		work      float64
		saturated bool
		after     time.Duration
	}
	repeat := func(n int, s ...sample) (all []sample) {
		for range n {
			all = append(all, s...)
		}
		return all
	}
	tick := 100 * time.Millisecond
	tests := []struct {
		name    string
		samples []sample
		want    float64
	}{
		{"too short to be known", repeat(15, sample{10, true, tick}), 0},
		{"steady", repeat(40, sample{10, true, tick}), 100},
		{"an idle engine tells nothing", append(repeat(40, sample{10, true, tick}), repeat(1000, sample{1, false, tick})...), 100},
		{"steps longer than a sample", repeat(20, sample{0, true, tick}, sample{0, true, tick}, sample{30, true, tick}), 100},
		{"a hang isn't slow work, until it goes on", append(repeat(40, sample{10, true, tick}), repeat(300, sample{0, true, tick})...), 100},
		{"faster than before", append(repeat(100, sample{10, true, tick}), repeat(600, sample{20, true, tick})...), 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e Estimator
			now := start
			e.Sample(now, true)
			for _, s := range tt.samples {
				now = now.Add(s.after)
				e.Add(s.work)
				e.Sample(now, s.saturated)
			}
			if got := e.Speed(); math.Abs(got-tt.want) > 0.02*tt.want {
				t.Errorf("speed %v, want %v", got, tt.want)
			}
		})
	}
}

func TestInterruptedTimeIsNotMeasured(t *testing.T) {
	e := measured(100, 50, 50)
	for i := range 300 {
		e.Sample(start.Add(10*time.Second+time.Duration(i)*100*time.Millisecond), true)
	}
	e.Interrupt() // the engine hung and was ended
	for i := range 100 {
		e.Add(10)
		e.Sample(start.Add(time.Minute+time.Duration(i)*100*time.Millisecond), true)
	}
	if got := e.Speed(); math.Abs(got-100) > 2 {
		t.Errorf("speed %v after a hang, want 100", got)
	}
}

func TestLengths(t *testing.T) {
	var e Estimator
	if got := e.NewTokens(512); got != 512 {
		t.Errorf("nothing known: %v of 512", got)
	}
	for range 100 {
		e.Answered(0, 10, 512, 51)
		e.Answered(0, 10, 16, 16)
	}
	for _, tt := range []struct {
		asked     int
		low, high float64
	}{{512, 50, 52}, {1000, 99, 101}, {16, 16, 16}, {64, 30, 40}, {0, 0, 0}} {
		if got := e.NewTokens(tt.asked); got < tt.low-0.01 || got > tt.high+0.01 {
			t.Errorf("%d asked for: %v expected, want %v to %v", tt.asked, got, tt.low, tt.high)
		}
	}
	e.AnsweredInPart(512, 10)
	if got := e.NewTokens(512); got < 50 {
		t.Errorf("an answer that was cut short early made others short: %v", got)
	}
	for range 200 {
		e.AnsweredInPart(512, 400)
	}
	if got := e.NewTokens(512); got < 150 {
		t.Errorf("answers that were cut short late don't count: %v", got)
	}
}

func TestPromptTokens(t *testing.T) {
	var e Estimator
	if got := e.PromptTokens(400); got != 100 {
		t.Errorf("nothing known: %v tokens in 400 bytes", got)
	}
	e.Answered(300, 0, 0, 0) // counted with another choice
	for range 10 {
		e.Answered(300, 150, 0, 0)
	}
	if got := e.PromptTokens(400); got != 200 {
		t.Errorf("two bytes a token: %v tokens in 400 bytes", got)
	}
}

// Estimates that are wrong make the next ones careful, as far as a bound.
func TestMarginFollowsErrors(t *testing.T) {
	margin := func(ratios ...float64) float64 {
		e := measured(100, 50, 50)
		for range 100 {
			for _, r := range ratios {
				e.Took(10*time.Second, time.Duration(r*float64(10*time.Second)), false)
			}
		}
		return e.Estimate(Load{Sequences: 4, AtEngine: 4, Share: 1}, Size{}).margin
	}
	if exact, vague, wrong := margin(1), margin(0.8, 1.2), margin(3); exact != minMargin || vague < 1.4 || vague > 1.8 || wrong != maxMargin {
		t.Errorf("margins %v, %v, %v", exact, vague, wrong)
	}
	e := measured(100, 50, 50)
	for range 100 {
		e.Took(10*time.Second, 5*time.Second, true)
	}
	if got := e.margin(); got != maxMargin {
		t.Errorf("margin %v when all run out of time", got)
	}
}
