package link

import (
	"slices"
	"sync"
	"time"

	"tandem/engine/batch"
	"tandem/schema"
)

// maxFrameTokens of one Step frame; a longer step is split.
const maxFrameTokens = 4096

// Emit takes what one decode step produced for this connection. It copies into a frame that the connection's flusher
// builds, so the step loop neither encodes nor waits. False: the connection is gone, or so far behind that it was
// closed.
func (s *session) Emit(step *batch.Step) bool {
	step = s.splitStep(step)
	prompts, tokens := step.Prompts, step.Tokens
	for len(tokens) > maxFrameTokens {
		if s.conn.SendLater(s.stepFrame(step, prompts, tokens[:maxFrameTokens], nil)) != nil {
			return false
		}
		prompts = nil
		tokens = tokens[maxFrameTokens:]
	}
	return s.conn.SendLater(s.stepFrame(step, prompts, tokens, step.Done)) == nil
}

// stepFrame is a Step frame that is built later, by the flusher. Its buffers are reused.
type stepFrame struct {
	base     string
	duration time.Duration
	prompts  []batch.PromptPart
	tokens   []batch.StepToken
	choices  []uint32 // of tokens; empty: all 0
	text     []byte   // of all tokens
	top      []batch.TopLogprob
	done     []doneSummary
}

// doneSummary is a summary, and what the link adds to it.
type doneSummary struct {
	batch.Summary
	handedBack      bool
	renderTime      time.Duration
	reasoningTokens int
	stop            string // the client's
}

var stepFrames = sync.Pool{New: func() any { return new(stepFrame) }}

func (s *session) stepFrame(step *batch.Step, prompts []batch.PromptPart, tokens []batch.StepToken, done []batch.Summary) *stepFrame {
	f := stepFrames.Get().(*stepFrame)
	f.base, f.duration = step.Base, step.Duration
	f.prompts = append(f.prompts, prompts...)
	f.copyTokens(tokens)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.otherChoices > 0 {
		for i := range tokens {
			f.choices = append(f.choices, s.choiceOf(attemptKey{tokens[i].ID, tokens[i].Attempt}))
		}
	}
	for i := range done {
		f.done = append(f.done, s.doneOf(&done[i]))
	}
	return f
}

// doneOf adds what the link knows to a summary. Called with mu held.
func (s *session) doneOf(d *batch.Summary) doneSummary {
	end := doneSummary{Summary: *d}
	if r := s.requests[attemptKey{d.ID, d.Attempt}]; r != nil {
		end.renderTime, end.handedBack = r.renderTime, r.handedBack && d.Reason == batch.FinishCancelled
		if slices.Contains(r.in.stops, d.Stop) { // not one of the template's
			end.stop = d.Stop
		}
		r.keepSummary(d, end.reason().String())
	}
	return end
}

func (s *session) choiceOf(k attemptKey) uint32 {
	if r := s.requests[k]; r != nil {
		return r.in.sampling.choice
	}
	return 0
}

// copyTokens copies tokens, since the step is the executor's again after Emit.
func (f *stepFrame) copyTokens(tokens []batch.StepToken) {
	f.tokens = append(f.tokens[:0], tokens...)
	f.text, f.top = f.text[:0], f.top[:0]
	for i := range tokens {
		f.text = append(f.text, tokens[i].Text...)
		f.top = append(f.top, tokens[i].Top...)
	}
	text, top := f.text, f.top
	for i := range f.tokens {
		t := &f.tokens[i]
		t.Text, text = text[:len(t.Text)], text[len(t.Text):]
		t.Top, top = top[:len(t.Top)], top[len(t.Top):]
	}
}

// topBytes is the size of one of the most likely tokens in the backlog.
const topBytes = 32

// Size is the frame's size in the backlog.
func (f *stepFrame) Size() int {
	size := tokenBytes*(1+len(f.tokens)+len(f.done)) + len(f.text) + topBytes*len(f.top)
	for i := range f.prompts {
		for k := range f.prompts[i].Tokens {
			size += tokenBytes + topBytes*len(f.prompts[i].Tokens[k].Top)
		}
	}
	return size
}

// Build writes the frame; the flusher calls it.
func (f *stepFrame) Build(to schema.Frame) error {
	step, err := to.NewStep()
	if err != nil {
		return err
	}
	step.SetDurationNs(nanos(f.duration))
	if err := step.SetBase(f.base); err != nil {
		return err
	}
	if err := f.writePrompts(step); err != nil {
		return err
	}
	if err := f.writeTokens(step); err != nil || len(f.done) == 0 {
		return err
	}
	done, err := step.NewDone(int32(len(f.done)))
	if err != nil {
		return err
	}
	for i := range f.done {
		if err := f.done[i].write(done.At(i)); err != nil {
			return err
		}
	}
	return nil
}

