//go:build llama

package llama

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// servedBase is a base behind a real executor, which counts the prompt tokens that it computes, and what goes wrong.
type servedBase struct {
	t         testing.TB
	base      *Base
	executor  *batch.Executor
	computed  atomic.Int64
	preempted atomic.Int64
	failed    atomic.Int64 // steps and sequences
	nextID    uint64
}

func (s *servedBase) Tokens(_, kind string, n int) {
	if kind == "prompt" {
		s.computed.Add(int64(n))
	}
}
func (*servedBase) Decode(string, string, float64, int, int) {}
func (*servedBase) Sampling(string, float64)                 {}
func (*servedBase) DeviceDraws(string, int, bool)            {}
func (s *servedBase) Preempted(string)                       { s.preempted.Add(1) }
func (s *servedBase) DecodeError(string, string)             { s.failed.Add(1) }
func (*servedBase) Embedded(string, int)                     {}

// serveBase is a base on the CPU: answers are compared token by token.
func serveBase(t testing.TB, path string, layout models.KVLayout) *servedBase {
	t.Helper()
	return serveBaseWith(t, path, onCPU, func(spec *models.BaseSpec) {
		spec.Parallel, spec.Context, spec.Attention.Layout = 32, 2048, layout
	})
}

func serveBaseWith(t testing.TB, path string, change func(*Options), spec func(*models.BaseSpec)) *servedBase {
	t.Helper()
	s := &servedBase{t: t}
	s.executor = batch.NewExecutor(batch.Options{Observe: s})
	t.Cleanup(func() { s.executor.Close(context.Background()) })
	o := Options{
		BackendDir: backendDir(t), OnDevice: s.executor.Do, Logger: slog.New(slog.DiscardHandler), CacheBytes: 2 << 30, Threads: 2,
		Device: testDevice(t), GPULayers: -1,
	}
	if change != nil {
		change(&o)
	}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	s.base = loadFile(t, b, path, spec)
	s.attach()
	return s
}

func (s *servedBase) attach() {
	if err := s.executor.Attach(context.Background(), "b", givenPace{s.base}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(s.detach)
}

// givenPace begins with costs that a machine under load can't distort: whether a request awaits what another one
// computes is decided by them.
type givenPace struct{ *Base }

func (givenPace) MeasuredSteps() []batch.MeasuredStep {
	return []batch.MeasuredStep{
		{Prompts: 32, Took: 20 * time.Millisecond}, {Decodes: 8, Took: 8 * time.Millisecond}, {Decodes: 1, Took: 5 * time.Millisecond},
	}
}

// detach may be called twice.
func (s *servedBase) detach() { _ = s.executor.Detach(context.Background(), "b") }

// forgetPrompts drops the cells of finished sequences.
func (s *servedBase) forgetPrompts() {
	s.detach()
	s.attach()
}

// hold lets no step begin until release is called: the next one finds all requests that were started meanwhile.
func (s *servedBase) hold() (release func()) {
	held, over := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- s.executor.Do(context.Background(), func() error {
			close(held)
			<-over
			return nil
		})
	}()
	<-held
	return func() {
		close(over)
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
}

// sharedAnswer is a request and what came of it.
type sharedAnswer struct {
	request *batch.Request
	tokens  []batch.Token
	summary batch.Summary
	prompt  []batch.ScoredToken
	done    chan struct{}
}

func (a *sharedAnswer) Emit(step *batch.Step) bool {
	for _, part := range step.Prompts {
		a.prompt = append(a.prompt, part.Tokens...)
	}
	for _, t := range step.Tokens {
		a.tokens = append(a.tokens, t.Token)
	}
	for _, d := range step.Done {
		a.summary = d
		close(a.done)
	}
	return true
}

func (s *servedBase) start(prompt []batch.Token, most int, sampling batch.Sampling, change ...func(*batch.Request)) *sharedAnswer {
	s.t.Helper()
	a := &sharedAnswer{done: make(chan struct{})}
	s.nextID++
	a.request = &batch.Request{ID: s.nextID, Base: "b", Prompt: prompt, MaxNewTokens: most, Sampling: sampling, Sink: a}
	for _, c := range change {
		c(a.request)
	}
	if err := s.executor.Submit(a.request); err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (a *sharedAnswer) wait(t testing.TB) *sharedAnswer {
	t.Helper()
	select {
	case <-a.done:
	case <-time.After(5 * time.Minute):
		t.Fatal("a request isn't done")
	}
	if a.summary.Reason == batch.FinishError {
		t.Fatalf("%+v", a.summary)
	}
	return a
}

func testModel(t testing.TB) string {
	if path := os.Getenv("SMOLLM2"); path != "" {
		return path
	}
	return demoFile(t, "demo-q8_0.gguf")
}

// Several choices cost one prefill and are what each would be alone.
func TestChoicesShareOnePrefill(t *testing.T) {
	const choices = 4
	type served struct {
		path   string
		layout models.KVLayout
	}
	demo := demoFile(t, "demo-q8_0.gguf")
	cases := map[string]served{"demo": {demo, unified}, "demo in streams": {demo, streams}}
	if path := os.Getenv("SMOLLM2"); path != "" {
		cases["real"], cases["real in streams"] = served{path, unified}, served{path, streams}
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := serveBase(t, c.path, c.layout)
			for _, text := range []string{france, strings.Repeat("The river runs past the town and the mill. ", 8) + "Go on."} {
				prompt := render(t, s.base, text)
				sampling := batch.Sampling{Temperature: 1, TopK: 40, Seed: 7}
				var alone [][]batch.Token
				for choice := range choices {
					sampling.Choice = uint32(choice)
					alone = append(alone, s.start(prompt, 12, sampling).wait(t).tokens)
					s.forgetPrompts()
				}
				before := s.computed.Load()
				var together []*sharedAnswer
				release := s.hold() // or one comes when the first is nearly computed, and awaiting it isn't worth it
				for choice := range choices {
					sampling.Choice = uint32(choice)
					together = append(together, s.start(prompt, 12, sampling))
				}
				release()
				cached, different := 0, strings.HasPrefix(name, "demo") // which says the same each time
				for choice, a := range together {
					a.wait(t)
					cached += a.summary.CachedTokens
					different = different || !slices.Equal(a.tokens, alone[0])
					if !slices.Equal(a.tokens, alone[choice]) {
						t.Errorf("prompt of %d, choice %d: %v beside others, %v alone", len(prompt), choice, a.tokens, alone[choice])
					}
				}
				if !different {
					t.Error("all choices are the same answer")
				}
				if computed := int(s.computed.Load() - before); computed != len(prompt)+choices-1 || cached != (choices-1)*(len(prompt)-1) {
					t.Errorf("prompt of %d: %d tokens computed, %d taken from the first choice", len(prompt), computed, cached)
				}
			}
		})
	}
}

