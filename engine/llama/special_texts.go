//go:build llama

package llama

import (
	"bytes"
	"slices"
	"sort"

	"tandem/engine/batch"
)

// specialToken is a token whose text parse_special turns into it.
type specialToken struct {
	text  []byte
	token batch.Token
	flags uint8
}

// specialTexts are the special tokens of a vocabulary, sorted by text. A look-up costs the logarithm of their number at
// most once for each byte of the longest text: some vocabularies have thousands that begin alike.
type specialTexts struct {
	list []specialToken
	from [257]int // list[from[c]:from[c+1]] begin with the byte c
}

func newSpecialTexts(list []specialToken) specialTexts {
	slices.SortStableFunc(list, func(a, b specialToken) int { return bytes.Compare(a.text, b.text) })
	s := specialTexts{list: list}
	for c := range s.from {
		s.from[c] = sort.Search(len(list), func(i int) bool { return int(list[i].text[0]) >= c })
	}
	return s
}

// matchSpecial returns the longest special token whose text begins a text, nil for none, and whether the whole text
// begins the text of a longer one. The text isn't empty.
func matchSpecial[T string | []byte](s *specialTexts, text T) (longest *specialToken, goesOn bool) {
	found := s.list[s.from[text[0]]:s.from[int(text[0])+1]]
	for n := 1; len(found) > 0; n++ { // the texts of found begin with text[:n]
		if len(found[0].text) == n {
			longest = &found[0]
			for len(found) > 0 && len(found[0].text) == n {
				found = found[1:]
			}
		}
		if n == len(text) {
			return longest, len(found) > 0
		}
		next := text[n]
		found = found[sort.Search(len(found), func(i int) bool { return found[i].text[n] >= next }):]
		found = found[:sort.Search(len(found), func(i int) bool { return found[i].text[n] > next })]
	}
	return longest, false
}

// compares is how often the library compares a special token with a place of a text, when it looks for each of them.
func (s *specialTexts) compares(text []byte) int {
	n := 0
	for _, c := range text {
		n += s.from[int(c)+1] - s.from[c]
	}
	return n
}
