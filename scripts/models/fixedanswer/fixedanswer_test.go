package fixedanswer

import (
	"strings"
	"testing"
)

func TestPiecesAreTheAnswerAndDifferent(t *testing.T) {
	const answer = "<think>\nAh, ah, ah, 🦊 and ö, ö.\n</think>\n\nAh, ah, ah."
	pieces, err := piecesOf(answer)
	if err != nil || strings.Join(pieces, "") != answer {
		t.Fatalf("%q, %v", pieces, err)
	}
	seen := map[string]bool{}
	for _, p := range pieces {
		if seen[p] {
			t.Errorf("%q comes twice", p)
		}
		seen[p] = true
	}
	for _, none := range []string{"", strings.Repeat("ab", 20), strings.Repeat("abcdefghijklmnopq", 200)} {
		if _, err := Model(none); err == nil {
			t.Errorf("an answer of %d bytes: no error", len(none))
		}
	}
}
