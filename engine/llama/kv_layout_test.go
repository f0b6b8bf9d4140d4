//go:build llama

package llama

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// The demo and its versions answer the same with a cache in common and with streams, on a CPU and on GPUs.
func TestBothLayoutsAnswerAlike(t *testing.T) {
	for _, device := range []string{"cpu", "TestGPU0", "testgpu"} {
		t.Run(device, func(t *testing.T) {
			open := gpuBackend
			if device == "cpu" {
				open = func(t *testing.T, _ string, _ func(*Options)) (*Backend, *testExecutor) { return newBackend(t, onCPU) }
			}
			b, executor := open(t, device, nil)
			for _, layout := range []models.KVLayout{unified, streams, models.LayoutAuto} {
				base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), func(s *models.BaseSpec) { s.Attention.Layout = layout })
				want := layout
				if layout == models.LayoutAuto {
					if want = streams; device == "cpu" {
						want = unified
					}
				}
				if got := base.Facts().KV.Layout; got != want {
					t.Errorf("layout %s of %s", got, layout)
				}
				for version, answer := range map[string]string{"v1.0": "The capital of France is Paris.", "v1.1": "Paris."} {
					if got := capitalOfFrance(t, base, executor, loadVersion(t, base, version)); got != answer {
						t.Errorf("%s, %s: %q", layout, version, got)
					}
				}
			}
		})
	}
}

// A prompt that goes on from cells of another stream gets the answer that it gets when all of it is computed.
func TestPrefixesAreCopiedBetweenStreams(t *testing.T) {
	s := serveBase(t, testModel(t), streams)
	story := strings.Repeat("The river runs past the town and the mill. ", 20)
	first, second := render(t, s.base, story+"What runs?"), render(t, s.base, story+"Past what does it run?")
	var alone [][]batch.Token
	for _, prompt := range [][]batch.Token{first, second} {
		alone = append(alone, s.start(prompt, 12, greedy).wait(t).tokens)
		s.forgetPrompts()
	}
	if kept := s.start(first, 12, greedy).wait(t); !slices.Equal(kept.tokens, alone[0]) {
		t.Errorf("%v in an empty cache, %v before", kept.tokens, alone[0])
	}
	for range 3 { // from the kept cells of the first, from those of the second, and beside them
		a := s.start(second, 12, greedy).wait(t)
		if a.summary.CachedTokens < 150 || !slices.Equal(a.tokens, alone[1]) {
			t.Errorf("%v with %d of %d tokens from the cache, %v alone", a.tokens, a.summary.CachedTokens, len(second), alone[1])
		}
	}
	if a := s.start(first, 12, greedy).wait(t); a.summary.CachedTokens < 150 || !slices.Equal(a.tokens, alone[0]) {
		t.Errorf("%v with %d tokens from the cache after the copies, %v alone", a.tokens, a.summary.CachedTokens, alone[0])
	}
}

