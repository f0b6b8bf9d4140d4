package inflight

import (
	"slices"
	"testing"
	"time"

	"tandem/proxy/api"
)

// simulatedEngine computes in fake time what it is sent. Its steps take as long as those of SmolLM2 135M on two cores
// (docs/performance.md): 150 tokens a second alone, 238 with 32 sequences, 430 prompt tokens.
type simulatedEngine struct {
	fakeEngine
	table      *tableTest
	sequences  int
	stepBase   time.Duration
	stepEach   time.Duration // for each generated token
	stepPrompt time.Duration // for each prompt token
	chunks     float64       // prompts get at most this many times the time of decoding; 0: one whole prompt a step
	length     func(s *Submission) int

	seen    int
	running []*simulatedSequence
	waiting []*simulatedSequence
}

type simulatedSequence struct {
	*Submission
	until     time.Time // zero: it has all the time
	length    int
	filled    int // tokens of its prompt
	prefilled bool
	since     time.Duration // its last token, or the first step with a part of its prompt
	generated int
}

func (q *simulatedSequence) promptTokens() int { return len(q.Prompt) / 4 }

func newSimulatedEngine(table *tableTest, sequences int, length func(*Submission) int) *simulatedEngine {
	return &simulatedEngine{table: table, sequences: sequences, length: length,
		stepBase: 2600 * time.Microsecond, stepEach: 4100 * time.Microsecond, stepPrompt: 2300 * time.Microsecond}
}

// start attaches the engine, with its model loaded, and runs it until stop is called.
func (e *simulatedEngine) start() (stop func()) {
	e.table.instance++
	e.table.Attached(e, Hello{Instance: e.table.instance, Device: "cpu", Numerics: "simulated"})
	e.table.Catalog(e, demoCatalog())
	e.table.Stats(e, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: e.sequences}}})
	until, ended := make(chan struct{}), make(chan struct{})
	go func() { defer close(ended); e.run(until) }()
	return func() { close(until); <-ended }
}

// run makes steps until the channel is closed.
func (e *simulatedEngine) run(until <-chan struct{}) {
	for {
		select {
		case <-until:
			return
		default:
		}
		e.takeNew()
		took := e.stepTime()
		time.Sleep(max(took, time.Millisecond)) // fake time
		if took > 0 {
			e.step(took)
		}
	}
}

// takeNew takes in what was sent, and drops what was cancelled.
func (e *simulatedEngine) takeNew() {
	e.table.mu.Lock()
	sent, cancelled := e.infers[e.seen:], e.cancels
	e.seen, e.cancels = len(e.infers), nil
	e.table.mu.Unlock()
	for _, s := range sent {
		q := &simulatedSequence{Submission: s, length: e.length(s), generated: len(s.Generated)}
		if s.Timeout > 0 {
			q.until = time.Now().Add(s.Timeout)
		}
		e.waiting = append(e.waiting, q)
		e.table.Accepted(e, s.ID, s.Attempt, &Accepted{Model: s.Model, Version: s.Version, Revision: []byte("rev1"),
			MaxNewTokens: s.MaxNewTokens, Rendered: Rendered{PromptTokens: make([]int32, q.promptTokens())}})
	}
	gone := func(q *simulatedSequence) bool { return slices.Contains(cancelled, q.ID) }
	e.running, e.waiting = slices.DeleteFunc(e.running, gone), slices.DeleteFunc(e.waiting, gone)
	for len(e.waiting) > 0 && len(e.running) < e.sequences {
		e.running, e.waiting = append(e.running, e.waiting[0]), e.waiting[1:]
	}
}

// stepTime is how long the next step takes: one token for each sequence, and prompts.
func (e *simulatedEngine) stepTime() time.Duration {
	if len(e.running) == 0 {
		return 0
	}
	took := e.stepPrompt * time.Duration(e.fillPrompts())
	for _, q := range e.running {
		if q.prefilled {
			took += e.stepEach
		}
	}
	return took + e.stepBase
}

