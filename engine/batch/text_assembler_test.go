package batch

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// referenceText says what a reader should get of an answer as a whole: the stop string that is complete first cuts it
// (the longest of several that end at the same byte), then bytes that aren't a part of a character become U+FFFD.
func referenceText(raw string, stops []string) (text string, stopped bool) {
	for end := 1; end <= len(raw) && !stopped; end++ {
		longest := 0
		for _, s := range stops {
			if strings.HasSuffix(raw[:end], s) {
				longest = max(longest, len(s))
			}
		}
		if longest > 0 {
			raw, stopped = raw[:end-longest], true
		}
	}
	return string([]rune(raw)), stopped
}

// assemble pushes raw cut at the given lengths and checks each release.
func assemble(t *testing.T, raw string, stops []string, cuts []byte) (text string, stopped bool) {
	t.Helper()
	a := newAssembler(stops)
	var out []byte
	for i := 0; len(raw) > 0 && !stopped; i++ {
		n := len(raw)
		if len(cuts) > 0 {
			n = min(int(cuts[i%len(cuts)])%9, len(raw))
			if n == 0 && i > 3*len(raw)+16 {
				n = 1
			}
		}
		var released []byte
		released, stopped = a.push([]byte(raw[:n]))
		raw = raw[n:]
		if len(raw) == 0 || stopped {
			released = a.finish()
		}
		if !utf8.Valid(released) {
			t.Errorf("released %q", released)
		}
		out = append(out, released...)
		if a.releasedBytes != len(out) {
			t.Errorf("end is %d after %d bytes", a.releasedBytes, len(out))
		}
	}
	return string(out), stopped
}

func TestAssembler(t *testing.T) {
	for name, tc := range map[string]struct {
		pieces   []string
		stops    []string
		released []string // by each push; the last includes finish
		stopped  bool
	}{
		"plain text goes out at once":         {[]string{"The", " capital"}, nil, []string{"The", " capital"}, false},
		"a character waits for its last byte": {[]string{"\xf0\x9f", "\x98\x80!"}, nil, []string{"", "😀!"}, false},
		"half a character at the end":         {[]string{"a", "\xc3"}, nil, []string{"a", "\uFFFD"}, false},
		"an impossible byte waits for none":   {[]string{"\xffa", "\xc3", "a"}, nil, []string{"\uFFFDa", "", "\uFFFDa"}, false},
		"a stop string is dropped":            {[]string{"one STOP two"}, []string{"STOP"}, []string{"one "}, true},
		"across tokens":                       {[]string{"one ST", "OP two"}, []string{"STOP"}, []string{"one ", ""}, true},
		"held back while it may match":        {[]string{"one ST", "AR"}, []string{"STOP"}, []string{"one ", "STAR"}, false},
		"held back and given at the end":      {[]string{"one ", "STO"}, []string{"STOP"}, []string{"one ", "STO"}, false},
		"a repeated beginning":                {[]string{"aa", "a", "b", "c"}, []string{"aab"}, []string{"", "a", ""}, true},
		"the one complete first wins":         {[]string{"xabc"}, []string{"abc", "b"}, []string{"xa"}, true},
		"the longer of two that end together": {[]string{"xabc"}, []string{"bc", "abc"}, []string{"x"}, true},
		"a stop inside a character's bytes":   {[]string{"\xc3", "\xa9x"}, []string{"é"}, []string{"", ""}, true},
		"an empty piece releases nothing":     {[]string{"a\n", "", "b"}, []string{"\n\n"}, []string{"a", "", "\nb"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAssembler(tc.stops)
			stopped := false
			for i, p := range tc.pieces {
				if stopped {
					break
				}
				var got []byte
				got, stopped = a.push([]byte(p))
				if stopped || i == len(tc.pieces)-1 {
					got = a.finish()
				}
				if string(got) != tc.released[i] {
					t.Errorf("push %d (%q) released %q, want %q", i, p, got, tc.released[i])
				}
			}
			if stopped != tc.stopped {
				t.Errorf("stopped is %v", stopped)
			}
		})
	}
}

func FuzzTextDoesNotDependOnTokenBorders(f *testing.F) {
	f.Add("The capital of France is Paris.", "\n", "Paris", []byte{3, 1, 4})
	f.Add("caf\xc3\xa9 \xf0\x9f\x98\x80 \xff", "é", "", []byte{1})
	f.Add("aaaaaab", "aaab", "ab", []byte{2, 0, 1})
	f.Add("abcabcabd", "abcabd", "cab", []byte{1, 5})
	f.Add("\xe2\x82", "\x82", "\xe2\x82\xac", []byte{1})
	f.Add("", "x", "y", []byte{})
	f.Fuzz(func(t *testing.T, raw, stop1, stop2 string, cuts []byte) {
		var stops []string
		for _, s := range []string{stop1, stop2} {
			if s != "" {
				stops = append(stops, s)
			}
		}
		want, wantStopped := referenceText(raw, stops)
		got, stopped := assemble(t, raw, stops, cuts)
		if got != want || stopped != wantStopped {
			t.Errorf("%q cut at %v, stops %q: got %q (%v), want %q (%v)", raw, cuts, stops, got, stopped, want, wantStopped)
		}
	})
}
