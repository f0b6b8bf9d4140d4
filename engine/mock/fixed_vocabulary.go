package mock

import (
	"strings"

	"tandem/engine/batch"
)

// The vocabulary is fixed, so that token ids mean the same after a restart: the end token, the 256 bytes, and common
// words with and without the space before them. No text becomes the end token, and a text's tokens always spell that
// text again.
const (
	endToken  batch.Token = 0
	firstByte batch.Token = 1
	firstWord batch.Token = firstByte + 256
)

const words = `a about again all also am an and answer any are as ask at back be because been before big but by call called can capital
city color could country day did do does down each end every example few find first five for four France friend from get give go good
great had has have he hello help her here him his hot house how if in into is it its just kind know language large last left life like
line list little live long look made make man many may me mean men more most much must my name never new next night no not now number
of off old on one only or order other our out over own Paris part people place please point question read right said same say see
sentence she should show small so some still stop story such take tell test text than that the their them then there these they thing
think this those three through time to too translate two under up us use very want was water way we well were what What when where which
while who why will with word words work world would write year yes you young your`

var (
	wordTokens = make(map[string]batch.Token)
	pieces     [][]byte // by token
)

func init() {
	pieces = append(pieces, nil)
	for b := range 256 {
		pieces = append(pieces, []byte{byte(b)})
	}
	for _, w := range strings.Fields(words) {
		for _, p := range []string{w, " " + w} {
			if _, ok := wordTokens[p]; !ok && len(p) > 1 {
				wordTokens[p] = batch.Token(len(pieces))
				pieces = append(pieces, []byte(p))
			}
		}
	}
}

// tokenise splits text into words that are in the vocabulary, and bytes for the rest.
func tokenise(s string) []batch.Token {
	tokens := make([]batch.Token, 0, len(s)/2+1)
	for len(s) > 0 {
		n := wordEnd(s)
		if t, ok := wordTokens[s[:n]]; ok {
			tokens = append(tokens, t)
		} else {
			for i := range n {
				tokens = append(tokens, firstByte+batch.Token(s[i]))
			}
		}
		s = s[n:]
	}
	return tokens
}

// wordEnd is the length of the first word of s: a run of letters with at most one space before it, or one byte.
func wordEnd(s string) int {
	n := 0
	if s[0] == ' ' {
		n = 1
	}
	start := n
	for n < len(s) && isLetter(s[n]) {
		n++
	}
	if n == start {
		return 1
	}
	return n
}

func isLetter(b byte) bool { return 'a' <= b|0x20 && b|0x20 <= 'z' }

// piece is the text of a token; nil for what isn't in the vocabulary.
func piece(t batch.Token) []byte {
	if t < 0 || int(t) >= len(pieces) {
		return nil
	}
	return pieces[t]
}

func detokenise(tokens []batch.Token) []byte {
	var out []byte
	for _, t := range tokens {
		out = append(out, piece(t)...)
	}
	return out
}

func vocabularyBytes() int64 {
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	return int64(n)
}
