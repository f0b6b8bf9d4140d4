//go:build llama

package llama

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/scripts/await"
	"tandem/scripts/models/tinybert"
)

// loadBERT loads a small encoder.
func loadBERT(t testing.TB, pooling int, change func(*models.BaseSpec)) (*Base, *tinybert.Model) {
	t.Helper()
	m := tinybert.New(pooling, 7)
	path := filepath.Join(t.TempDir(), "bert.gguf")
	if err := os.WriteFile(path, m.GGUF(), 0o600); err != nil {
		t.Fatal(err)
	}
	b, _ := newBackend(t, nil)
	return loadFile(t, b, path, change), m
}

func embedTokens(t testing.TB, base *Base, adapter models.Adapter, tokens []batch.Token) []float32 {
	t.Helper()
	task := models.TaskEmbed
	if base.facts.Scores {
		task = models.TaskScore
	}
	v, err := base.Embed(t.Context(), task, adapter, tokens)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tokensOf(t testing.TB, base *Base, text string) []batch.Token {
	t.Helper()
	tokens, err := base.Tokenize(t.Context(), text, true, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func cosine[A, B float32 | float64](a []A, b []B) float64 {
	var dot, aa, bb float64
	for i := range a {
		dot += float64(a[i]) * float64(b[i])
		aa += float64(a[i]) * float64(a[i])
		bb += float64(b[i]) * float64(b[i])
	}
	return dot / math.Sqrt(aa*bb)
}

// checkLength fails unless a text's vector has length 1.
func checkLength(t testing.TB, text int, v []float32) {
	t.Helper()
	squares := 0.0
	for _, x := range v {
		squares += float64(x) * float64(x)
	}
	if math.Abs(squares-1) > 1e-5 || math.IsNaN(squares) {
		t.Errorf("text %d: the squares of %d numbers add up to %v", text, len(v), squares)
	}
}

// mixedTexts are n texts of unlike lengths, up to longest words.
func mixedTexts(n, longest int) []string {
	words := strings.Fields("the capital of france is paris a big city and berlin is the capital of germany where is a small house")
	texts := make([]string, n)
	for i := range texts {
		length := 1 + (i*i*7+i*3)%longest
		var text []string
		for k := range length {
			text = append(text, words[(i*5+k*(1+i%3))%len(words)])
		}
		texts[i] = strings.Join(text, " ")
	}
	return texts
}

// embedTogether computes the texts at the same time.
func embedTogether(t testing.TB, base *Base, adapter func(i int) models.Adapter, all [][]batch.Token) [][]float32 {
	t.Helper()
	vectors, errs := make([][]float32, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	for i := range all {
		wg.Go(func() {
			var a models.Adapter
			if adapter != nil {
				a = adapter(i)
			}
			vectors[i], errs[i] = base.Embed(t.Context(), models.TaskEmbed, a, all[i])
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return vectors
}

// Until something was computed nobody knows how long a text takes, so the first one isn't hung as early as others.
func TestFirstTextMayTakeLonger(t *testing.T) {
	e := batch.NewExecutor(batch.Options{StallFloor: time.Minute})
	defer e.Close(context.Background())
	limits := make(chan time.Duration, 2) // of the turns
	path := filepath.Join(t.TempDir(), "bert.gguf")
	if err := os.WriteFile(path, tinybert.New(tinybert.PoolingMean, 7).GGUF(), 0o600); err != nil {
		t.Fatal(err)
	}
	b, _ := newBackend(t, func(o *Options) {
		onCPU(o) // for a GPU a load computes texts, in calls of their own
		o.OnDevice = e.Do
		o.OnTurn = func(ctx context.Context, fn func(batch.Turn) error) error {
			return e.TakeTurn(ctx, func(turn batch.Turn) error {
				err := fn(turn)
				limits <- e.Heartbeat().Budget
				return err
			})
		}
	})
	base := loadFile(t, b, path, nil)
	for i, want := range []time.Duration{10 * time.Minute, time.Minute} {
		embedTokens(t, base, nil, tokensOf(t, base, "paris is a big city"))
		if got := <-limits; got != want {
			t.Errorf("text %d counts as hung after %v, want %v", i, got, want)
		}
	}
}

// TestEncoderAgainstItsOwnComputation compares with a computation that shares nothing with the library.
func TestEncoderAgainstItsOwnComputation(t *testing.T) {
	for name, pooling := range map[string]int{"mean": tinybert.PoolingMean, "cls": tinybert.PoolingCLS} {
		t.Run(name, func(t *testing.T) {
			base, m := loadBERT(t, pooling, nil)
			smallest := 1.0
			var all [][]batch.Token
			for _, text := range mixedTexts(32, 80) {
				all = append(all, tokensOf(t, base, text))
			}
			for i, v := range embedTogether(t, base, nil, all) {
				checkLength(t, i, v)
				smallest = min(smallest, cosine(v, m.Embed(all[i])), cosine(embedTokens(t, base, nil, all[i]), v))
			}
			t.Logf("smallest cosine %.7f", smallest)
			if smallest < 0.999 {
				t.Errorf("smallest cosine %v", smallest)
			}
		})
	}
}

func TestRerankerAgainstItsOwnComputation(t *testing.T) {
	base, m := loadBERT(t, tinybert.PoolingRank, nil)
	for _, document := range mixedTexts(8, 60) {
		tokens, err := base.ScoreTokens(t.Context(), "what is the capital of france", document)
		if err != nil {
			t.Fatal(err)
		}
		got, want := embedTokens(t, base, nil, tokens), m.Score(tokens)
		if len(got) != 1 || math.Abs(float64(got[0])-want) > 0.01 {
			t.Errorf("%q: %v, want %v", document, got, want)
		}
	}
}

func TestFactsOfEncoders(t *testing.T) {
	base, _ := loadBERT(t, tinybert.PoolingMean, nil)
	f := base.Facts()
	if !f.EncoderOnly || !f.Embeddings || f.Scores || f.EmbeddingSize != tinybert.Width || f.ContextTokens != tinybert.Context {
		t.Errorf("an encoder: %+v", f)
	}
	reranker, _ := loadBERT(t, tinybert.PoolingRank, nil)
	if f := reranker.Facts(); !f.EncoderOnly || f.Embeddings || !f.Scores {
		t.Errorf("a reranker: %+v", f)
	}
	demo, _ := loadDemo(t, nil)
	if f := demo.Facts(); f.EncoderOnly || !f.Embeddings || f.Scores || f.EmbeddingSize == 0 {
		t.Errorf("a decoder: %+v", f)
	}
}

// TestEncoderTokens has the tokens around a text, and text that looks like them.
func TestEncoderTokens(t *testing.T) {
	base, m := loadBERT(t, tinybert.PoolingRank, nil)
	paris := slices.Clone(tokensOf(t, base, "paris"))
	if len(paris) != 3 || paris[0] != tinybert.CLS || paris[2] != tinybert.SEP || int(paris[1]) >= m.Vocabulary() {
		t.Errorf("tokens of one word: %v", paris)
	}
	for _, text := range []string{"[SEP]", "paris [SEP] berlin [CLS]", "[MASK][PAD]"} {
		tokens := tokensOf(t, base, text)
		for _, token := range tokens[1 : len(tokens)-1] {
			if token != tinybert.Unknown && token <= tinybert.Mask {
				t.Errorf("%q became the control token %d: %v", text, token, tokens)
			}
		}
	}
	tokens, err := base.ScoreTokens(t.Context(), "[SEP] paris", "big [SEP]")
	if err != nil {
		t.Fatal(err)
	}
	separators := 0
	for _, token := range tokens {
		if token == tinybert.SEP {
			separators++
		}
	}
	if separators != 2 || tokens[0] != tinybert.CLS || tokens[len(tokens)-1] != tinybert.SEP {
		t.Errorf("query and document: %v", tokens)
	}
	if text, err := base.Detokenize(paris); err != nil || string(text) != "[CLS] paris[SEP]" {
		t.Errorf("text of %v: %q, %v", paris, text, err)
	}
}

// TestEncoderRefusesAnswers: each of these would end the process in the library.
func TestEncoderRefusesAnswers(t *testing.T) {
	base, _ := loadBERT(t, tinybert.PoolingMean, nil)
	if err := base.Step([]batch.Slice{{Tokens: []batch.Token{5}}}); err == nil {
		t.Error("a step of an encoder")
	}
	for name, c := range map[string]struct {
		task   models.Task
		tokens []batch.Token
		want   error
	}{
		"no tokens":             {models.TaskEmbed, nil, nil},
		"more than the context": {models.TaskEmbed, make([]batch.Token, tinybert.Context+1), models.ErrPromptTooLong},
		"no token":              {models.TaskEmbed, []batch.Token{5, 1 << 20}, models.ErrToken},
		"a negative token":      {models.TaskEmbed, []batch.Token{-1}, models.ErrToken},
		"a score":               {models.TaskScore, []batch.Token{5}, models.ErrNoTask},
	} {
		if _, err := base.Embed(t.Context(), c.task, nil, c.tokens); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v := embedTokens(t, base, nil, make([]batch.Token, tinybert.Context)); len(v) != tinybert.Width {
		t.Errorf("a text as long as the context: %d numbers", len(v))
	}
}

// TestDecoderVectorsAreTheSameInAnyBatch: alone, among 32, and longer than a pass.
func TestDecoderVectorsAreTheSameInAnyBatch(t *testing.T) {
	for _, pooling := range []models.Pooling{models.PoolingAuto, models.PoolingLast, models.PoolingCLS} {
		t.Run(fmt.Sprint(pooling), func(t *testing.T) {
			base, executor := loadDemo(t, func(s *models.BaseSpec) { s.Pooling = pooling })
			texts := append(mixedTexts(32, 200), strings.Join(mixedTexts(32, 200), " "))
			all := make([][]batch.Token, len(texts))
			alone := make([][]float32, len(texts))
			for i := range texts {
				all[i] = tokensOf(t, base, texts[i])
				all[i] = all[i][:min(len(all[i]), base.limits.SequenceMax)]
				alone[i] = embedTokens(t, base, nil, all[i])
			}
			executor.run(func() { base.embed.stepTokens = 100 }) // so that the longest text needs several passes
			smallest, alike := 1.0, 1.0
			for i, v := range embedTogether(t, base, nil, all) {
				smallest = min(smallest, cosine(v, alone[i]))
				checkLength(t, i, v)
			}
			alike = cosine(alone[0], alone[20])
			t.Logf("smallest cosine %.7f; of two texts that differ %.3f", smallest, alike)
			if smallest < 0.999 || alike > 0.999 && pooling != models.PoolingCLS {
				t.Errorf("smallest cosine %v, of two texts that differ %v", smallest, alike)
			}
		})
	}
}

func TestEmbeddingsOfVersions(t *testing.T) {
	base, _ := loadDemo(t, nil)
	v1, v2 := loadVersion(t, base, "v1.0"), loadVersion(t, base, "v2.0")
	adapters := []models.Adapter{nil, v1, v2}
	tokens := tokensOf(t, base, "the capital of france")
	var alone [3][]float32
	for i, a := range adapters {
		alone[i] = embedTokens(t, base, a, tokens)
	}
	if c := cosine(alone[0], alone[1]); c > 0.9999 {
		t.Errorf("a version gives what its base gives: cosine %v", c)
	}
	all := slices.Repeat([][]batch.Token{tokens}, 12)
	for i, v := range embedTogether(t, base, func(i int) models.Adapter { return adapters[i%3] }, all) {
		if c := cosine(v, alone[i%3]); c < 0.999 {
			t.Errorf("text %d: cosine %v with what its version gives alone", i, c)
		}
	}
	if err := v1.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := base.Embed(t.Context(), models.TaskEmbed, v1, tokens); err == nil {
		t.Error("an embedding with a closed version")
	}
	if c := cosine(embedTokens(t, base, nil, tokens), alone[0]); c < 0.999 {
		t.Errorf("the base after a version was closed: cosine %v", c)
	}
}

func TestEmbeddingsWithoutMemory(t *testing.T) {
	fits := false
	base, executor := loadDemo(t, func(s *models.BaseSpec) { s.MoreFits = func(bytes int64) bool { return fits && bytes > 0 } })
	tokens := tokensOf(t, base, "the capital of france")
	if _, err := base.Embed(t.Context(), models.TaskEmbed, nil, tokens); !errors.Is(err, models.ErrEmbeddingMemory) {
		t.Errorf("without memory: %v", err)
	}
	executor.run(func() { fits = true })
	embedTokens(t, base, nil, tokens)
}

func TestEmbeddingThatNobodyWaitsFor(t *testing.T) {
	base, executor := loadDemo(t, nil)
	tokens := tokensOf(t, base, "the capital of france")
	embedTokens(t, base, nil, tokens)
	ctx, cancel := context.WithCancelCause(t.Context())
	waits, over := make(chan struct{}), make(chan struct{})
	go executor.run(func() { close(waits); <-over }) // the device is busy
	<-waits
	ended := make(chan error, 1)
	go func() {
		_, err := base.Embed(ctx, models.TaskEmbed, nil, tokens)
		ended <- err
	}()
	cancel(errors.New("gone"))
	if err := <-ended; err == nil || err.Error() != "gone" {
		t.Errorf("it ended with %v", err)
	}
	close(over)
	embedTokens(t, base, nil, tokens)
	base.embed.mu.Lock()
	left := len(base.embed.jobs)
	base.embed.mu.Unlock()
	executor.run(func() {
		if free := len(base.embed.freeSequences); left != 0 || free != base.embed.sequences {
			t.Errorf("%d jobs are left, %d of %d sequences are free", left, free, base.embed.sequences)
		}
	})
}

// TestTemplateOfAReranker: its control tokens count, those that a client writes don't.
func TestTemplateOfAReranker(t *testing.T) {
	base, _ := loadDemo(t, nil)
	var control int
	var mark string
	for token := range base.vocab.size() {
		if base.vocab.control(batch.Token(token)) {
			text, err := base.Detokenize([]batch.Token{batch.Token(token)})
			if err != nil {
				t.Fatal(err)
			}
			control, mark = token, string(text)
		}
	}
	base.rerankTemplate = mark + " query {query} document {document} " + mark
	tokens, err := base.ScoreTokens(t.Context(), "what "+mark, mark+" is it")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, token := range tokens {
		if base.vocab.control(token) {
			n++
		}
	}
	if n != 2 || tokens[0] != batch.Token(control) || tokens[len(tokens)-1] != batch.Token(control) {
		t.Errorf("with the control token %d at both ends and twice in the texts: %v", control, tokens)
	}
}

func TestCloseWithATextInTheQueue(t *testing.T) {
	base, executor := loadDemo(t, nil)
	tokens := tokensOf(t, base, "the capital of france")
	waits, over := make(chan struct{}), make(chan struct{})
	go executor.run(func() { close(waits); <-over })
	<-waits
	ended := make(chan error, 1)
	go func() {
		_, err := base.Embed(t.Context(), models.TaskEmbed, nil, tokens)
		ended <- err
	}()
	await.Until(t, 10*time.Second, "the text is in the queue", func() bool {
		base.embed.mu.Lock()
		defer base.embed.mu.Unlock()
		return len(base.embed.jobs) == 1
	})
	closed := make(chan error, 1)
	go func() { closed <- base.Close() }()
	if err := <-ended; err == nil {
		t.Error("a text got a vector of a base that is closed")
	}
	close(over)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if _, err := base.Embed(t.Context(), models.TaskEmbed, nil, tokens); !errors.Is(err, models.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestAFullQueueRefusesTexts(t *testing.T) {
	base, _ := loadDemo(t, nil)
	tokens := tokensOf(t, base, "the capital of france")
	base.embed.mu.Lock()
	base.embed.running = true // nobody takes them
	base.embed.jobs = make([]*embedJob, maxEmbedJobs)
	base.embed.mu.Unlock()
	if _, err := base.Embed(t.Context(), models.TaskEmbed, nil, tokens); !errors.Is(err, models.ErrEmbeddingsFull) {
		t.Errorf("with %d texts in the queue: %v", maxEmbedJobs, err)
	}
	base.embed.mu.Lock()
	base.embed.running, base.embed.jobs = false, nil
	base.embed.mu.Unlock()
}
