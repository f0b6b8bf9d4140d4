package batch

import (
	"context"
	"fmt"
	"testing"
)

// idleRunner costs nothing, so that a benchmark sees the executor alone.
type idleRunner struct{ limits Limits }

type idleSampler struct{}

func (r idleRunner) Limits() Limits { return r.limits }
func (r idleRunner) Step(_ Adapter, slices []Slice) error {
	for i := range slices {
		slices[i].Draw.Token = Token(slices[i].Index & 0xff)
	}
	return nil
}
func (r idleRunner) Truncate(int, int) bool        { return true }
func (r idleRunner) CopyPrefix(int, int, int) bool { return true }
func (r idleRunner) NewSampler(Sampling, []Token, []Token) (Sampler, error) {
	return idleSampler{}, nil
}
func (r idleRunner) Piece(t Token) []byte { return idlePieces[t] }
func (r idleRunner) IsEnd(Token) bool     { return false }

var idlePieces = func() (p [256][]byte) {
	for i := range p {
		p[i] = fmt.Appendf(nil, " word%d", i)
	}
	return p
}()

func (idleSampler) Constrained() bool            { return false }
func (idleSampler) Advance(int) ([]Token, error) { return nil, nil }
func (idleSampler) Draw(int) (Draw, error)       { return Draw{}, nil }
func (idleSampler) Accept(Token) error           { return nil }
func (idleSampler) Close()                       {}

// tally is a sink that counts.
type tally struct {
	open int
	done chan struct{}
}

func (s *tally) Emit(step *Step) bool {
	s.open -= len(step.Done)
	if len(step.Done) > 0 && s.open == 0 {
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
				r := idleRunner{Limits{Cells: n * (each + 64), Sequences: n, SequenceMax: each + 64, StepTokens: 512}}
				if err := e.Attach(context.Background(), "b", r); err != nil {
					b.Fatal(err)
				}
				sink := &tally{open: n, done: make(chan struct{})}
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
