package batch

import (
	"math"
	"time"
)

const (
	minPromptTokens     = 8   // a prompt advances even where its tokens take long
	firstPromptTokens   = 128 // prompt tokens of a step while their cost is unknown
	relaxedTargetFactor = 20  // a step may take this many targets while nobody waits for a next token
	// Prompts get at least so many times the time that decoding takes: as many as waitShare times their wait by that of
	// the answers in progress, between the other two.
	leastPromptShare = 0.25
	promptShare      = 2.5
	waitShare        = 3
)

// stepBudget keeps steps near a target duration: it limits what a step's prompt tokens may take by the cost of earlier
// steps. Where decoding alone takes a good part of the target, prompts may make the step a few times as long as
// decoding alone: with a few tokens a step, sequences would join the batch so late that all answers came later.
type stepBudget struct {
	targetDuration  time.Duration
	maxPromptTokens int // prompt tokens of a step at most
	cost            stepCost
	promptSeen      bool // a step with prompt tokens was seen
}

// newStepBudget takes what a runner measured before.
func newStepBudget(o Options, r Runner) stepBudget {
	b := stepBudget{targetDuration: o.TargetStep, maxPromptTokens: o.StepTokens}
	measurer, ok := r.(StepMeasurer)
	if !ok {
		return b
	}
	for _, m := range measurer.MeasuredSteps() {
		b.cost.several = false // with so few steps that of one token has to count for the others, too
		cells := m.Decodes + attendedCells(0, m.Prompts)
		b.observe(stepWork{decodes: m.Decodes, prompts: m.Prompts, cells: cells}, m.Took)
	}
	b.cost.several = true
	b.cost.assumeCells()
	return b
}

// promptAllowance is what a step's prompt tokens may take together.
type promptAllowance struct {
	ns    float64
	least int // tokens that it may have even if they take longer
	most  int
}

// divide is one of so many equal parts.
func (a promptAllowance) divide(parts int) promptAllowance {
	return promptAllowance{ns: a.ns / float64(parts), least: a.least, most: max(a.most/parts, a.least)}
}

// allowPrompts is what the prompt tokens of the next step may take beside its decoding: share times as long, or what
// that leaves of the target. someoneWaits: another sequence waits for its next token meanwhile.
func (b *stepBudget) allowPrompts(decoding stepWork, share float64, someoneWaits bool) promptAllowance {
	a := promptAllowance{ns: math.Inf(1), least: min(minPromptTokens, b.maxPromptTokens), most: b.maxPromptTokens}
	if !b.promptSeen {
		a.most = min(firstPromptTokens, a.most)
		return a
	}
	decodeTime := b.cost.predict(decoding)
	a.ns = float64(b.targetDuration)
	switch {
	case decoding.decodes > 0:
		a.ns = max(a.ns-decodeTime, share*decodeTime)
	case someoneWaits:
		a.ns -= decodeTime
	default:
		a.ns = a.ns*relaxedTargetFactor - decodeTime
	}
	return a
}

// promptTokens is how many tokens that follow on so many others an allowance is worth.
func (b *stepBudget) promptTokens(a promptAllowance, position int) int {
	return max(b.cost.promptTokensWithin(a.ns, position, a.most), a.least)
}

// observe learns from one step.
func (b *stepBudget) observe(w stepWork, took time.Duration) {
	b.promptSeen = b.promptSeen || w.prompts > 0
	b.cost.observe(w, float64(took))
}

// predict is how long such a step would take; 0 while unknown.
func (b *stepBudget) predict(w stepWork) time.Duration { return time.Duration(b.cost.predict(w)) }
