package mock

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"tandem/engine/batch"
	"tandem/engine/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t *testing.T, b *Backend, spec models.BaseSpec) *Base {
	t.Helper()
	base, err := b.LoadBase(context.Background(), spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	return base.(*Base)
}

// answerSink is a sink for one answer.
type answerSink struct {
	text    strings.Builder
	tokens  int
	prompt  []batch.ScoredToken
	top     []batch.TopLogprob // of the last token
	summary batch.Summary
	done    chan struct{}
}

func (r *answerSink) Emit(s *batch.Step) bool {
	for _, t := range s.Tokens {
		r.text.Write(t.Text)
		r.tokens++
		r.top = slices.Clone(t.Top)
	}
	for _, part := range s.Prompts {
		r.prompt = append(r.prompt, part.Tokens...)
	}
	for _, d := range s.Done {
		r.summary = d
		close(r.done)
	}
	return true
}

// infer answers through a real executor.
func infer(t *testing.T, base *Base, adapter batch.Adapter, in models.Input, most int) *answerSink {
	t.Helper()
	p, err := base.Render(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	e := batch.NewExecutor(batch.Options{})
	defer e.Close(context.Background())
	if err := e.Attach(context.Background(), Model, base); err != nil {
		t.Fatal(err)
	}
	r := &answerSink{done: make(chan struct{})}
	req := &batch.Request{ID: 1, Base: Model, Adapter: adapter, Prompt: p.Tokens, MaxNewTokens: most, Sink: r}
	if err := e.Submit(req); err != nil {
		t.Fatal(err)
	}
	<-r.done
	return r
}

func TestAnswersWithThePrompt(t *testing.T) {
	base := load(t, New(Options{}), models.BaseSpec{Name: Model})
	for name, in := range map[string]models.Input{
		"prompt":       {Prompt: "What is the capital of France?"},
		"last message": {Messages: []models.Message{{Role: "user", Content: "no"}, {Role: "user", Content: "What is the capital of France?"}, {Role: "assistant", Content: "x"}}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range Versions() {
				a, err := base.LoadAdapter(context.Background(), models.AdapterSpec{Name: v})
				if err != nil {
					t.Fatal(err)
				}
				r := infer(t, base, a, in, 100)
				if got := r.text.String(); got != "What is the capital of France?" {
					t.Errorf("%s says %q", v, got)
				}
				if r.tokens != 8 || r.summary.OutputTokens != 8 || r.summary.Reason != batch.FinishStop {
					t.Errorf("%d tokens, summary %+v", r.tokens, r.summary)
				}
			}
		})
	}
}

func TestMaxTokensCutTheAnswer(t *testing.T) {
	base := load(t, New(Options{}), models.BaseSpec{Name: Model})
	r := infer(t, base, nil, models.Input{Prompt: "one two three"}, 2)
	if r.text.String() != "one two" || r.summary.Reason != batch.FinishLength {
		t.Errorf("got %q, %+v", r.text.String(), r.summary)
	}
}

func FuzzTokensGiveBackTheText(f *testing.F) {
	for _, s := range []string{"", " ", "What is the capital of France?", "  a  b", "Grüße \xff\x00", "the the  the", "<|end|>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tokens := tokenise(s)
		if got := string(detokenise(tokens)); got != s {
			t.Errorf("%q came back as %q", s, got)
		}
		for _, tok := range tokens {
			if tok == endToken {
				t.Errorf("%q gives the end token", s)
			}
		}
	})
}

func TestPromptTooLong(t *testing.T) {
	base := load(t, New(Options{}), models.BaseSpec{Name: Model, Context: 4})
	for text, in := range map[string]models.Input{
		"context":   {Prompt: "one two three four five"},
		"max given": {Prompt: "one two three", MaxTokens: 2},
	} {
		if _, err := base.Render(context.Background(), in); !errors.Is(err, models.ErrPromptTooLong) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestLoadsTakeTimeAndReportProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Options{LoadDelay: 10 * time.Second})
		var seen []float64
		start := time.Now()
		_, err := b.LoadBase(context.Background(), models.BaseSpec{Name: Model}, func(p models.Progress) { seen = append(seen, p.Ratio) })
		if err != nil || time.Since(start) != 10*time.Second {
			t.Errorf("load took %s: %v", time.Since(start), err)
		}
		if len(seen) != 11 || seen[0] != 0 || seen[10] != 1 {
			t.Errorf("progress %v", seen)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var le *models.LoadError
		if _, err = b.LoadBase(ctx, models.BaseSpec{Name: Model}, nil); !errors.As(err, &le) || le.Reason != models.ReasonTimeout {
			t.Errorf("aborted load: %v", err)
		}
	})
}

