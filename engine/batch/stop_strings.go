package batch

// stopMatcher looks for one stop string in a stream of bytes (Knuth, Morris and Pratt), so that neither the length of
// the string nor the borders of tokens matter.
type stopMatcher struct {
	stop    string
	retry   []int // retry[i]: how much of stop still matches when stop[:i+1] did and the next byte doesn't
	matched int   // longest prefix of stop that the stream ends with
}

func newStopMatcher(stop string) stopMatcher {
	m := stopMatcher{stop: stop, retry: make([]int, len(stop))}
	for i, n := 1, 0; i < len(stop); i++ {
		for n > 0 && stop[i] != stop[n] {
			n = m.retry[n-1]
		}
		if stop[i] == stop[n] {
			n++
		}
		m.retry[i] = n
	}
	return m
}

// next takes one byte and reports whether the stop string is complete; then it must not be called again.
func (m *stopMatcher) next(b byte) bool {
	for m.matched > 0 && m.stop[m.matched] != b {
		m.matched = m.retry[m.matched-1]
	}
	if m.stop[m.matched] == b {
		m.matched++
	}
	return m.matched == len(m.stop)
}
