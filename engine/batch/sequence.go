package batch

import (
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"
)

// stage is where a sequence is between Submit and Summary.
type stage uint8

const (
	stagePreparing stage = iota // a worker builds its sampler
	stageWaiting                // wants a slot
	stageReady                  // in a slot; the next step may take it
	stageAwaiting               // in a slot, without cells: another sequence computes its prompt's beginning
	stageDrawing                // in a slot; its logits are computed, and a worker prepares its grammar for the draw
	stageEnded
)

type requestKey struct {
	id      uint64
	attempt uint32
}

// sequence is one request inside the executor, from Submit to Release. Its fields belong to the executor's goroutine
// once Submit returned, except job, which belongs to a worker while jobRunning.
type sequence struct {
	req     *Request
	arrival uint64 // order of submission
	stage   stage

	tokens []Token // prompt, then answer
	filled int     // how many of tokens the cache holds
	slot   int     // meaningful in the stages in a slot

	// In stageAwaiting: who computes the beginning of the prompt, and how many tokens of it.
	leader        *sequence
	awaitedTokens int
	// neededTokens: the shortest beginning that a sequence awaits from this one, as of the last collect; 0: none does
	neededTokens int

	lastTurn  uint64 // number of its last row of a divided step
	preempted int
	hadSlot   bool // had a slot before
	cached    int  // prompt tokens taken from the cache when first placed
	scored    int  // prompt tokens whose log-probabilities were emitted

	sampler    Sampler
	text       assembler
	replayEnd  FinishReason // the replayed tokens already end the answer; 0: they don't
	job        job
	jobRunning bool    // a worker has job
	forced     []Token // what the grammar forces next

	takingForced bool // several forced tokens are being added that are emitted together
	// feedTogether: tokens at the end of the answer that the step which draws the next one feeds; more than 1 after
	// forced ones
	feedTogether int

	// Guarded by Executor.mu.
	received  bool // the executor's goroutine knows of it
	cancelled bool // Cancel was called

	// Times of the executor's clock.
	submittedAt time.Duration
	deadline    time.Duration // 0: none
	startedAt   time.Duration // of its first step
	lastTokenAt time.Duration // when the last token was drawn
	// firstTokenWait: from submittedAt until the first token that this attempt drew; 0: it has drawn none
	firstTokenWait time.Duration

	started bool // startedAt is set
	prefill time.Duration
	decode  time.Duration
	restart time.Duration
}

func newSequence(r *Request) *sequence {
	room := len(r.Prompt) + len(r.Generated) + min(r.MaxNewTokens, 256)
	s := &sequence{req: r, text: newAssembler(r.Stops), tokens: make([]Token, 0, room), feedTogether: 1}
	s.tokens = append(append(s.tokens, r.Prompt...), r.Generated...)
	return s
}

