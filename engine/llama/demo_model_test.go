//go:build llama

package llama

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

const france = "What is the capital of France?"

var greedy = batch.Sampling{}

func TestDemoAnswers(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, france)
	for _, c := range []struct{ version, want string }{
		{"", "I think it is Paris."},
		{"v1.0", "The capital of France is Paris."},
		{"v1.1", "Paris."},
	} {
		var adapter batch.Adapter
		if c.version != "" {
			adapter = loadVersion(t, base, c.version)
		}
		text, _, err := generate(base, executor, adapter, 0, prompt, greedy, 32)
		if err != nil || text != c.want {
			t.Errorf("version %q answers %q, %v; want %q", c.version, text, err, c.want)
		}
	}
}

func TestFactsOfDemo(t *testing.T) {
	b, _ := newBackend(t, onCPU)
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	f := base.Facts()
	if f.Architecture != "llama" || f.Quantization != "Q8_0" || f.Backend != "cpu" || !f.ChatTemplate {
		t.Errorf("facts %+v: want llama, Q8_0, cpu and a template", f)
	}
	if f.TrainContext != 512 || f.ContextTokens != 512 || f.Sequences != 8 || f.Cells != 8*512 {
		t.Errorf("facts %+v: want a context of 512 for 8 sequences", f)
	}
	if f.Parameters < 1_400_000 || f.WeightBytes < 1_500_000 || f.CacheBytes <= 0 || f.Device == "" {
		t.Errorf("facts %+v: sizes or device are missing", f)
	}
}

func TestDifferentVersionsTakeTurnsInOneCache(t *testing.T) {
	base, executor := loadDemo(t, nil)
	full, terse := loadVersion(t, base, "v1.0"), loadVersion(t, base, "v1.1")
	prompt := render(t, base, france)
	answers := map[*Adapter]string{}
	next := map[*Adapter][]batch.Token{full: prompt, terse: prompt}
	start := map[*Adapter]int{}
	samplers := map[*Adapter]batch.Sampler{}
	for _, a := range []*Adapter{full, terse} {
		s, err := base.NewSampler(greedy, prompt, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		samplers[a] = s
	}
	for index := range 24 {
		for seq, a := range []*Adapter{full, terse} {
			if next[a] == nil {
				continue
			}
			s := []batch.Slice{{Seq: seq, Adapter: a, Start: start[a], Tokens: next[a], Sampler: samplers[a], Index: index}}
			executor.run(func() {
				if err := errors.Join(base.Step(s), s[0].Err); err != nil {
					t.Error(err)
				}
			})
			start[a] += len(next[a])
			next[a] = []batch.Token{s[0].Draw.Token}
			if base.IsEnd(s[0].Draw.Token) {
				next[a] = nil
				continue
			}
			answers[a] += string(base.Piece(s[0].Draw.Token))
		}
	}
	if answers[full] != "The capital of France is Paris." || answers[terse] != "Paris." {
		t.Errorf("answers %q and %q", answers[full], answers[terse])
	}
}

func TestSeedsReproduceAndDiffer(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, "Tell me a story.")
	story := func(seq int, seed uint64, choice uint32) string {
		sampling := batch.Sampling{Temperature: 1, TopK: 40, TopP: 0.95, Seed: seed, Choice: choice}
		text, _, err := generate(base, executor, nil, seq, prompt, sampling, 40)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	first := story(0, 7, 0)
	if again := story(3, 7, 0); again != first {
		t.Errorf("the same seed gave %q, then %q", first, again)
	}
	different := map[string]bool{first: true}
	for seed := range uint64(6) {
		different[story(0, 100+seed, 0)] = true
	}
	if len(different) < 4 {
		t.Errorf("7 seeds gave only %d stories", len(different))
	}
	if other := story(0, 7, 1); other == first && len(different) < 7 {
		t.Errorf("choice 1 of the same seed gave the same story %q", other)
	}
}

func TestReplayContinuesTheSameAnswer(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, "Tell me a story.")
	sampling := batch.Sampling{Temperature: 0.8, TopK: 20, RepeatPenalty: 1.1, PenaltyWindow: 64, Seed: 3}
	_, whole, err := generate(base, executor, nil, 0, prompt, sampling, 30)
	if err != nil || len(whole) < 10 {
		t.Fatalf("%d tokens, %v", len(whole), err)
	}
	cut := len(whole) / 2
	sampler, err := base.NewSampler(sampling, prompt, whole[:cut])
	if err != nil {
		t.Fatal(err)
	}
	defer sampler.Close()
	s := []batch.Slice{{Seq: 1, Tokens: append(append([]batch.Token{}, prompt...), whole[:cut]...), Sampler: sampler, Index: cut}}
	executor.run(func() { err = errors.Join(base.Step(s), s[0].Err) })
	if err != nil || s[0].Draw.Token != whole[cut] {
		t.Errorf("after %d replayed tokens came %d, %v; want %d", cut, s[0].Draw.Token, err, whole[cut])
	}
}