// Log-probabilities of a prompt through the executor, in steps beside others, equal those of the same prompt at once.
func TestPromptLogprobsThroughTheExecutor(t *testing.T) {
	s := serveBase(t, testModel(t), unified)
	prompt := render(t, s.base, strings.Repeat("The river runs past the town and the mill. ", 8))
	others := []*sharedAnswer{s.start(prompt, 40, greedy), s.start(prompt, 40, greedy)}
	a := &sharedAnswer{done: make(chan struct{})}
	err := s.executor.Submit(&batch.Request{
		ID: 1 << 40, Base: "b", Prompt: prompt, MaxNewTokens: 1, Sink: a, PromptLogprobs: true, Sampling: batch.Sampling{TopLogprobs: 5},
	})
	if err != nil {
		t.Fatal(err)
	}
	a.wait(t)
	for _, o := range others {
		o.wait(t)
	}
	s.detach()
	executor := newTestExecutor(t)
	executor.run(func() {
		for seq := range s.base.limits.Sequences {
			s.base.Truncate(seq, 0)
		}
	})
	want := referenceScores(t, s.base, executor, prompt)
	if len(a.prompt) != len(prompt) {
		t.Fatalf("%d of %d tokens", len(a.prompt), len(prompt))
	}
	var scores []batch.TokenScore
	for _, token := range a.prompt[1:] {
		scores = append(scores, batch.TokenScore{Logprob: token.Logprob, Top: token.Top})
	}
	checkScores(t, scores, prompt, want)
}

