package link

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	"tandem/engine/batch"
	"tandem/engine/models"
)

const (
	contextTokens = 512
	endToken      = batch.Token(0)
)

// fakeBackend loads bases that spell the alphabet. A prompt "end 5" gives five letters and then the end; others go on
// until they are cut.
type fakeBackend struct {
	lastInput     atomic.Pointer[models.Input]
	loadGate      chan struct{} // not nil: a load waits for it
	failReasons   map[string]models.Reason
	renderGate    chan struct{} // not nil: a rendering waits for it
	stops         []string      // of the template
	renderStarted chan struct{} // gets a value for every rendering that begins
	facts         models.Facts  // what a base can do; the rest is its own
	embedGate     chan struct{} // not nil: an embedding waits for it
	embedStarted  chan struct{} // gets a value for every embedding that begins, when there is a gate
	embedError    error         // not nil: what every embedding ends with
}

func (b *fakeBackend) LoadBase(ctx context.Context, spec models.BaseSpec, progress func(models.Progress)) (models.Base, error) {
	progress(models.Progress{Phase: "weights", Ratio: 0.5})
	if b.loadGate != nil {
		select {
		case <-b.loadGate:
		case <-ctx.Done():
			return nil, &models.LoadError{Reason: models.ReasonOther, What: spec.Name, Err: context.Cause(ctx)}
		}
	}
	if reason, ok := b.failReasons[spec.Name]; ok {
		return nil, &models.LoadError{Reason: reason, What: spec.Name, Err: errors.New("told to fail")}
	}
	return &fakeBase{backend: b, ends: make(map[int]int)}, nil
}

type fakeBase struct {
	backend *fakeBackend
	ends    map[int]int // by sequence; of the executor's goroutine
}

type fakeAdapter struct{ name string }

func (a fakeAdapter) Name() string { return a.name }
func (fakeAdapter) Bytes() int64   { return 7 }
func (fakeAdapter) Close() error   { return nil }

func (b *fakeBase) AdapterFits(int64, int64, bool) bool { return true }

func (b *fakeBase) Facts() models.Facts {
	f := b.backend.facts
	f.Architecture, f.ContextTokens, f.Cells, f.Sequences, f.Backend = "alphabet", contextTokens, 1<<20, 64, "test"
	return f
}

func (*fakeBase) LoadAdapter(_ context.Context, spec models.AdapterSpec) (models.Adapter, error) {
	return fakeAdapter{spec.Name}, nil
}

func (b *fakeBase) Render(ctx context.Context, in models.Input) (models.Prompt, error) {
	b.backend.lastInput.Store(&in)
	select {
	case b.backend.renderStarted <- struct{}{}:
	default:
	}
	if b.backend.renderGate != nil {
		select {
		case <-b.backend.renderGate:
		case <-ctx.Done():
			return models.Prompt{}, context.Cause(ctx)
		}
	}
	if len(in.JSONSchema) > 0 || in.Grammar != "" {
		return models.Prompt{}, errors.New("schema isn't supported")
	}
	tokens := append(make([]int32, 0, len(in.Prompt)), in.Tokens...)
	for _, c := range []byte(in.Prompt) {
		tokens = append(tokens, int32(c))
	}
	if len(tokens) > in.MaxTokens {
		return models.Prompt{}, models.ErrPromptTooLong
	}
	prompt := models.Prompt{Tokens: tokens, Stops: append([]string{"§"}, b.backend.stops...)}
	if in.SplitOutput {
		prompt.Parser = []byte("none")
		if len(in.Tools) > 0 {
			prompt.Parser = []byte("letters")
		}
	}
	return prompt, nil
}

func (*fakeBase) Close() error { return nil }

func (*fakeBase) WriteOut(tokens []int32) (text []byte) {
	for _, t := range tokens {
		text = append(text, byte(t))
	}
	return text
}

// NewParser: with state "letters" each letter is content, b is the end of the reasoning, and d begins a call whose
// arguments follow.
func (*fakeBase) NewParser(state []byte) (models.Parser, error) {
	if string(state) != "letters" {
		return nil, nil
	}
	return &letterParser{kind: models.PartReasoning}, nil
}

type letterParser struct{ kind models.PartKind }

func (*letterParser) Shown() map[int32]string { return nil }

func (p *letterParser) Push(text []byte) (list []models.Part) {
	for _, c := range text {
		switch c {
		case 'b':
			p.kind = models.PartContent
		case 'd':
			list = append(list, models.Part{Kind: models.PartCall, ID: "id", Name: "f"})
			p.kind = models.PartArguments
		default:
			list = append(list, models.Part{Kind: p.kind, Text: []byte{c}})
		}
	}
	return list
}

func (p *letterParser) Finish(cut bool) []models.Part {
	if cut {
		return []models.Part{{Kind: p.kind, Text: []byte("…")}}
	}
	return []models.Part{{Kind: p.kind, Text: []byte(".")}}
}

func (*letterParser) Close() {}

func (*fakeBase) Limits() batch.Limits {
	return batch.Limits{Cells: 1 << 20, Sequences: 64, SequenceMax: contextTokens, StepTokens: 1024, Prefix: true, Vocabulary: 256}
}

// Step draws letters: the token at index i is the letter i, whatever came before.
func (b *fakeBase) Step(slices []batch.Slice) error {
	for i := range slices {
		s := &slices[i]
		if d, ok := s.Sampler.(*alphabetSampler); ok {
			t := d.letter(s.Index)
			s.Draw = batch.Draw{Token: t, Margin: 1, Logprob: -1, Top: fakeTop(t, d.top)}
		}
		s.Scores = nil
		for _, t := range s.Score.Targets {
			s.Scores = append(s.Scores, batch.TokenScore{Logprob: -2, Top: fakeTop(t, s.Score.Top)})
		}
	}
	return nil
}

func fakeTop(t batch.Token, n int) []batch.TopLogprob {
	return []batch.TopLogprob{{Token: t, Logprob: -1}, {Token: endToken, Logprob: -3}}[:n]
}

func (*fakeBase) Truncate(int, int) bool        { return true }
func (*fakeBase) CopyPrefix(int, int, int) bool { return true }
func (*fakeBase) Piece(t batch.Token) []byte {
	if t == endToken {
		return nil
	}
	return []byte{byte(t)}
}
func (b *fakeBase) TokenText(t batch.Token) []byte {
	if t == endToken {
		return []byte("<end>")
	}
	return b.Piece(t)
}
func (*fakeBase) IsEnd(t batch.Token) bool { return t == endToken }

func (*fakeBase) NewSampler(s batch.Sampling, prompt, _ []batch.Token) (batch.Sampler, error) {
	d := &alphabetSampler{end: contextTokens, top: s.TopLogprobs}
	var text strings.Builder
	for _, t := range prompt {
		text.WriteByte(byte(t))
	}
	if n, ok := strings.CutPrefix(text.String(), "end "); ok {
		d.end = int(n[0] - '0')
	}
	return d, nil
}

type alphabetSampler struct{ end, top int }

func (d *alphabetSampler) letter(i int) batch.Token {
	if i >= d.end {
		return endToken
	}
	return batch.Token('a' + i%26)
}
func (*alphabetSampler) Constrained() bool                  { return false }
func (*alphabetSampler) Advance(int) ([]batch.Token, error) { return nil, nil }
func (d *alphabetSampler) Draw(index int) (batch.Draw, error) {
	return batch.Draw{Token: d.letter(index)}, nil
}
func (*alphabetSampler) Accept(batch.Token) error { return nil }
func (*alphabetSampler) Close()                   {}
