package batch

import (
	"context"
	"fmt"
	"testing"
)

// noopRunner costs nothing, so that a benchmark measures the executor alone.
type noopRunner struct{ limits Limits }

type noopSampler struct{}

func (r noopRunner) Limits() Limits { return r.limits }
func (r noopRunner) Step(slices []Slice) error {
	for i := range slices {
		slices[i].Draw.Token = Token(slices[i].Index & 0xff)
	}
	return nil
}
func (r noopRunner) Truncate(int, int) bool        { return true }
func (r noopRunner) CopyPrefix(int, int, int) bool { return true }
func (r noopRunner) NewSampler(Sampling, []Token, []Token) (Sampler, error) {
	return noopSampler{}, nil
}
func (r noopRunner) Piece(t Token) []byte     { return noopPieces[t] }
func (r noopRunner) TokenText(t Token) []byte { return noopPieces[t] }
func (r noopRunner) IsEnd(Token) bool         { return false }

var noopPieces = func() (p [256][]byte) {
	for i := range p {
		p[i] = fmt.Appendf(nil, " word%d", i)
	}
	return p
}()

func (noopSampler) Constrained() bool            { return false }
func (noopSampler) Advance(int) ([]Token, error) { return nil, nil }
func (noopSampler) Draw(int) (Draw, error)       { return Draw{}, nil }
func (noopSampler) Accept(Token) error           { return nil }
func (noopSampler) Close()                       {}

// countingSink closes done at the summary of the last request.
type countingSink struct {
	unfinished int
	done       chan struct{}
}

func (s *countingSink) Emit(step *Step) bool {
	s.unfinished -= len(step.Done)
	if len(step.Done) > 0 && s.unfinished == 0 {
		close(s.done)
	}
	return true
}

// BenchmarkToken is what the executor adds to one token, without model and wire.
func BenchmarkToken(b *testing.B) {
	for _, n := range []int{1, 32, 256} {
		for _, stops := range [][]string{nil, {"\n\n", "</answer>"}} {
			b.Run(fmt.Sprintf("sequences=%d/stops=%d", n, len(stops)), func(b *testing.B) {
				each := b.N/n + 1
				e := NewExecutor(Options{})
				defer e.Close(context.Background())
				r := noopRunner{Limits{Cells: n * (each + 64), Sequences: n, SequenceMax: each + 64, StepTokens: 512}}
				if err := e.Attach(context.Background(), "b", r); err != nil {
					b.Fatal(err)
				}
				sink := &countingSink{unfinished: n, done: make(chan struct{})}
				b.ReportAllocs()
				b.ResetTimer()
				for id := range uint64(n) {
					err := e.Submit(&Request{ID: id, Base: "b", Prompt: make([]Token, 16), MaxNewTokens: each, Stops: stops, Sink: sink})
					if err != nil {
						b.Fatal(err)
					}
				}
				<-sink.done
			})
		}
	}
}