// BenchmarkPromptsThatBeginAlike is the time until all answers of 16 tokens are there, for prompts that nobody has sent
// before: four choices of a prompt of 1,000 tokens, and 80 requests with 1,000 words in common, eight at a time. It
// needs a model with a long context, which SMOLLM2 names.
func BenchmarkPromptsThatBeginAlike(b *testing.B) {
	path := os.Getenv("SMOLLM2")
	if path == "" {
		b.Skip("SMOLLM2 names no model")
	}
	s := serveBase(b, path, unified)
	round := 0
	words := func(n int) string {
		round++
		return fmt.Sprint("Report ", round, ": ", strings.Repeat("the river runs past the old town and the mill ", n/10+1))
	}
	b.Run("four choices", func(b *testing.B) {
		before := s.computed.Load()
		for b.Loop() {
			prompt := render(b, s.base, words(1100))[:1000]
			var all []*sharedAnswer
			for choice := range uint32(4) {
				all = append(all, s.start(prompt, 16, batch.Sampling{Temperature: 1, TopK: 40, Choice: choice}))
			}
			for _, a := range all {
				a.wait(b)
			}
		}
		b.ReportMetric(float64(s.computed.Load()-before)/float64(b.N), "computed/op")
	})
	b.Run("80 requests", func(b *testing.B) {
		before := s.computed.Load()
		for b.Loop() {
			common := words(1000)
			var running []*sharedAnswer
			for i := range 80 {
				if len(running) == 8 {
					running[0].wait(b)
					running = running[1:]
				}
				running = append(running, s.start(render(b, s.base, fmt.Sprint(common, " Question ", i)), 16, batch.Sampling{Temperature: 1, TopK: 40}))
			}
			for _, a := range running {
				a.wait(b)
			}
		}
		b.ReportMetric(float64(s.computed.Load()-before)/float64(b.N), "computed/op")
	})
}

// The cells of a finished request lie before those of the next one, so most of what this sees is in one part of the
// cache.
func TestAnswerBehindKeptCellsIsThatOfAnEmptyCache(t *testing.T) {
	path := os.Getenv("SMOLLM2")
	if path == "" {
		t.Skip("SMOLLM2 names no model, and the demo's context is too short")
	}
	s := serveBase(t, path, unified)
	long := render(t, s.base, strings.Repeat("The river runs past the town and the mill. ", 80))
	prompt := render(t, s.base, france)
	alone := s.start(prompt, 12, greedy).wait(t).tokens
	s.forgetPrompts()
	if n := len(s.start(long, 2, greedy).wait(t).tokens); n == 0 || len(long) < 600 {
		t.Fatalf("%d tokens after a prompt of %d", n, len(long))
	}
	if behind := s.start(prompt, 12, greedy).wait(t).tokens; !slices.Equal(behind, alone) {
		t.Errorf("%v behind %d kept cells, %v alone", behind, len(long), alone)
	}
}

// A beginning in common takes its cells once, in the library as in the scheduler's count: eight requests run together
// that would need four caches, and when cells do run out no step is refused for want of them.
func TestSharedBeginningsTakeTheirCellsOnce(t *testing.T) {
	s := serveBaseWith(t, demoFile(t, "demo-q8_0.gguf"), func(o *Options) { o.CacheCells = 512 }, func(spec *models.BaseSpec) {
		spec.Parallel, spec.Context, spec.Attention.Layout = 8, 512, unified
	})
	words := render(t, s.base, strings.Repeat("The river runs past the town and the mill. ", 20))
	common := slices.Repeat(words, 300/len(words)+1)[:300]
	for _, tc := range []struct {
		answer  int
		preempt bool
	}{{12, false}, {60, true}} {
		computed, preempted := s.computed.Load(), s.preempted.Load()
		release := s.hold()
		var all []*sharedAnswer
		for i := range 8 {
			own := slices.Concat(words[i:i+1], words[:9])
			all = append(all, s.start(slices.Concat(common, own), tc.answer, batch.Sampling{Temperature: 1, IgnoreEnd: true, Seed: uint64(i)}))
		}
		release()
		for _, a := range all {
			if a.wait(t); len(a.tokens) != tc.answer {
				t.Errorf("%d tokens, %+v", len(a.tokens), a.summary)
			}
		}
		computed, preempted = s.computed.Load()-computed, s.preempted.Load()-preempted
		if preempted > 0 != tc.preempt || !tc.preempt && computed > 300+8*20 || s.failed.Load() > 0 {
			t.Errorf("answers of %d: computed %d prompt tokens, %d sequences gave way, %d failures", tc.answer, computed, preempted, s.failed.Load())
		}
	}
}

// A sequence that lacks cells before the position can't go on from there, and is emptied.
func TestTruncateTellsWhatIsMissing(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, "Tell me a story of a fox.")
	executor.run(func() {
		if base.Truncate(0, 5) {
			t.Error("an empty sequence goes on from position 5")
		}
		if err := base.decode([]batch.Slice{{Seq: 0, Tokens: prompt[:8]}}); err != nil {
			t.Fatal(err)
		}
		if !base.Truncate(0, 8) || !base.Truncate(0, 5) || base.lastPosition(0) != 4 {
			t.Errorf("positions up to %d are left of 8", base.lastPosition(0))
		}
		if base.Truncate(0, 7) || base.lastPosition(0) != -1 {
			t.Error("a sequence of 5 goes on from position 7")
		}
	})
}
