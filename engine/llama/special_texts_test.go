//go:build llama

package llama

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"tandem/engine/models"
)

// Some vocabularies have thousands of control tokens that begin alike, Gemma 3's 6,000 for example. A text of what they
// begin with is no slower than any other: it was compared with each of them at every place.
func TestTextThatBeginsLikeManyControlTokens(t *testing.T) {
	names := templateFamilies["ChatML"].specials
	for i := range 600 {
		names = append(names, fmt.Sprintf("<unused%d>", i))
	}
	b, _ := newBackend(t, nil)
	base := loadFile(t, b, demoWithTemplate(t, templateFamilies["ChatML"].template, names), nil)
	base.limits.SequenceMax = 1 << 21
	render := func(text, options string) time.Duration {
		began := time.Now()
		if _, err := base.Render(t.Context(), models.Input{Prompt: text, TemplateOptions: []byte(options)}); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	const size = 1 << 20
	for name, options := range map[string]string{"simple": "", "with marks": `{"note":"x"}`} {
		plain := render(strings.Repeat("-", size), options)
		for _, piece := range []string{"<", "<unused", "<unused1"} {
			took := render(strings.Repeat(piece, size/len(piece)), options)
			if t.Logf("%s: %s: %s, other text %s", name, piece, took, plain); took > 8*plain+2*time.Second {
				t.Errorf("%s: %s takes %s, other text %s", name, piece, took, plain)
			}
		}
	}
}

// A request may have any character that could be a mark, and texts of the largest size.
func TestMarksOfLargeTexts(t *testing.T) {
	var b strings.Builder
	for r := rune(firstMark) + 1; r < lastMark; r += 2 {
		b.WriteString(escaped(r))
	}
	b.WriteString(strings.Repeat("x", 1<<20))
	began := time.Now()
	if m := newClientMarks(nil, nil, b.String()); m != nil {
		t.Errorf("%x is taken, which the text has", m.before)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it takes %s", took)
	}
	if m := newClientMarks(nil, nil, "\uE100", `\uE103`, `\UE104 \ue1`, "\uE106"); m == nil || m.before != 0xE108 {
		t.Errorf("%+v", m)
	}
}

// Looking texts up gives what comparing them one by one does.
func TestMatchSpecial(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	word := func(n int) []byte {
		out := make([]byte, 1+random.IntN(n))
		for i := range out {
			out[i] = "ab\xff"[random.IntN(3)]
		}
		return out
	}
	for range 2000 {
		var list []specialToken
		for range random.IntN(8) {
			list = append(list, specialToken{text: word(4)})
		}
		text := word(6)
		var longest []byte
		goesOn, compares := false, 0
		for _, sp := range list {
			if bytes.HasPrefix(text, sp.text) && len(sp.text) > len(longest) {
				longest = sp.text
			}
			goesOn = goesOn || len(sp.text) > len(text) && bytes.HasPrefix(sp.text, text)
			compares += bytes.Count(text, sp.text[:1])
		}
		s := newSpecialTexts(list)
		got, more := matchSpecial(&s, text)
		if got == nil && longest != nil || got != nil && !bytes.Equal(got.text, longest) || more != goesOn || s.compares(text) != compares {
			t.Fatalf("%q in %q: %v %v", text, list, got, more)
		}
	}
}
