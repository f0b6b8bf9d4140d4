package batch

import (
	"fmt"
	"time"
	"unicode/utf8"
)

// stage is where a sequence is between Submit and Summary.
type stage uint8

const (
	stagePreparing stage = iota // a worker builds its sampler
	stageWaiting                // wants a slot
	stageReady                  // in a slot; the next step may take it
	stageDrawing                // in a slot; its logits are there, the worker that gets its grammar ready isn't done
	stageEnded
)

type requestKey struct {
	id      uint64
	attempt uint32
}

// sequence is one request on its way through the executor. Its fields belong to the executor's goroutine once Submit returned, except
// job, which belongs to a worker while busy.
type sequence struct {
	req     *Request
	arrival uint64 // order of submission
	stage   stage

	tokens []Token // prompt, then answer
	filled int     // how many of tokens the cache holds
	slot   int     // meaningful in stageReady and stageDrawing

	preempted int
	placed    bool // had a slot before
	cached    int  // prompt tokens taken from the cache when first placed

	sampler Sampler
	text    assembler
	decided FinishReason // the replayed tokens already end the answer; 0: they don't
	job     job
	busy    bool    // a worker has job
	forced  []Token // what the grammar forces next

	together bool // tokens are taken in that go out together
	run      int  // how many tokens at the end of an answer are fed together by the step that draws the next one; more than 1 after forced ones

	// Guarded by Executor.mu.
	received  bool // the executor's goroutine knows of it
	cancelled bool // Cancel was called

	// Readings of the executor's clock.
	submitted time.Duration
	deadline  time.Duration // 0: none
	began     time.Duration // start of the first step
	last      time.Duration // when the last token was there
	running   bool          // began is set
	prefill   time.Duration
	decode    time.Duration
	restart   time.Duration
}

func newSequence(r *Request) *sequence {
	room := len(r.Prompt) + len(r.Generated) + min(r.MaxNewTokens, 256)
	s := &sequence{req: r, text: newAssembler(r.Stops), tokens: make([]Token, 0, room), run: 1}
	s.tokens = append(append(s.tokens, r.Prompt...), r.Generated...)
	return s
}

// validate finds what makes a request impossible whatever else is going on.
func validate(r *Request, l Limits) error {
	switch {
	case r.Sink == nil:
		return fmt.Errorf("%w: no sink", ErrInvalid)
	case len(r.Prompt) == 0:
		return fmt.Errorf("%w: empty prompt", ErrInvalid)
	case r.MaxNewTokens <= 0:
		return fmt.Errorf("%w: max new tokens is %d", ErrInvalid, r.MaxNewTokens)
	case r.Timeout < 0:
		return fmt.Errorf("%w: timeout is %s", ErrInvalid, r.Timeout)
	}
	for _, s := range r.Stops {
		if s == "" || !utf8.ValidString(s) {
			return fmt.Errorf("%w: stop %q is empty or not UTF-8", ErrInvalid, s)
		}
	}
	if most := min(l.SequenceMax, l.Cells); len(r.Prompt) > most {
		return fmt.Errorf("%w: prompt of %d tokens, context of %d", ErrContextExceeded, len(r.Prompt), most)
	}
	return nil
}

func (s *sequence) key() requestKey { return requestKey{s.req.ID, s.req.Attempt} }

// answer is how many tokens of the answer there are, replayed ones included.
func (s *sequence) answer() int { return len(s.tokens) - len(s.req.Prompt) }

// fresh tells that no token of this attempt was drawn yet.
func (s *sequence) fresh() bool { return s.answer() == len(s.req.Generated) }

// pending is how many known tokens the cache lacks.
func (s *sequence) pending() int { return len(s.tokens) - s.filled }

// chunk is how many tokens may be fed as prompt. The last token of an answer is always fed by the step that draws the next one, alone or
// with those that were forced together with it.
func (s *sequence) chunk() int {
	if s.answer() == 0 {
		return s.pending()
	}
	until := len(s.tokens) - s.run
	if s.req.ReplaySteps {
		until = len(s.req.Prompt)
	}
	return max(until-s.filled, 0)
}

// decoding tells that the sequence has no prompt left to feed.
func (s *sequence) decoding() bool { return s.chunk() == 0 }

// feed is how many tokens a decoding sequence feeds in its next step.
func (s *sequence) feed() int { return min(s.pending(), s.run) }

// room is how many more tokens the answer may have.
func (s *sequence) room(l Limits) int {
	return min(s.req.MaxNewTokens-s.answer(), l.SequenceMax+1-len(s.tokens))
}

// growth is how many cells beyond its known tokens are set aside for a sequence when others are let in.
func (s *sequence) growth() int {
	return min(max(s.req.MaxNewTokens-s.answer(), 1), growthCells)
}

// ends tells whether the answer is over after its token number count (from 1), and why.
func ends(r *Request, l Limits, count int, stopped bool) (FinishReason, bool) {
	switch {
	case stopped:
		return FinishStop, true
	case count >= r.MaxNewTokens, len(r.Prompt)+count > l.SequenceMax:
		return FinishLength, true
	}
	return 0, false
}

// replay feeds the tokens sent before to the assembler and tells whether they already end the answer. Their text isn't sent again.
func (s *sequence) replay(r Runner, l Limits) (FinishReason, bool) {
	for i, t := range s.req.Generated {
		stopped := r.IsEnd(t)
		if !stopped {
			_, stopped = s.text.push(r.Piece(t))
		}
		if reason, over := ends(s.req, l, i+1, stopped); over {
			return reason, true
		}
	}
	return 0, false
}

// summary closes the books at the given time.
func (s *sequence) summary(reason FinishReason, f Failure, now time.Duration) Summary {
	sum := Summary{
		ID: s.req.ID, Attempt: s.req.Attempt, Reason: reason, Failure: f,
		PromptTokens: len(s.req.Prompt), CachedTokens: s.cached, OutputTokens: s.answer(),
		Prefill: s.prefill, Decode: s.decode, Restart: s.restart,
	}
	switch {
	case !s.running:
		sum.Queue = now - s.submitted
		return sum
	case s.fresh() && len(s.req.Generated) > 0:
		sum.Restart = now - s.began
	case s.fresh():
		sum.Prefill = now - s.began
	}
	sum.Queue = s.began - s.submitted
	return sum
}

// start notes that a step with this sequence begins.
func (s *sequence) start(now time.Duration, draws bool) {
	if !s.running {
		s.running, s.began, s.last = true, now, now
	}
	if draws && s.fresh() && len(s.req.Generated) > 0 {
		// A resumed answer's next token is timed by its own step; what came before is the price of the restart.
		s.restart, s.last = now-s.began, now
	}
}

// drew notes that a token is there and returns the time since the one before.
func (s *sequence) drew(now time.Duration) time.Duration {
	since := now - s.last
	s.last = now
	if s.fresh() && len(s.req.Generated) == 0 {
		s.prefill = since
	} else {
		s.decode += since
	}
	return since
}
