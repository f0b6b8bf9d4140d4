//go:build llama

package llama

import (
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// Both are computed from the same rows in principle; other sums of products give slightly different logits.
const scoreTolerance = 0.001

// logSoftmax is the log-probabilities of a row in double precision.
func logSoftmax(row []float32) []float64 {
	most, sum := float64(slices.Max(row)), 0.0
	for _, l := range row {
		sum += math.Exp(float64(l) - most)
	}
	out := make([]float64, len(row))
	for i, l := range row {
		out[i] = float64(l) - most - math.Log(sum)
	}
	return out
}

// referenceScores feeds tokens one at a time and takes the log-softmax after each.
func referenceScores(t *testing.T, base *Base, executor *testExecutor, tokens []batch.Token) [][]float64 {
	t.Helper()
	var out [][]float64
	for i := range tokens {
		executor.run(func() {
			if err := base.decode([]batch.Slice{{Start: i, Tokens: tokens[i : i+1], Sampler: dryRun{}}}); err != nil {
				t.Error(err)
				return
			}
			row, err := base.logits(0)
			if err != nil {
				t.Error(err)
				return
			}
			out = append(out, logSoftmax(row))
		})
	}
	executor.run(func() { base.Truncate(0, 0) })
	return out
}

func TestPromptLogprobsEqualASoftmaxInDoublePrecision(t *testing.T) {
	files := map[string]string{"demo": demoFile(t, "demo-q8_0.gguf")}
	if path := os.Getenv("SMOLLM2"); path != "" {
		files["SmolLM2"] = path
	}
	backend, executor := newBackend(t, func(o *Options) { onCPU(o); o.Threads = 2 }) // scoreTolerance is the CPU's
	for name, path := range files {
		t.Run(name, func(t *testing.T) {
			base := loadFile(t, backend, path, func(s *models.BaseSpec) { s.Parallel, s.Context = 4, 512 })
			tokens := render(t, base, strings.Repeat("Paris is the capital of France, and Rome of Italy. ", 4))
			want := referenceScores(t, base, executor, tokens)
			for _, chunk := range []int{1, 7, 33, batch.MaxScoredTokens} {
				checkScores(t, scoresInChunks(t, base, executor, tokens, chunk), tokens, want)
			}
		})
	}
}

// scoresInChunks computes a prompt in steps of so many tokens, beside another sequence.
func scoresInChunks(t *testing.T, base *Base, executor *testExecutor, tokens []batch.Token, chunk int) []batch.TokenScore {
	t.Helper()
	sampler, err := base.NewSampler(greedy, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sampler.Close()
	var scores []batch.TokenScore
	for from := 0; from < len(tokens); from += chunk {
		to := min(from+chunk, len(tokens))
		s := []batch.Slice{
			{Seq: 1, Start: from, Tokens: tokens[from:to]},
			{Seq: 0, Start: from, Tokens: tokens[from:to], Score: batch.Score{Targets: tokens[from+1 : min(to+1, len(tokens))], Top: 5}},
		}
		if to == len(tokens) {
			s[1].Sampler = sampler
		}
		executor.run(func() { err = base.Step(s) })
		if err != nil || s[1].Err != nil {
			t.Fatal(err, s[1].Err)
		}
		scores = append(scores, s[1].Scores...)
	}
	executor.run(func() { base.Truncate(0, 0); base.Truncate(1, 0) })
	return scores
}

func checkScores(t *testing.T, scores []batch.TokenScore, tokens []batch.Token, want [][]float64) {
	t.Helper()
	if len(scores) != len(tokens)-1 {
		t.Fatalf("%d log-probabilities for %d tokens", len(scores), len(tokens))
	}
	for i, s := range scores {
		row := want[i]
		if math.Abs(float64(s.Logprob)-row[tokens[i+1]]) > scoreTolerance {
			t.Errorf("token %d has %g, want %g", i+1, s.Logprob, row[tokens[i+1]])
		}
		best := slices.Clone(row)
		slices.Sort(best)
		if len(s.Top) != 5 {
			t.Fatalf("token %d has %d alternatives", i+1, len(s.Top))
		}
		for k, top := range s.Top {
			if math.Abs(float64(top.Logprob)-best[len(best)-1-k]) > scoreTolerance || math.Abs(float64(top.Logprob)-row[top.Token]) > scoreTolerance {
				t.Errorf("token %d: alternative %d is %+v, want %g", i+1, k, top, best[len(best)-1-k])
			}
		}
	}
}

// The library would read outside of its arrays, or abort.
func TestImpossibleScoresAreRefused(t *testing.T) {
	base, executor := loadDemo(t, nil)
	for _, score := range []batch.Score{
		{Targets: []batch.Token{3}, After: -1}, {Targets: []batch.Token{3}, After: 2}, {Targets: []batch.Token{3, 4, 5}},
		{Targets: []batch.Token{-1}}, {Targets: []batch.Token{1 << 30}}, // not in the vocabulary
	} {
		s := []batch.Slice{{Tokens: []batch.Token{3, 4}, Score: score}}
		executor.run(func() { _ = base.Step(s); base.Truncate(0, 0) })
		if s[0].Err == nil {
			t.Errorf("%+v went through", score)
		}
	}
	many := slices.Repeat([]batch.Token{3}, base.limits.Sequences+batch.MaxScoredTokens)
	var err error
	executor.run(func() { err = base.Step([]batch.Slice{{Tokens: many, Score: batch.Score{Targets: many}}}) })
	if err == nil {
		t.Error("more rows than the context has room for went through")
	}
}

func TestTextsOfTokens(t *testing.T) {
	base, _ := loadDemo(t, nil)
	if got := base.TokenText(1); len(got) == 0 || len(base.Piece(1)) != 0 {
		t.Errorf("the end token has the name %q and the piece %q", got, base.Piece(1))
	}
	var text []byte
	for _, token := range render(t, base, "Grüße")[1:] {
		if !base.vocab.control(token) {
			text = append(text, base.TokenText(token)...)
		}
	}
	if !strings.Contains(string(text), "Grüße") {
		t.Errorf("the tokens of a text have the texts %q", text)
	}
	for _, token := range []batch.Token{-1, 1 << 30} {
		if got := base.TokenText(token); got != nil {
			t.Errorf("token %d, which there isn't, has the text %q", token, got)
		}
	}
}
