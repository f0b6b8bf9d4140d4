package inflight

import (
	"context"
	"syscall"
	"testing"
	"time"
)

// maxPromptBytes is the longest prompt that a fakeEngine takes.
const maxPromptBytes = 1 << 20

// fakeEngine records what the request table asks of it.
type fakeEngine struct {
	callError error         // of calls
	callGate  chan struct{} // Tokenize waits until it is closed
	infers    []*Submission
	cancels   []uint64
	hangup    string
	drained   bool
	move      bool
	isSlow    bool // what it was sent stays in backlog
	backlog   int
	metrics   string
}

// byPrompt returns the newest submission with that prompt, or nil.
func (f *fakeEngine) byPrompt(prompt string) *Submission {
	for i := len(f.infers) - 1; i >= 0; i-- {
		if f.infers[i].Prompt == prompt {
			return f.infers[i]
		}
	}
	return nil
}

func (f *fakeEngine) Infer(s *Submission) bool {
	if len(s.Prompt) > maxPromptBytes {
		return false
	}
	f.infers = append(f.infers, s)
	if f.isSlow {
		f.backlog += len(s.Prompt)
		for i := range s.Messages {
			f.backlog += len(s.Messages[i].Content)
		}
	}
	return true
}

func (f *fakeEngine) Backlog() int { return f.backlog }

func (f *fakeEngine) Cancel(id uint64, _ uint32) { f.cancels = append(f.cancels, id) }

func (f *fakeEngine) Drained() { f.drained = true }

func (f *fakeEngine) Move() { f.move = true }

func (f *fakeEngine) Hangup(reason string) { f.hangup = reason }

func (f *fakeEngine) Metrics(context.Context) ([]byte, error) { return []byte(f.metrics), nil }

func (f *fakeEngine) Load(context.Context, string, string) error { return nil }

func (f *fakeEngine) Tokenize(_ context.Context, _, _, text string, _ bool) ([]int32, error) {
	if f.callGate != nil {
		<-f.callGate
	}
	return make([]int32, len(text)), f.callError
}

func (f *fakeEngine) Detokenize(_ context.Context, _, _ string, tokens []int32) ([]byte, error) {
	return make([]byte, len(tokens)), f.callError
}

func (f *fakeEngine) Render(_ context.Context, s *Submission) (RenderedText, error) {
	return RenderedText{Text: []byte(s.Prompt), Tokens: make([]int32, len(s.Prompt))}, f.callError
}

// last returns the newest submission.
func (f *fakeEngine) last(t *testing.T) *Submission {
	t.Helper()
	if len(f.infers) == 0 {
		t.Fatal("nothing was sent to the engine")
	}
	return f.infers[len(f.infers)-1]
}

func demoCatalog() *Catalog {
	return &Catalog{CacheSize: 5, Models: []Model{
		{Name: "demo", DefaultVersion: "v1.0", Versions: []Version{{Name: "base"}, {Name: "v1.0"}, {Name: "v2.0"}}, ContextTokens: 512},
		{Name: "big", Versions: []Version{{Name: "base"}}},
	}}
}

func catalogOf(names ...string) *Catalog {
	c := &Catalog{CacheSize: 3}
	for _, name := range names {
		c.Models = append(c.Models, Model{Name: name, ContextTokens: 2048, DefaultVersion: "base", Versions: []Version{{Name: "base"}}})
	}
	return c
}

// letterToken returns the token with that index. Its text is the letter with the same index, so that texts are easy to
// check.
func letterToken(s *Submission, index int) Token {
	return Token{ID: s.ID, Attempt: s.Attempt, Index: index, Token: int32(index + 10), Text: []byte{'a' + byte(index)}, TextEnd: index + 1, SinceLast: time.Millisecond}
}

// killedBy is the last exit of an engine that a signal ended.
func killedBy(s syscall.Signal) LastExit { return LastExit{Kind: ExitSignal, Signal: int(s)} }
