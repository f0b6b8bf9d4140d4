//go:build llama

package llama

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// logitsTest computes the logits of one sequence in many ways.
type logitsTest struct {
	t        *testing.T
	base     *Base
	executor *testExecutor
	rng      *rand.Rand
}

func (r *logitsTest) step(threads int, slices []batch.Slice) {
	r.t.Helper()
	var err error
	r.executor.run(func() {
		r.base.threadChoice = newThreadChoice(threads)
		err = r.base.decode(slices)
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *logitsTest) tokens(n int) []batch.Token {
	out := make([]batch.Token, n)
	for i := range out {
		out[i] = batch.Token(r.rng.IntN(r.base.vocab.size()))
	}
	return out
}

// row copies the logits of output at of the last step.
func (r *logitsTest) row(at int) []float32 {
	r.t.Helper()
	var out []float32
	r.executor.run(func() {
		logits, err := r.base.logits(at)
		if err != nil {
			r.t.Error(err)
		}
		out = slices.Clone(logits)
	})
	return out
}

func (r *logitsTest) clear() {
	r.executor.run(func() {
		for seq := range r.base.limits.Sequences {
			r.base.Truncate(seq, 0)
		}
	})
}

// run decodes a sequence in chunks and returns the logits after the last token.
func (r *logitsTest) run(seq, threads, start, chunk int, tokens []batch.Token) []float32 {
	r.t.Helper()
	for at := start; ; at += chunk {
		end := min(at+chunk, len(tokens))
		s := batch.Slice{Seq: seq, Start: at, Tokens: tokens[at:end]}
		if end == len(tokens) {
			s.Sampler = dryRun{}
			r.step(threads, []batch.Slice{s})
			return r.row(end - at - 1)
		}
		r.step(threads, []batch.Slice{s})
	}
}

// logitsVariant is one way to compute the logits after tokens.
type logitsVariant struct {
	name string
	run  func(r *logitsTest, tokens []batch.Token) []float32
}

func logitsVariants() []logitsVariant {
	out := []logitsVariant{}
	add := func(name string, run func(r *logitsTest, tokens []batch.Token) []float32) {
		out = append(out, logitsVariant{name, run})
	}
	for _, threads := range []int{1, 2} {
		for _, chunk := range []int{1, 2, 7, 17, 64, 512} {
			add(fmt.Sprintf("chunks of %d, %d threads", chunk, threads), func(r *logitsTest, tokens []batch.Token) []float32 {
				return r.run(0, threads, 0, chunk, tokens)
			})
		}
	}
	for _, n := range []int{2, 3, 5, 9, 17, 32} {
		for _, threads := range []int{1, 2} {
			add(fmt.Sprintf("beside %d others, %d threads", n-1, threads), func(r *logitsTest, tokens []batch.Token) []float32 {
				return r.beside(n, threads, tokens)
			})
		}
	}
	add("behind kept cells", func(r *logitsTest, tokens []batch.Token) []float32 {
		r.run(1, 1, 0, 64, r.tokens(301))
		return r.run(0, 1, 0, 64, tokens)
	})
	add("in holes of the cache", (*logitsTest).fragmented)
	add("after a copied prefix", func(r *logitsTest, tokens []batch.Token) []float32 {
		r.run(1, 1, 0, 37, append(slices.Clone(tokens[:len(tokens)/2]), r.tokens(9)...))
		r.executor.run(func() { r.base.CopyPrefix(1, 0, len(tokens)/2) })
		return r.run(0, 2, len(tokens)/2, 19, tokens)
	})
	for _, threads := range []int{1, 2} {
		add(fmt.Sprintf("beside sequences that begin alike, %d threads", threads), func(r *logitsTest, tokens []batch.Token) []float32 {
			return r.besideAlike(threads, tokens)
		})
	}
	add("after a cut", func(r *logitsTest, tokens []batch.Token) []float32 {
		r.run(0, 1, 0, 50, append(slices.Clone(tokens[:len(tokens)*2/3]), r.tokens(20)...))
		r.executor.run(func() { r.base.Truncate(0, len(tokens)*2/3) })
		return r.run(0, 2, len(tokens)*2/3, 512, tokens)
	})
	return out
}

// beside decodes the last tokens of the sequence in steps with n-1 others and chunks of a prompt.
func (r *logitsTest) beside(n, threads int, tokens []batch.Token) []float32 {
	others := make([][]batch.Token, n)
	for seq := 1; seq < n; seq++ {
		others[seq] = r.tokens(4 + r.rng.IntN(60))
		r.run(seq, threads, 0, 512, others[seq])
	}
	mine := n / 2
	if mine == 0 {
		mine = 1
	}
	r.clearSeq(mine)
	last := 5
	if len(tokens) > last {
		r.run(mine, threads, 0, 32, tokens[:len(tokens)-last])
	} else {
		last = len(tokens)
	}
	at := 0
	for i := len(tokens) - last; i < len(tokens); i++ {
		var list []batch.Slice
		place := 0
		for seq := 1; seq < n; seq++ {
			if seq == mine {
				at = place
				list = append(list, batch.Slice{Seq: seq, Start: i, Tokens: tokens[i : i+1], Sampler: dryRun{}})
				place++
				continue
			}
			more := r.tokens(1 + seq%3)
			list = append(list, batch.Slice{Seq: seq, Start: len(others[seq]), Tokens: more})
			others[seq] = append(others[seq], more...)
			place += len(more)
		}
		r.step(threads, list)
	}
	return r.row(at)
}

// besideAlike decodes the second half of the sequence in steps with others that share the cells of the first half, or
// of a part of it.
func (r *logitsTest) besideAlike(threads int, tokens []batch.Token) []float32 {
	const first, mine, many = 1, 5, 9
	half := len(tokens) / 2
	r.run(first, threads, 0, 64, append(slices.Clone(tokens[:half]), r.tokens(7)...))
	lengths := make([]int, many)
	r.executor.run(func() {
		for seq := first + 1; seq < many; seq++ {
			lengths[seq] = half
			if seq != mine {
				lengths[seq] = max(0, half-seq%3*70)
			}
			r.base.CopyPrefix(first, seq, lengths[seq])
		}
	})
	row := 0
	for at := half; at < len(tokens); {
		var list []batch.Slice
		place := 0
		for seq := first + 1; seq < many; seq++ {
			if seq == mine {
				chunk := tokens[at:min(at+19, len(tokens))]
				list = append(list, batch.Slice{Seq: seq, Start: at, Tokens: chunk, Sampler: dryRun{}})
				place += len(chunk)
				at += len(chunk)
				row = place - 1
				continue
			}
			more := r.tokens(1 + seq%2)
			list = append(list, batch.Slice{Seq: seq, Start: lengths[seq], Tokens: more})
			lengths[seq] += len(more)
			place += len(more)
		}
		r.step(threads, list)
	}
	return r.row(row)
}

func (r *logitsTest) clearSeq(seq int) { r.executor.run(func() { r.base.Truncate(seq, 0) }) }

// fragmented fills the whole cache with short sequences in turns and frees some, so that the free cells are scattered
// and out of order.
func (r *logitsTest) fragmented(tokens []batch.Token) []float32 {
	many := r.base.limits.Sequences
	at := make([]int, many)
	left := r.base.limits.Cells
	for left >= many*5 && at[1]+5 <= r.base.limits.SequenceMax {
		var list []batch.Slice
		for seq := 1; seq < many; seq++ {
			n := 1 + r.rng.IntN(5)
			list = append(list, batch.Slice{Seq: seq, Start: at[seq], Tokens: r.tokens(n)})
			at[seq] += n
			left -= n
		}
		r.step(1, list)
	}
	r.clearSeq(3)
	half := len(tokens) / 2
	if half > 0 {
		r.run(0, 1, 0, 11, tokens[:half])
	}
	r.clearSeq(2)
	r.clearSeq(5)
	return r.run(0, 2, half, 23, tokens)
}

// deterministicOnCPU is what no GPU can promise.
func deterministicOnCPU(o *Options) {
	onCPU(o)
	o.Deterministic = true
}

// For the demo model, batch-invariant attention, which costs nothing, is enough: products with its weights are the same
// in any batch.
func TestLogitsOfTheDemoDependOnNothingElse(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("attention in one way is usual on amd64 only")
	}
	testLogits(t, logitsModel{"demo", demoFile(t, "demo-q8_0.gguf"), "", 2048, []int{300}}, false)
}

// TestLogitsDependOnNothingElse checks what DETERMINISTIC promises, bit by bit.
func TestLogitsDependOnNothingElse(t *testing.T) {
	for _, model := range logitsModels(t) {
		t.Run(model.name, func(t *testing.T) { testLogits(t, model, true) })
	}
}

type logitsModel struct {
	name, path, adapter string
	cells               int
	lengths             []int // tokens of the sequences
}

func logitsModels(t *testing.T) []logitsModel {
	out := []logitsModel{
		{"demo", demoFile(t, "demo-q8_0.gguf"), "", 4096, []int{1, 5, 130, 420}},
		{"demo with an adapter", demoFile(t, "demo-q8_0.gguf"), "v1.1", 2048, []int{130}},
	}
	if path := os.Getenv("SMOLLM2"); path != "" {
		out = append(out, logitsModel{"smollm2", path, "", 2048, []int{97}})
	}
	return out
}

func testLogits(t *testing.T, model logitsModel, deterministic bool) {
	b, executor := newBackend(t, func(o *Options) {
		onCPU(o)
		o.Deterministic = os.Getenv("INVARIANT_OFF") == ""
		o.Threads = 2
		o.CacheCells = model.cells
	})
	base := loadFile(t, b, model.path, func(s *models.BaseSpec) { s.Parallel = 32; s.Context = 2048 })
	if model.adapter != "" {
		a := loadVersion(t, base, model.adapter)
		executor.run(func() {
			if err := base.useAdapters([]batch.Slice{{Adapter: a}}); err != nil {
				t.Error(err)
			}
		})
	}
	r := &logitsTest{t: t, base: base, executor: executor, rng: rand.New(rand.NewPCG(1, 2))}
	for _, n := range model.lengths {
		tokens := r.tokens(n)
		want := r.run(0, 1, 0, 1, tokens)
		r.clear()
		for _, v := range logitsVariants() {
			got := v.run(r, tokens)
			r.clear()
			if n, most := differences(want, got); n > 0 {
				t.Errorf("%d tokens, %s: %d of %d logits differ, by %g at most", len(tokens), v.name, n, len(want), most)
			}
		}
	}
}

func differences(a, b []float32) (n int, most float64) {
	for i := range a {
		if math.Float32bits(a[i]) != math.Float32bits(b[i]) {
			n++
			most = max(most, math.Abs(float64(a[i]-b[i])))
		}
	}
	return n, most
}

// A base whose rows depend on what else is in the batch isn't loaded.
func TestOtherKernelsAreNoticed(t *testing.T) {
	b, _ := newBackend(t, deterministicOnCPU)
	spec := models.BaseSpec{Name: "demo", Path: demoFile(t, "demo-q8_0.gguf"), Parallel: 4}
	base, err := b.LoadBase(t.Context(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	base.Close()
	setBatchInvariance(invariantNothing)
	defer setBatchInvariance(invariantAttention)
	if base, err := b.LoadBase(t.Context(), spec, nil); !errors.Is(err, ErrNotDeterministic) {
		t.Errorf("loaded with the usual kernels: %v", err)
		if err == nil {
			base.Close()
		}
	}
}

func TestDeterministicIsRefusedOnGPUs(t *testing.T) {
	gpus := []Device{{Name: "CUDA0", GPU: true}}
	for _, c := range []struct {
		name         string
		o            Options
		accelerators []Device
		want         batchInvariance
		refused      bool
	}{
		{"a CPU", Options{Deterministic: true}, nil, invariantAll, false},
		{"a CPU, without the setting", Options{}, nil, invariantAttention, false},
		{"a GPU", Options{Deterministic: true}, gpus, invariantNothing, true},
		{"a GPU, without the setting", Options{}, gpus, invariantNothing, false},
	} {
		if got, err := batchInvarianceFor(c.o, c.accelerators); got != c.want || errors.Is(err, ErrNotDeterministic) != c.refused {
			t.Errorf("%s: %v, %v", c.name, got, err)
		}
	}
}
