package admission

import (
	"math"
	"time"
)

// pace is how long a sequence takes while all are in use: for one generated token after the other, and for the tokens
// of a prompt. It is measured apart from the speed, since an engine doesn't give each sequence the same part of that:
// a prompt gets most of it.
type pace struct {
	known, pending paceSums // of saturated time, older values faded; since the last sample
	// Shortest gap of this speedWindow of saturated time, and of the one before: a step without prompts. 0: none.
	shortest, shortestBefore float64
	age                      float64 // of this window, in seconds
}

type paceSums struct {
	gaps, gapSeconds float64 // number of generated tokens, and the time from one to the next
	shortestGap      float64 // 0: none
	// Of prompts, each as often as it has tokens, so that long ones decide what a token of them costs.
	tokens, seconds, tokensSquared float64
}

// decoded notes the time of a generated token since the one before.
func (p *pace) decoded(gap time.Duration) {
	p.pending.gaps++
	p.pending.gapSeconds += gap.Seconds()
	p.pending.shortestGap = shorter(p.pending.shortestGap, gap.Seconds())
}

// shorter is the shorter of two gaps. 0 is none: so short are those between tokens that came together.
func shorter(a, b float64) float64 {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

// prefilled notes the time of an answer's first token since its prompt began to be computed.
func (p *pace) prefilled(tokens int, took time.Duration) {
	n := float64(tokens)
	p.pending.tokens += n
	p.pending.seconds += n * took.Seconds()
	p.pending.tokensSquared += n * n
}

// sample takes in what came since the last one, in so many seconds of saturated time. 0: it doesn't count.
func (p *pace) sample(elapsed float64) {
	if elapsed > 0 {
		p.known.fade(fading(elapsed))
		p.known.add(&p.pending)
		if p.age += elapsed; p.age > speedWindow.Seconds() {
			p.age, p.shortestBefore, p.shortest = 0, p.shortest, 0
		}
		p.shortest = shorter(p.shortest, p.pending.shortestGap)
	}
	p.pending = paceSums{}
}

// fading is what is left of measured values after so many seconds of saturated time.
func fading(elapsed float64) float64 { return math.Exp(-elapsed / speedWindow.Seconds()) }

func (s *paceSums) fade(keep float64) {
	for _, v := range []*float64{&s.gaps, &s.gapSeconds, &s.tokens, &s.seconds, &s.tokensSquared} {
		*v *= keep
	}
}

func (s *paceSums) add(other *paceSums) {
	s.gaps += other.gaps
	s.gapSeconds += other.gapSeconds
	s.tokens += other.tokens
	s.seconds += other.seconds
	s.tokensSquared += other.tokensSquared
}

// gap is the time from one generated token to the next, in seconds.
func (p *pace) gap() (seconds float64, known bool) {
	if p.known.gaps <= 0 {
		return 0, false
	}
	return p.known.gapSeconds / p.known.gaps, true
}

// promptToken is by how much a prompt's token delays the first one of the answer, in seconds. Without a prompt that one
// would come with the next step.
func (p *pace) promptToken() (seconds float64, known bool) {
	if p.known.tokensSquared <= 0 {
		return 0, false
	}
	step := shorter(p.shortest, p.shortestBefore)
	return max(p.known.seconds-step*p.known.tokens, 0) / p.known.tokensSquared, true
}
