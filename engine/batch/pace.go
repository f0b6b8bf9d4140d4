package batch

import "time"

const (
	paceSmoothing   = 0.3 // weight of the newest step
	minPromptTokens = 16  // a prompt gets on even where decoding alone takes longer than the target
	firstPrompt     = 128 // prompt tokens of a step while their price is unknown
	tellingPrompt   = 64  // prompt tokens of a step whose price counts in full
	quietFactor     = 8   // a step may take this many targets while nobody waits for a next token
)

// pace keeps steps near a target duration by what it saw of earlier ones: it prices a decode and a prompt token.
type pace struct {
	target    time.Duration
	most      int     // prompt tokens of a step at most
	decode    float64 // ns of a step for its decoding sequences; 0: not seen yet
	perPrompt float64 // ns a prompt token adds; 0: not seen yet
}

// budget is how many prompt tokens the next step may have. waited: somebody waits for a next token meanwhile.
func (p *pace) budget(decodes int, waited bool) int {
	if p.perPrompt == 0 {
		return min(firstPrompt, p.most)
	}
	left := float64(p.target)
	if decodes > 0 {
		left -= p.decode
	} else if !waited {
		left *= quietFactor
	}
	return min(max(int(left/p.perPrompt), minPromptTokens), p.most)
}

// measured takes in one step of so many decoding sequences and prompt tokens.
func (p *pace) measured(decodes, prompts int, took time.Duration) {
	ns := float64(took)
	if prompts == 0 {
		if decodes > 0 {
			smooth(&p.decode, ns, paceSmoothing)
		}
		return
	}
	if decodes > 0 {
		ns = max(ns-p.decode, 1)
	}
	// A few tokens cost mostly the fixed part of a step and say little about the price of many.
	weight := paceSmoothing * min(1, float64(prompts)/tellingPrompt)
	smooth(&p.perPrompt, ns/float64(prompts), weight)
}

// predict is how long such a step would take; 0 while unknown.
func (p *pace) predict(decodes, prompts int) time.Duration {
	ns := p.perPrompt * float64(prompts)
	if decodes > 0 {
		ns += p.decode
	}
	return time.Duration(ns)
}

func smooth(mean *float64, sample, weight float64) {
	if *mean == 0 {
		*mean = sample
		return
	}
	*mean += weight * (sample - *mean)
}
