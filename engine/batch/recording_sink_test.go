package batch

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// recordingSink is a sink that keeps what it gets, by request.
type recordingSink struct {
	t *testing.T

	mu      sync.Mutex
	answers map[requestKey]*recordedAnswer
	gone    bool // Emit returns false
	emits   int
	onToken func(StepToken) // on the executor's goroutine
}

type recordedAnswer struct {
	tokens     []Token
	text       []byte
	steps      []StepToken // without Text
	prompt     []ScoredToken
	summary    Summary
	took       time.Duration // sum of SinceLast
	firstIndex int
	done       chan struct{}
	released   chan struct{}
}

func newRecordingSink(t *testing.T) *recordingSink {
	return &recordingSink{t: t, answers: make(map[requestKey]*recordedAnswer)}
}

// answerOf needs the lock.
func (c *recordingSink) answerOf(id uint64, attempt uint32) *recordedAnswer {
	k := requestKey{id, attempt}
	if c.answers[k] == nil {
		c.answers[k] = &recordedAnswer{firstIndex: -1, done: make(chan struct{}), released: make(chan struct{})}
	}
	return c.answers[k]
}

func (c *recordingSink) Emit(step *Step) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.emits++
	if c.gone {
		return false
	}
	for _, part := range step.Prompts {
		a := c.answerOf(part.ID, part.Attempt)
		if part.From != len(a.prompt) || len(a.tokens) > 0 {
			c.t.Errorf("request %d: a part of its prompt from %d on came after %d tokens of it and %d of the answer", part.ID, part.From, len(a.prompt), len(a.tokens))
		}
		a.prompt = append(a.prompt, part.Tokens...)
	}
	for _, tok := range step.Tokens {
		a := c.answerOf(tok.ID, tok.Attempt)
		if a.firstIndex < 0 {
			a.firstIndex = tok.Index
		}
		if tok.Index != a.firstIndex+len(a.tokens) {
			c.t.Errorf("request %d: token %d came as number %d", tok.ID, tok.Index, len(a.tokens))
		}
		a.tokens = append(a.tokens, tok.Token)
		a.text = append(a.text, tok.Text...)
		a.took += tok.SinceLast
		if c.onToken != nil {
			c.onToken(tok)
		}
		tok.Text = nil
		a.steps = append(a.steps, tok)
	}
	for _, sum := range step.Done {
		a := c.answerOf(sum.ID, sum.Attempt)
		a.summary = sum
		close(a.done)
	}
	return true
}

// request makes a request for this sink whose Release can be waited for.
func (c *recordingSink) request(id uint64, prompt []Token, most int) *Request {
	c.mu.Lock()
	a := c.answerOf(id, 0)
	c.mu.Unlock()
	return &Request{
		ID: id, Base: "b", Prompt: prompt, MaxNewTokens: most, Sink: c,
		Release: func() { close(a.released) },
	}
}

// get returns what came for a request so far.
func (c *recordingSink) get(id uint64) *recordedAnswer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answerOf(id, 0)
}

// wait returns it when the request was released.
func (c *recordingSink) wait(id uint64) *recordedAnswer {
	c.t.Helper()
	a := c.get(id)
	select {
	case <-a.released:
	case <-time.After(20 * time.Second):
		c.t.Fatalf("request %d isn't done", id)
	}
	return a
}

// checkAnswer compares with what the model alone would have said.
func checkAnswer(t *testing.T, r *Request, a *recordedAnswer) {
	t.Helper()
	tokens, text, reason := expectedAnswer(r)
	if fmt.Sprint(a.tokens) != fmt.Sprint(tokens) || string(a.text) != text || a.summary.Reason != reason {
		t.Errorf("request %d: got %v %q, reason %d (%v); want %v %q, reason %d",
			r.ID, a.tokens, a.text, a.summary.Reason, a.summary.Failure, tokens, text, reason)
	}
	if a.summary.OutputTokens != len(tokens) || a.summary.PromptTokens != len(r.Prompt) {
		t.Errorf("request %d: summary %+v", r.ID, a.summary)
	}
}