func TestLoadsFailOnDemand(t *testing.T) {
	b := New(Options{FailLoad: map[string]models.Reason{"bad": models.ReasonBadFormat, "demo@v2.0": models.ReasonAdapterMismatch}})
	var le *models.LoadError
	if _, err := b.LoadBase(context.Background(), models.BaseSpec{Name: "bad"}, nil); !errors.As(err, &le) || le.Reason != models.ReasonBadFormat {
		t.Errorf("base: %v", err)
	}
	base := load(t, b, models.BaseSpec{Name: Model})
	if _, err := base.LoadAdapter(context.Background(), models.AdapterSpec{Name: "v2.0"}); !errors.As(err, &le) || le.Reason != models.ReasonAdapterMismatch {
		t.Errorf("adapter: %v", err)
	}
	if _, err := base.LoadAdapter(context.Background(), models.AdapterSpec{Name: "v1.0"}); err != nil {
		t.Error(err)
	}
}

func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(Options{TokenDelay: 10 * time.Millisecond, PrefillDelay: time.Millisecond})
		start := time.Now()
		infer(t, load(t, b, models.BaseSpec{Name: Model}), nil, models.Input{Prompt: "one two three"}, 100)
		// Three prompt tokens, then four draws.
		if took := time.Since(start); took != 43*time.Millisecond {
			t.Errorf("took %s", took)
		}
	})
}

func TestUseAfterCloseFails(t *testing.T) {
	base := load(t, New(Options{}), models.BaseSpec{Name: Model})
	a, err := base.LoadAdapter(context.Background(), models.AdapterSpec{Name: "v1.0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if r := infer(t, base, a, models.Input{Prompt: "one"}, 1); r.summary.Failure.Code != batch.FailDecode {
		t.Errorf("closed adapter: %+v", r.summary)
	}
	if err := base.Close(); err != nil {
		t.Fatal(err)
	}
	if r := infer(t, base, nil, models.Input{Prompt: "one"}, 1); r.summary.Failure.Code != batch.FailDecode {
		t.Errorf("closed base: %+v", r.summary)
	}
}

func TestLogprobsAndTokenPrompts(t *testing.T) {
	base := load(t, New(Options{}), models.BaseSpec{Name: Model})
	tokens := tokenise("the capital")
	e := batch.NewExecutor(batch.Options{})
	defer e.Close(context.Background())
	if err := e.Attach(context.Background(), Model, base); err != nil {
		t.Fatal(err)
	}
	p, err := base.Render(context.Background(), models.Input{Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	r := &answerSink{done: make(chan struct{})}
	err = e.Submit(&batch.Request{
		ID: 1, Base: Model, Prompt: p.Tokens, MaxNewTokens: 5, Sink: r, PromptLogprobs: true,
		Sampling: batch.Sampling{TopLogprobs: 3, IgnoreEnd: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	<-r.done
	if got := r.text.String(); got != "the capitalthe capitalthe" {
		t.Errorf("an answer that ignores its end is %q", got)
	}
	if len(r.prompt) != 2 || !math.IsNaN(float64(r.prompt[0].Logprob)) || r.prompt[1].Logprob != -0.25 || len(r.prompt[1].Top) != 3 {
		t.Errorf("prompt %+v", r.prompt)
	}
	if len(r.top) != 3 || r.top[0].Logprob != -0.25 || string(r.top[0].Text) != "the" || r.top[2].Logprob >= r.top[1].Logprob {
		t.Errorf("most likely tokens %+v", r.top)
	}
	if err := e.Check(&batch.Request{ID: 2, Base: Model, Prompt: []batch.Token{batch.Token(len(pieces))}, MaxNewTokens: 1, Sink: r}); err == nil {
		t.Error("a token outside of the vocabulary passes")
	}
}
