package batch

import "unicode/utf8"

// assembler turns the pieces of one answer into the text that its reader gets: whole characters only, and nothing that
// may still become a stop string. What it releases doesn't depend on where one token ends and the next begins.
type assembler struct {
	stops         []stopMatcher
	pending       []byte // as the model wrote it, not yet released
	released      []byte // released since the last push; valid UTF-8
	releasedBytes int    // bytes released so far
	stop          string // the stop string that ended the answer
}

func newAssembler(stops []string) assembler {
	var a assembler
	for _, s := range stops {
		a.stops = append(a.stops, newStopMatcher(s))
	}
	return a
}

// push adds the piece of one token and returns the text that it releases, which is valid until the next push. The stop
// string that is complete first ends the answer: the text before it is released, the rest is dropped, and stopped is
// true.
func (a *assembler) push(piece []byte) (text []byte, stopped bool) {
	a.released = a.released[:0]
	start := len(a.pending)
	a.pending = append(a.pending, piece...)
	held := 0
	for i := start; i < len(a.pending) && len(a.stops) > 0; i++ {
		longest := ""
		held = 0
		for k := range a.stops {
			m := &a.stops[k]
			if m.next(a.pending[i]) && len(m.stop) > len(longest) {
				longest = m.stop
			}
			held = max(held, m.matched)
		}
		if longest != "" {
			a.stop = longest
			a.pending = a.pending[:i+1-len(longest)]
			a.release(len(a.pending), true)
			return a.released, true
		}
	}
	if len(piece) == 0 {
		held = a.heldBytes()
	}
	a.release(len(a.pending)-held, false)
	return a.released, false
}

// finish releases what was held back, an unfinished character as U+FFFD, and returns it after what the last push
// released.
func (a *assembler) finish() []byte {
	a.release(len(a.pending), true)
	return a.released
}

// heldBytes is how many bytes at the end of pending may be the beginning of a stop string.
func (a *assembler) heldBytes() int {
	n := 0
	for k := range a.stops {
		n = max(n, a.stops[k].matched)
	}
	return n
}

// release moves the first n pending bytes to out. A byte that can't be part of a character becomes U+FFFD, as in a Go
// range over a string; one that may still become a character stays, unless this is the end.
func (a *assembler) release(n int, end bool) {
	before := len(a.released)
	i := 0
	for i < n {
		if c := a.pending[i]; c < utf8.RuneSelf {
			a.released = append(a.released, c)
			i++
			continue
		}
		if !end && !utf8.FullRune(a.pending[i:n]) {
			break
		}
		r, size := utf8.DecodeRune(a.pending[i:n])
		a.released = utf8.AppendRune(a.released, r)
		i += size
	}
	a.releasedBytes += len(a.released) - before
	a.pending = a.pending[:copy(a.pending, a.pending[i:])]
}