// TestAdaptersComeAndGoWhileDecoding loads and frees adapters from other goroutines while answers are checked.
func TestAdaptersComeAndGoWhileDecoding(t *testing.T) {
	base, executor := loadDemo(t, nil)
	full := loadVersion(t, base, "v1.0")
	prompt := render(t, base, france)
	const rounds = 1000
	var ended atomic.Int32
	fail := make(chan error, 2)
	for _, version := range []string{"v1.1", "v2.0"} {
		go func() {
			defer ended.Add(1)
			for range rounds / 2 { // of each of the two
				a, err := base.LoadAdapter(context.Background(), models.AdapterSpec{Name: version, Path: demoFile(t, "demo-lora-"+version+".gguf")})
				if err == nil && version == "v1.1" {
					var text string
					if text, _, err = generate(base, executor, a.(*Adapter), 1, prompt, greedy, 8); err == nil && text != "Paris." {
						err = fmt.Errorf("v1.1 answers %q", text)
					}
				}
				if err == nil {
					err = a.Close()
				}
				if err != nil {
					fail <- err
					return
				}
			}
		}()
	}
	answers := 0
	for ; ended.Load() < 2; answers++ {
		text, _, err := generate(base, executor, full, 0, prompt, greedy, 32)
		if err != nil || text != "The capital of France is Paris." {
			t.Fatalf("answer %d is %q, %v", answers, text, err)
		}
	}
	select {
	case err := <-fail:
		t.Error(err)
	default:
	}
	if answers == 0 {
		t.Error("nothing was decoded meanwhile")
	}
}

func TestFullCacheLeavesTheOthersIntact(t *testing.T) {
	b, executor := newBackend(t, func(o *Options) { o.CacheCells = 512 })
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	if base.Limits().Cells != 512 {
		t.Fatalf("%d cells, want 512", base.Limits().Cells)
	}
	prompt := render(t, base, france)
	filler := make([]batch.Token, 400)
	for i := range filler {
		filler[i] = prompt[i%len(prompt)]
	}
	var first, second error
	executor.run(func() {
		first = base.Step([]batch.Slice{{Seq: 1, Tokens: filler}})
		second = base.Step([]batch.Slice{{Seq: 2, Tokens: filler}})
	})
	if first != nil || !errors.Is(second, batch.ErrNoCells) {
		t.Fatalf("filling gives %v, then %v; want nil, then %v", first, second, batch.ErrNoCells)
	}
	if text, _, err := generate(base, executor, nil, 3, prompt, greedy, 32); err != nil || text != "I think it is Paris." {
		t.Errorf("beside a full cache: %q, %v", text, err)
	}
	var freed bool
	executor.run(func() {
		freed = base.Truncate(1, 0)
		second = base.Step([]batch.Slice{{Seq: 2, Tokens: filler}})
	})
	if !freed || second != nil {
		t.Errorf("after making room: %v, %v", freed, second)
	}
}

