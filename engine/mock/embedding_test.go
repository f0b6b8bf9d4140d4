package mock

import (
	"errors"
	"math"
	"slices"
	"testing"

	"tandem/engine/models"
)

func embed(t *testing.T, base *Base, text string) []float32 {
	t.Helper()
	tokens, err := base.Tokenize(t.Context(), text, true, 1000)
	if err != nil {
		t.Fatal(err)
	}
	v, err := base.Embed(t.Context(), models.TaskEmbed, nil, tokens)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

func TestEmbeddings(t *testing.T) {
	base := load(t, New(Options{}), models.BaseSpec{Name: Model})
	text, same := embed(t, base, "the capital of France"), embed(t, base, "the capital of France")
	near, far := embed(t, base, "the capital of a country"), embed(t, base, "0123456789")
	if len(text) != base.Facts().EmbeddingSize || !slices.Equal(text, same) {
		t.Errorf("%v and then %v", text, same)
	}
	if length := dot(text, text); math.Abs(length-1) > 1e-6 {
		t.Errorf("the square of the length is %v", length)
	}
	if dot(text, near) <= dot(text, far) {
		t.Errorf("a text with shared words has %v, another one %v", dot(text, near), dot(text, far))
	}
}

func TestScores(t *testing.T) {
	base := load(t, New(Options{}), models.BaseSpec{Name: Model})
	score := func(query, document string) float32 {
		tokens, err := base.ScoreTokens(t.Context(), query, document)
		if err != nil {
			t.Fatal(err)
		}
		v, err := base.Embed(t.Context(), models.TaskScore, nil, tokens)
		if err != nil || len(v) != 1 {
			t.Fatalf("%v, %v", v, err)
		}
		return v[0]
	}
	if good, bad := score("big house", "a big house"), score("big house", "small country"); good <= bad {
		t.Errorf("the document that fits has %v, the other %v", good, bad)
	}
}

func TestTextsSurviveTheirTokens(t *testing.T) {
	base := load(t, New(Options{}), models.BaseSpec{Name: Model})
	const text = "What is the capital? Grüße 東京"
	tokens, err := base.Tokenize(t.Context(), text, false, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if back, err := base.Detokenize(tokens); err != nil || string(back) != text {
		t.Errorf("%q, %v", back, err)
	}
	if _, err := base.Detokenize([]int32{1 << 20}); !errors.Is(err, models.ErrToken) {
		t.Errorf("of no token: %v", err)
	}
	if _, err := base.Embed(t.Context(), models.TaskEmbed, nil, []int32{-1}); !errors.Is(err, models.ErrToken) {
		t.Errorf("embedding of no token: %v", err)
	}
	if _, err := base.Tokenize(t.Context(), text, false, 3); !errors.Is(err, models.ErrPromptTooLong) {
		t.Errorf("more than the limit: %v", err)
	}
}
