package batch

import "time"

const (
	minPromptTokens     = 16  // a prompt advances even where decoding alone takes longer than the target
	firstPromptTokens   = 128 // prompt tokens of a step while their cost is unknown
	relaxedTargetFactor = 8   // a step may take this many targets while nobody waits for a next token
	promptShare         = 1.0 // prompts get at least this share of the time that decoding takes
)

// stepBudget keeps steps near a target duration: it limits a step's prompt tokens by the cost of earlier steps. Where
// decoding alone takes that long, prompts may double the step: with a few tokens a step, sequences would join the batch
// so late that all answers came later.
type stepBudget struct {
	targetDuration  time.Duration
	maxPromptTokens int // prompt tokens of a step at most
	cost            stepCost
	promptSeen      bool // a step with prompt tokens was seen
}

// promptTokens is how many prompt tokens the next step may have. someoneWaits: another sequence waits for its next
// token meanwhile.
func (b *stepBudget) promptTokens(decodes int, someoneWaits bool) int {
	if !b.promptSeen {
		return min(firstPromptTokens, b.maxPromptTokens)
	}
	decodeTime := b.cost.predict(decodes, 0)
	timeLeft := float64(b.targetDuration)
	switch {
	case decodes > 0:
		timeLeft = max(timeLeft-decodeTime, promptShare*decodeTime)
	case someoneWaits:
		timeLeft -= decodeTime
	default:
		timeLeft = timeLeft*relaxedTargetFactor - decodeTime
	}
	perToken := b.cost.perPromptToken()
	if timeLeft >= perToken*float64(b.maxPromptTokens) {
		return b.maxPromptTokens
	}
	return min(max(int(timeLeft/perToken), minPromptTokens), b.maxPromptTokens)
}

// observe learns from one step of so many decoding sequences and prompt tokens.
func (b *stepBudget) observe(decodes, prompts int, took time.Duration) {
	b.promptSeen = b.promptSeen || prompts > 0
	b.cost.observe(decodes, prompts, float64(took))
}

// predict is how long such a step would take; 0 while unknown.
func (b *stepBudget) predict(decodes, prompts int) time.Duration {
	return time.Duration(b.cost.predict(decodes, prompts))
}