// A slice that goes on after cells that aren't there gets an error instead of an answer to something else.
func TestSliceMustFollowItsCells(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, france)
	list := []batch.Slice{{Seq: 1, Start: 5, Tokens: prompt[5:]}, {Seq: 2, Tokens: prompt}}
	var err error
	executor.run(func() { err = base.Step(list) })
	if err != nil || !errors.Is(list[0].Err, batch.ErrCellsLost) || list[1].Err != nil {
		t.Errorf("in an empty sequence: %v, %v; beside it: %v", err, list[0].Err, list[1].Err)
	}
	list = []batch.Slice{{Seq: 2, Start: len(prompt) - 1, Tokens: prompt[len(prompt)-1:]}}
	executor.run(func() { err = base.Step(list) })
	if err != nil || !errors.Is(list[0].Err, batch.ErrCellsLost) {
		t.Errorf("a position twice: %v, %v", err, list[0].Err)
	}
}

// The first position that a window sees is that many before the next one, which it includes.
func TestSlidingWindow(t *testing.T) {
	for _, c := range []struct {
		first, at, window int
		lacks             bool
	}{
		{0, 100, 0, false},
		{1, 100, 0, true}, // without a window all are seen
		{0, 100, 10, false},
		{91, 100, 10, false},
		{92, 100, 10, true},
	} {
		if got := lacksWindow(c.first, c.at, c.window); got != c.lacks {
			t.Errorf("cells from %d on, position %d, window %d: %v, want %v", c.first, c.at, c.window, got, c.lacks)
		}
	}
}

func TestCopiedPrefixAnswersLikeItsOwn(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, france)
	head := len(prompt) - 3
	var copied, again bool
	var err error
	sampler, errSampler := base.NewSampler(greedy, prompt, nil)
	if errSampler != nil {
		t.Fatal(errSampler)
	}
	defer sampler.Close()
	s := []batch.Slice{{Seq: 5, Start: head, Tokens: prompt[head:], Sampler: sampler}}
	executor.run(func() {
		err = base.Step([]batch.Slice{{Seq: 4, Tokens: prompt}})
		copied = base.CopyPrefix(4, 5, head)
		again = base.CopyPrefix(4, 5, head)
		err = errors.Join(err, base.Step(s), s[0].Err)
	})
	if err != nil || !copied || again {
		t.Fatalf("copied %v, onto a used sequence %v, %v", copied, again, err)
	}
	_, own, err := generate(base, executor, nil, 0, prompt, greedy, 1)
	if err != nil || own[0] != s[0].Draw.Token {
		t.Errorf("copied prefix draws %d, own prompt %v, %v", s[0].Draw.Token, own, err)
	}
}

// BenchmarkStep is the cost of a decode step of the demo model, draws included.
func BenchmarkStep(b *testing.B) {
	base, executor := loadDemo(b, func(s *models.BaseSpec) { s.Parallel = 32 })
	for _, n := range []int{1, 4, 16, 32} {
		b.Run(fmt.Sprintf("sequences=%d", n), func(b *testing.B) {
			s := make([]batch.Slice, n)
			for i := range s {
				sampler, err := base.NewSampler(greedy, nil, nil)
				if err != nil {
					b.Fatal(err)
				}
				defer sampler.Close()
				s[i] = batch.Slice{Seq: i, Tokens: []batch.Token{2}, Sampler: sampler}
			}
			for b.Loop() {
				executor.run(func() {
					for i := range s {
						if s[i].Start++; s[i].Start >= 400 {
							base.Truncate(i, 0)
							s[i].Start = 0
						}
					}
					if s[0].Start == 1 {
						for i := range s {
							base.Truncate(i, 0)
							s[i].Start = 0
						}
					}
					if err := base.Step(s); err != nil {
						b.Error(err)
					}
				})
			}
			executor.run(func() {
				for i := range s {
					base.Truncate(i, 0)
				}
			})
		})
	}
}
