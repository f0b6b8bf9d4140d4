package admission

import "math/bits"

// lengths are the average lengths of answers, by how long they might have been. Requests for few tokens mostly use all
// of them, those for many mostly don't, so one ratio for both would be wrong for each.
type lengths struct {
	byAsked [bits.UintSize + 1]average // of generated ÷ asked; by the number of bits of what was asked for
	all     average
}

func (l *lengths) add(asked, generated int) {
	used := float64(generated) / float64(asked)
	l.byAsked[bits.Len(uint(asked))].add(used)
	l.all.add(used)
}

// estimate is the expected length of an answer that may have at most asked tokens: all of them while nothing is known.
func (l *lengths) estimate(asked int) float64 {
	a := &l.byAsked[bits.Len(uint(max(asked, 0)))]
	if a.n == 0 {
		a = &l.all
	}
	if a.n == 0 {
		return float64(asked)
	}
	return a.mean * float64(asked)
}
