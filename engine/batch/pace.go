package batch

import "time"

const (
	minPromptTokens = 16  // a prompt gets on even where decoding alone takes longer than the target
	firstPrompt     = 128 // prompt tokens of a step while their price is unknown
	quietFactor     = 8   // a step may take this many targets while nobody waits for a next token
	promptPart      = 1.0 // of the time of decoding that prompts get at least
)

// pace keeps steps near a target duration by the price of earlier ones. Where decoding alone takes as long, prompts may double the step:
// pieces of a few tokens would keep sequences out of the batch for so long that all answers come later.
type pace struct {
	target  time.Duration
	most    int // prompt tokens of a step at most
	price   price
	prompts bool // a step with prompt tokens was seen
}

// budget is how many prompt tokens the next step may have. waited: somebody waits for a next token meanwhile.
func (p *pace) budget(decodes int, waited bool) int {
	if !p.prompts {
		return min(firstPrompt, p.most)
	}
	base := p.price.of(decodes, 0)
	left := float64(p.target)
	switch {
	case decodes > 0:
		left = max(left-base, promptPart*base)
	case waited:
		left -= base
	default:
		left = left*quietFactor - base
	}
	each := p.price.perPrompt()
	if left >= each*float64(p.most) {
		return p.most
	}
	return min(max(int(left/each), minPromptTokens), p.most)
}

// measured takes in one step of so many decoding sequences and prompt tokens.
func (p *pace) measured(decodes, prompts int, took time.Duration) {
	p.prompts = p.prompts || prompts > 0
	p.price.learn(decodes, prompts, float64(took))
}

// predict is how long such a step would take; 0 while unknown.
func (p *pace) predict(decodes, prompts int) time.Duration {
	return time.Duration(p.price.of(decodes, prompts))
}