// fillPrompts computes what the next step has of prompts, and returns how many tokens that is. In chunks the oldest
// prompt gets half of the time for them, and what the others don't need.
func (e *simulatedEngine) fillPrompts() (tokens int) {
	var prompts []*simulatedSequence
	decoding, others := e.stepBase, 0
	for _, q := range e.running {
		switch {
		case q.prefilled:
			decoding += e.stepEach
			continue
		case len(prompts) > 0:
			others += q.promptTokens() - q.filled
		}
		prompts = append(prompts, q)
	}
	if e.chunks == 0 {
		prompts = prompts[:min(1, len(prompts))]
	}
	left := int(e.chunks * float64(decoding) / float64(e.stepPrompt))
	for i, q := range prompts {
		n := q.promptTokens() - q.filled
		switch {
		case e.chunks > 0 && i == 0:
			n = min(n, max(left/2, left-others, 1))
		case e.chunks > 0:
			n = min(n, left)
		}
		q.filled += n
		q.prefilled = q.filled == q.promptTokens()
		tokens, left = tokens+n, left-n
	}
	return tokens
}

func (e *simulatedEngine) step(took time.Duration) {
	var s Step
	for _, q := range e.running {
		if q.filled > 0 {
			q.since += took
		}
		if !q.prefilled {
			continue
		}
		s.Tokens = append(s.Tokens, Token{ID: q.ID, Attempt: q.Attempt, Index: q.generated, Text: []byte("a"), TextEnd: q.generated + 1, SinceLast: q.since})
		q.since = 0
		if q.generated++; q.generated == q.length {
			s.Done = append(s.Done, Summary{ID: q.ID, Attempt: q.Attempt, Reason: FinishStop, PromptTokens: q.promptTokens(), OutputTokens: q.length})
		}
	}
	e.running = slices.DeleteFunc(e.running, func(q *simulatedSequence) bool { return q.generated == q.length })
	isOver := func(q *simulatedSequence) bool {
		if q.until.IsZero() || time.Now().Before(q.until) {
			return false
		}
		s.Done = append(s.Done, Summary{ID: q.ID, Attempt: q.Attempt, Reason: FinishDeadline, OutputTokens: q.generated})
		return true
	}
	e.running, e.waiting = slices.DeleteFunc(e.running, isOver), slices.DeleteFunc(e.waiting, isOver)
	e.table.Step(e, &s)
}

// simulatedClient is one request and how it went.
type simulatedClient struct {
	key     string
	sentAt  time.Time
	took    time.Duration
	err     *api.Error // of the table; nil: answered, or gone
	refused bool       // at once
	gone    bool       // the client's patience was over
	done    chan struct{}
}

// ask sends a request, waits for its whole answer, and leaves after the patience; 0: never.
func (table *tableTest) ask(t *testing.T, r Request, patience time.Duration) *simulatedClient {
	c := &simulatedClient{key: r.Key, sentAt: time.Now(), done: make(chan struct{})}
	answer, err := table.Admit(t.Context(), r)
	if err != nil {
		c.err, c.refused, c.took = err, true, time.Since(c.sentAt)
		close(c.done)
		return c
	}
	go func() {
		defer close(c.done)
		leave := make(<-chan time.Time)
		if patience > 0 {
			leave = time.After(patience)
		}
		for {
			select {
			case <-leave:
				answer.Cancel(api.Cancelled())
				answer.Settle(ClientGone)
				c.gone, c.took = true, time.Since(c.sentAt)
				return
			case <-answer.Ready():
			}
			p := answer.Take(nil)
			if !p.Last {
				continue
			}
			c.took, c.err = time.Since(c.sentAt), p.Err
			if p.Err != nil {
				answer.Settle(Failed)
			} else {
				answer.Settle(Delivered)
			}
			return
		}
	}()
	return c
}