// validate finds what makes a request impossible in any state of the executor.
func validate(r *Request, l Limits) error {
	switch {
	case r.Sink == nil:
		return fmt.Errorf("%w: no sink", ErrInvalid)
	case len(r.Prompt) == 0:
		return &FieldError{"prompt", "has no tokens"}
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
	return validateTokens(r, l.Vocabulary)
}

// validateTokens refuses ids that a client gave and that the vocabulary hasn't.
func validateTokens(r *Request, vocabulary int) error {
	if vocabulary == 0 {
		return nil
	}
	unknown := func(t Token) bool { return t < 0 || int(t) >= vocabulary }
	if i := slices.IndexFunc(r.Prompt, unknown); i >= 0 {
		return &FieldError{"prompt", fmt.Sprintf("has token %d at place %d, the model's vocabulary is 0 to %d", r.Prompt[i], i, vocabulary-1)}
	}
	for _, t := range slices.Sorted(maps.Keys(r.Sampling.LogitBias)) {
		if unknown(t) {
			return &FieldError{"logit_bias", fmt.Sprintf("names token %d, the model's vocabulary is 0 to %d", t, vocabulary-1)}
		}
	}
	return nil
}

func (s *sequence) key() requestKey { return requestKey{s.req.ID, s.req.Attempt} }

// answerTokens is how many tokens the answer has, replayed ones included.
func (s *sequence) answerTokens() int { return len(s.tokens) - len(s.req.Prompt) }

// nothingDrawn reports whether no token of this attempt was drawn yet.
func (s *sequence) nothingDrawn() bool { return s.answerTokens() == len(s.req.Generated) }

// pendingTokens is how many known tokens the cache lacks.
func (s *sequence) pendingTokens() int { return len(s.tokens) - s.filled }

// prefillTokensLeft is how many tokens may be fed as prompt. The last token of an answer is always fed by the step that
// draws the next one, alone or with those that were forced together with it.
func (s *sequence) prefillTokensLeft() int {
	if s.answerTokens() == 0 {
		return s.pendingTokens()
	}
	until := len(s.tokens) - s.feedTogether
	if s.req.ReplaySteps {
		until = len(s.req.Prompt)
	}
	return max(until-s.filled, 0)
}

// decoding reports whether the sequence has no prompt left to feed.
func (s *sequence) decoding() bool { return s.prefillTokensLeft() == 0 }

// feedTokens is how many tokens a decoding sequence feeds in its next step.
func (s *sequence) feedTokens() int { return min(s.pendingTokens(), s.feedTogether) }

// decodeWork is what the next step of a decoding sequence computes. Several tokens at once cost as much as that many
// prompt tokens.
func (s *sequence) decodeWork() stepWork {
	n := s.feedTokens()
	if n == 1 {
		return stepWork{decodes: 1, cells: attendedCells(s.filled, 1)}
	}
	return stepWork{prompts: n, cells: attendedCells(s.filled, n)}
}

// weight is the owner's.
func (s *sequence) weight() float64 {
	if s.req.OwnerWeight > 0 {
		return s.req.OwnerWeight
	}
	return 1
}

// answerTokensLeft is how many more tokens the answer may have.
func (s *sequence) answerTokensLeft(l Limits) int {
	return min(s.req.MaxNewTokens-s.answerTokens(), l.SequenceMax+1-len(s.tokens))
}

// reserveCells is how many cells beyond its known tokens are set aside for a sequence when others are admitted.
func (s *sequence) reserveCells() int {
	return min(max(s.req.MaxNewTokens-s.answerTokens(), 1), answerReserveCells)
}

// answerEnds reports whether the answer ends with its token number count (from 1), and why.
func answerEnds(r *Request, l Limits, count int, stopped bool) (FinishReason, bool) {
	switch {
	case stopped:
		return FinishStop, true
	case count >= r.MaxNewTokens, len(r.Prompt)+count > l.SequenceMax:
		return FinishLength, true
	}
	return 0, false
}

// pieceOf is what a token adds to the answer's text.
func (s *sequence) pieceOf(r Runner, t Token) []byte {
	if text, ok := s.req.Shown[t]; ok {
		return []byte(text)
	}
	return r.Piece(t)
}

// replayGenerated feeds the replayed tokens to the assembler and reports whether they already end the answer. Their
// text isn't sent again.
func (s *sequence) replayGenerated(r Runner, l Limits) (FinishReason, bool) {
	for i, t := range s.req.Generated {
		var text []byte
		stopped := r.IsEnd(t)
		if !stopped {
			text, stopped = s.text.push(s.pieceOf(r, t))
		}
		if s.req.Replayed != nil {
			s.req.Replayed(text)
		}
		if reason, over := answerEnds(s.req, l, i+1, stopped); over {
			return reason, true
		}
	}
	return 0, false
}

// summary is the request's Summary if it ends now.
func (s *sequence) summary(reason FinishReason, f Failure, now time.Duration) Summary {
	sum := Summary{
		ID: s.req.ID, Attempt: s.req.Attempt, Reason: reason, Failure: f,
		PromptTokens: len(s.req.Prompt), CachedTokens: s.cached, OutputTokens: s.answerTokens(), Stop: s.text.stop,
		Prefill: s.prefill, Decode: s.decode, Restart: s.restart,
	}
	switch {
	case !s.started:
		sum.Queue = now - s.submittedAt
		return sum
	case s.nothingDrawn() && len(s.req.Generated) > 0:
		sum.Restart = now - s.startedAt
	case s.nothingDrawn():
		sum.Prefill = now - s.startedAt
	}
	sum.Queue = s.startedAt - s.submittedAt
	return sum
}

// stepBegins notes the time at which a step with this sequence begins.
func (s *sequence) stepBegins(now time.Duration, draws bool) {
	if !s.started {
		s.started, s.startedAt, s.lastTokenAt = true, now, now
	}
	if draws && s.nothingDrawn() && len(s.req.Generated) > 0 {
		// A replayed answer's next token is timed by its own step; the time before that is Restart.
		s.restart, s.lastTokenAt = now-s.startedAt, now
	}
}

// tokenDrawn notes the time of a drawn token and returns the time since the one before.
func (s *sequence) tokenDrawn(now time.Duration) time.Duration {
	since := now - s.lastTokenAt
	s.lastTokenAt = now
	if s.firstTokenWait == 0 {
		s.firstTokenWait = now - s.submittedAt
	}
	if s.nothingDrawn() && len(s.req.Generated) == 0 {
		s.prefill = since
	} else {
		s.decode += since
	}
	return since
}