func (f *stepFrame) writeTokens(step schema.Step) error {
	if len(f.tokens) == 0 {
		return nil
	}
	list, err := step.NewTokens(int32(len(f.tokens)))
	if err != nil {
		return err
	}
	for i := range f.tokens {
		from, to := &f.tokens[i], list.At(i)
		to.SetRequestId(from.ID)
		to.SetAttempt(from.Attempt)
		to.SetIndex(uint32(from.Index))
		to.SetTokenId(from.Token)
		to.SetTextEnd(uint32(from.TextEnd))
		to.SetLogprob(from.Logprob)
		to.SetMargin(from.Margin)
		to.SetSinceLastNs(nanos(from.SinceLast))
		if len(f.choices) > 0 {
			to.SetChoice(f.choices[i])
		}
		if len(from.Text) > 0 {
			if err := to.SetText(from.Text); err != nil {
				return err
			}
		}
		if len(from.Piece) > 0 {
			if err := to.SetPiece(from.Piece); err != nil {
				return err
			}
		}
		if err := writeTop(to.NewTopLogprobs, from.Top); err != nil {
			return err
		}
	}
	return nil
}

func (f *stepFrame) writePrompts(step schema.Step) error {
	if len(f.prompts) == 0 {
		return nil
	}
	list, err := step.NewPrompts(int32(len(f.prompts)))
	if err != nil {
		return err
	}
	for i := range f.prompts {
		if err := writePrompt(list.At(i), &f.prompts[i]); err != nil {
			return err
		}
	}
	return nil
}

func writePrompt(to schema.PromptPart, part *batch.PromptPart) error {
	to.SetRequestId(part.ID)
	to.SetAttempt(part.Attempt)
	to.SetFrom(uint32(part.From))
	list, err := to.NewTokens(int32(len(part.Tokens)))
	if err != nil {
		return err
	}
	for i := range part.Tokens {
		from, to := &part.Tokens[i], list.At(i)
		to.SetToken(from.Token)
		to.SetLogprob(from.Logprob)
		if len(from.Piece) > 0 {
			if err := to.SetPiece(from.Piece); err != nil {
				return err
			}
		}
		if err := writeTop(to.NewTop, from.Top); err != nil {
			return err
		}
	}
	return nil
}

// writeTop writes the most likely tokens into the list that newList makes.
func writeTop(newList func(int32) (schema.TopLogprob_List, error), top []batch.TopLogprob) error {
	if len(top) == 0 {
		return nil
	}
	list, err := newList(int32(len(top)))
	if err != nil {
		return err
	}
	for i, t := range top {
		list.At(i).SetToken(t.Token)
		list.At(i).SetLogprob(t.Logprob)
		if len(t.Text) > 0 {
			if err := list.At(i).SetText(t.Text); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *doneSummary) write(to schema.Summary) error {
	to.SetRequestId(d.ID)
	to.SetAttempt(d.Attempt)
	to.SetPromptTokens(uint32(d.PromptTokens))
	to.SetCachedTokens(uint32(d.CachedTokens))
	to.SetOutputTokens(uint32(d.OutputTokens))
	to.SetQueueNs(nanos(d.Queue))
	to.SetPrefillNs(nanos(d.Prefill))
	to.SetDecodeNs(nanos(d.Decode))
	to.SetRestartNs(nanos(d.Restart))
	to.SetRendererNs(nanos(d.renderTime))
	to.SetReasoningTokens(uint32(d.reasoningTokens))
	to.SetReason(d.reason())
	if d.stop != "" {
		if err := to.SetStop(d.stop); err != nil {
			return err
		}
	}
	if d.Reason != batch.FinishError {
		return nil
	}
	failed, err := to.NewFailure()
	if err != nil {
		return err
	}
	f := stepFailure(d.Failure)
	return f.write(failed)
}

func (d *doneSummary) reason() schema.FinishReason {
	if d.handedBack {
		return schema.FinishReason_movedAway
	}
	return finishReason(d.Reason)
}

func finishReason(r batch.FinishReason) schema.FinishReason {
	switch r {
	case batch.FinishStop:
		return schema.FinishReason_stop
	case batch.FinishLength:
		return schema.FinishReason_length
	case batch.FinishCancelled:
		return schema.FinishReason_cancelled
	case batch.FinishDeadline:
		return schema.FinishReason_deadline
	case batch.FinishError:
		return schema.FinishReason_error
	}
	return schema.FinishReason_unspecified
}

// Release returns the buffers to the pool.
func (f *stepFrame) Release() {
	clear(f.tokens)
	clear(f.done)
	clear(f.prompts)
	f.prompts, f.tokens, f.done, f.choices = f.prompts[:0], f.tokens[:0], f.done[:0], f.choices[:0]
	if cap(f.text) > 64<<10 {
		f.text = nil
	}
	stepFrames.Put(f)
}