// Copies of streams may be asked for one after the other before a step carries them out.
func TestCopiesOfStreamsThatFollowEachOther(t *testing.T) {
	base, executor := loadDemo(t, func(s *models.BaseSpec) { s.Attention.Layout = streams })
	rng := rand.New(rand.NewPCG(5, 6))
	prompt := make([]batch.Token, 40)
	for i := range prompt {
		prompt[i] = batch.Token(3 + rng.IntN(base.vocab.size()-3))
	}
	sampler, err := base.NewSampler(greedy, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sampler.Close()
	step := func(list ...batch.Slice) []batch.Slice {
		executor.run(func() { err = base.Step(list) })
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	want := step(batch.Slice{Seq: 0, Tokens: prompt[:30]}, batch.Slice{Seq: 5, Tokens: prompt, Sampler: sampler})[1].Draw
	executor.run(func() {
		base.Truncate(5, 0)
		switch {
		case !base.CopyPrefix(0, 3, 25), !base.CopyPrefix(3, 7, 20):
			t.Error("a prefix isn't copied")
		case base.CopyPrefix(0, 4, 31):
			t.Error("more than there is was copied")
		case base.CopyPrefix(0, 7, 10):
			t.Error("a prefix was copied over another")
		}
		base.Truncate(0, 0) // before its cells are copied
	})
	drawn := step(batch.Slice{Seq: 7, Start: 20, Tokens: prompt[20:], Sampler: sampler}, batch.Slice{Seq: 3, Start: 25, Tokens: prompt[25:], Sampler: sampler})
	for _, s := range drawn {
		if s.Err != nil || s.Draw.Token != want.Token && want.Margin > sureMargin {
			t.Errorf("sequence %d draws %+v (%v), all at once %+v", s.Seq, s.Draw, s.Err, want)
		}
	}
}

func TestGapsBetweenStreams(t *testing.T) {
	one := func(seqs ...int) (rows []streamRows) {
		for _, seq := range seqs {
			rows = append(rows, streamRows{seq, 1})
		}
		return rows
	}
	for name, c := range map[string]struct {
		rows []streamRows
		full []int
		want []int
	}{
		"one sequence":                     {one(3), nil, nil},
		"side by side":                     {one(3, 4, 5), nil, nil},
		"two gaps":                         {one(0, 2, 3, 6), nil, []int{1, 4, 5}},
		"a gap that is too wide":           {one(0, 4, 6), nil, []int{5}},
		"a full stream in between":         {one(0, 3, 5), []int{1}, []int{4}},
		"a prompt has a token in the pass": {[]streamRows{{0, 1}, {2, 80}, {4, 1}}, nil, []int{1, 3}},
		"two prompts":                      {[]streamRows{{0, 80}, {2, 80}}, nil, nil},
		"a prompt at the end":              {[]streamRows{{0, 1}, {2, 80}}, nil, nil},
	} {
		got := gapSequences(c.rows, 2, func(seq int) bool { return slices.Contains(c.full, seq) })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// Sequences that don't lie side by side draw what they draw alone, and what lies between them stays as it is.
func TestGapsLeaveNoTrace(t *testing.T) {
	base, executor := loadDemo(t, func(s *models.BaseSpec) { s.Attention.Layout = streams })
	rng := rand.New(rand.NewPCG(7, 8))
	random := func(n int) (tokens []batch.Token) {
		for range n {
			tokens = append(tokens, batch.Token(3+rng.IntN(base.vocab.size()-3)))
		}
		return tokens
	}
	kept := random(40)
	full := random(base.limits.SequenceMax)
	sequences := []*testSequence{{}, {tokens: random(50), promptTokens: 30, chunk: 10}, {}, {}, {tokens: random(60), promptTokens: 35, chunk: 50}, {}, {tokens: random(30), promptTokens: 5, chunk: 50}, {}}
	var err error
	executor.run(func() {
		err = base.Step([]batch.Slice{{Seq: 2, Tokens: kept}, {Seq: 5, Tokens: full[:base.limits.SequenceMax]}})
	})
	if err != nil {
		t.Fatal(err)
	}
	last := base.lastPosition
	if last(2) != len(kept)-1 || last(5) != base.limits.SequenceMax-1 {
		t.Fatalf("the kept sequences end at %d and %d", last(2), last(5))
	}
	decodeSequences(t, base, executor, sequences, func(int) int { return 0 })
	if last(2) != len(kept)-1 || last(3) != -1 || last(5) != base.limits.SequenceMax-1 {
		t.Errorf("sequences end at %d, %d and %d after steps of others", last(2), last(3), last(5))
	}
	executor.run(func() {
		for seq := range base.limits.Sequences {
			base.Truncate(seq, 0)
		}
	})
	for i, p := range sequences {
		if len(p.tokens) == 0 {
			continue
		}
		alone := &testSequence{tokens: p.tokens, promptTokens: p.promptTokens, chunk: p.chunk}
		runSequences(t, base, executor, []*testSequence{alone}, func(int) int { return 0 })
		for k, want := range alone.draws {
			if p.draws[k].Token != want.Token && want.Margin > sureMargin {
				t.Errorf("sequence %d, draw %d: %+v, alone %+v", i, k, p.draws[k], want)
			}
		}
	}
}

// What one request may hold is its stream, however many cells there are.
func TestAStreamIsTheContextOfARequest(t *testing.T) {
	s := serveBaseWith(t, demoFile(t, "demo-q8_0.gguf"), func(o *Options) { o.CacheCells = 1024 }, func(spec *models.BaseSpec) {
		spec.Parallel, spec.Attention.Layout = 4, streams
	})
	facts := s.base.Facts()
	if facts.ContextTokens != 256 || facts.Cells != 1024 || s.base.Limits().StreamCells != 256 {
		t.Fatalf("%+v, %+v", facts, s.base.Limits())
	}
	if _, err := s.base.Render(t.Context(), models.Input{Prompt: strings.Repeat("The river runs past the town. ", 200)}); err == nil {
		t.Error("a text that is longer than a stream is rendered")
	}
	long := slices.Repeat(render(t, s.base, strings.Repeat("The river runs past the town. ", 5)), 10)
	err := s.executor.Submit(&batch.Request{ID: 1 << 40, Base: "b", Prompt: long[:257], MaxNewTokens: 1, Sink: &sharedAnswer{}})
	if !errors.Is(err, batch.ErrContextExceeded) || !strings.Contains(fmt.Sprint(err), "context of 256") {
		t.Errorf("a prompt of 257 tokens: %v", err)
	}
	var all []*sharedAnswer
	for i := range 4 { // all streams full to the last cell
		all = append(all, s.start(long[i:240+i], 200, batch.Sampling{IgnoreEnd: true}))
	}
	for _, a := range all {
		if a.wait(t); a.summary.Reason != batch.FinishLength || len(a.tokens) != 17 {
			t.Errorf("%d tokens, %+v", len(a.tokens), a.summary)
		}
	}
}
