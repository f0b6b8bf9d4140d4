//go:build llama

package llama

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"tandem/engine/batch"
)

// Each input below crashed or stalled the process inside the library when it was let through.

func TestStepRefusesBadSlices(t *testing.T) {
	base, executor := loadDemo(t, nil)
	prompt := render(t, base, france)
	other, _ := loadDemo(t, nil)
	foreign, err := other.NewSampler(greedy, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	sampler, err := base.NewSampler(greedy, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sampler.Close()
	closed, _ := base.NewSampler(greedy, nil, nil)
	closed.Close()
	long := slices.Repeat(prompt[:1], base.Limits().SequenceMax+1)
	s := []batch.Slice{
		{Seq: -1, Tokens: prompt},
		{Seq: base.Limits().Sequences, Tokens: prompt},
		{Seq: 1, Tokens: long},
		{Seq: 1, Start: base.Limits().SequenceMax, Tokens: prompt[:1]},
		{Seq: 1, Start: -1, Tokens: prompt},
		{Seq: 1},
		{Seq: 1, Tokens: []batch.Token{1 << 30}},
		{Seq: 1, Tokens: []batch.Token{-1}},
		{Seq: 2, Tokens: prompt, Sampler: foreign},
		{Seq: 3, Tokens: prompt, Sampler: closed},
		{Seq: 0, Tokens: prompt, Sampler: sampler}, // the only sound one
	}
	executor.run(func() { err = base.Step(s) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range s[:len(s)-1] {
		if s[i].Err == nil {
			t.Errorf("slice %d went through", i)
		}
	}
	if good := s[len(s)-1]; good.Err != nil || string(base.Piece(good.Draw.Token)) != "I" {
		t.Errorf("the sound slice: %+v", good)
	}
	many := make([]batch.Slice, 0, 8)
	for seq := range base.Limits().Sequences {
		many = append(many, batch.Slice{Seq: seq, Tokens: long[:base.Limits().SequenceMax]})
	}
	var truncated, copied bool
	executor.run(func() {
		err = base.Step(many)
		truncated = base.Truncate(99, 0) || base.Truncate(-1, 0)
		copied = base.CopyPrefix(0, 99, 1) || base.CopyPrefix(-1, 0, 1) || base.CopyPrefix(7, 6, 1)
	})
	if err == nil || truncated || copied {
		t.Errorf("step beyond n_batch: %v; sequences that don't exist: truncate %v, copy %v", err, truncated, copied)
	}
}

// TestUncheckedStepEndsTheProcess shows that the check of a step's size is needed.
func TestUncheckedStepEndsTheProcess(t *testing.T) {
	const variable = "LLAMA_TEST_UNGUARDED"
	if os.Getenv(variable) != "" {
		b, executor := newBackend(t, func(o *Options) { o.StepTokens, o.MicroBatch = 64, 64 })
		base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
		base.batch.free()
		base.batch = newBatchArrays(4096) // what decode checks against
		executor.run(func() { _ = base.decode([]batch.Slice{{Tokens: slices.Repeat([]batch.Token{0}, 200)}}) })
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestUncheckedStepEndsTheProcess$")
	cmd.Env = append(os.Environ(), variable+"=1", "GGML_NO_BACKTRACE=1")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "GGML_ASSERT") {
		t.Errorf("the child ended with %v:\n%.2000s", err, out)
	}
}

func TestSamplingNumbersAreChecked(t *testing.T) {
	base, _ := loadDemo(t, nil)
	nan := float32(0)
	nan /= nan
	for _, sampling := range []batch.Sampling{{Temperature: nan}, {TopP: nan}, {TopLogprobs: 21}, {TopLogprobs: -1}} {
		if _, err := base.NewSampler(sampling, nil, nil); err == nil {
			t.Errorf("%+v went through", sampling)
		}
	}
	s, err := base.NewSampler(batch.Sampling{LogitBias: map[batch.Token]float32{-5: 1, 1 << 30: 1}, PenaltyWindow: 1 << 30, RepeatPenalty: 2}, []batch.Token{-1, 1 << 30}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.(*Sampler).drawFrom(make([]float32, 1024), 0); err != nil {
		t.Error(err)
	}
	if _, err := s.Draw(0); err == nil {
		t.Error("a draw without logits went through")
	}
}

func TestPieceOfUnknownTokens(t *testing.T) {
	base, _ := loadDemo(t, nil)
	for _, token := range []batch.Token{-1, 1 << 30} {
		if p := base.Piece(token); p != nil || base.IsEnd(token) {
			t.Errorf("token %d has the piece %q", token, p)
		}
	}
	if p := base.Piece(0); len(p) != 0 {
		t.Errorf("control token 0 has the piece %q", p)
	}
	if !base.IsEnd(1) {
		t.Error("token 1 should end an answer")
	}
}
