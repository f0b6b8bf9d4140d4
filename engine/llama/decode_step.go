//go:build llama

package llama

/*
#include "shim.h"
#include "sampler.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"tandem/engine/batch"
)

// Step decodes the slices and draws a token for each slice whose sampler has no grammar. batch.ErrNoCells: the cache is
// full, or a device's memory; batch.ErrCellsLost of a slice: its sequence isn't as it was left.
func (b *Base) Step(slices []batch.Slice) error {
	b.drawTime, b.candidates.counts = 0, batch.DeviceDraws{}
	if !b.generates {
		return fmt.Errorf("%s is an encoder: it has no next token", b.spec.Name)
	}
	if err := b.useAdapters(slices); err != nil {
		return err
	}
	if err := b.decode(slices); err != nil {
		return err
	}
	began := time.Now()
	if b.candidates.attached {
		if err := b.drawCandidates(slices); err == nil {
			b.drawTime = time.Since(began)
			return nil
		}
		if err := b.decodeAgain(slices); err != nil {
			return err
		}
		began = time.Now()
	}
	b.drawFromRows(slices)
	b.drawTime = time.Since(began)
	return nil
}

// decodeAgain computes a step a second time, now for whole rows of logits.
func (b *Base) decodeAgain(slices []batch.Slice) error {
	b.rollBack(slices)
	b.candidates.detach(b.context)
	b.candidates.counts.Repeated = true
	return b.decode(slices)
}

// drawFromRows computes what is asked for from the rows of logits of the step.
func (b *Base) drawFromRows(slices []batch.Slice) {
	for i := range slices {
		s := &slices[i]
		if s.Err != nil {
			continue
		}
		first := b.places[i]
		s.Err = b.score(s, first)
		if s.Sampler != nil && s.Err == nil {
			s.Err = b.draw(s, first+len(s.Tokens)-1)
		}
	}
}

// DeviceDraws is what of the last Step was drawn from what the device found.
func (b *Base) DeviceDraws() batch.DeviceDraws { return b.candidates.counts }

// DrawTime is how long the draws of the last Step took.
func (b *Base) DrawTime() time.Duration { return b.drawTime }

// useAdapters tells the library which slice has which adapter. Without slots it is one for all, switched only when it
// isn't that of the last step: a switch costs a new reservation of the graph.
func (b *Base) useAdapters(slices []batch.Slice) error {
	for i := range slices {
		slices[i].Err = nil
	}
	if b.slots != nil {
		b.slots.use(b, slices)
		return nil
	}
	if len(slices) == 0 {
		return nil
	}
	for i := range slices {
		if slices[i].Adapter != slices[0].Adapter {
			return fmt.Errorf("%s: a step with two adapters: %s", b.spec.Name, b.turnsReason)
		}
	}
	want, err := b.loadedAdapter(slices[0].Adapter)
	if err != nil || want == b.activeAdapter {
		return err
	}
	var handle *C.struct_llama_adapter_lora
	if want != nil {
		handle = want.handle
	}
	if rc := C.tdm_adapter_use(b.context, handle); rc != 0 {
		return fmt.Errorf("switch adapter: llama.cpp gives %d", int(rc))
	}
	b.activeAdapter = want
	return nil
}

// loadedAdapter is the adapter of a slice; nil: none.
func (b *Base) loadedAdapter(adapter batch.Adapter) (*Adapter, error) {
	if adapter == nil {
		return nil, nil
	}
	a, ok := adapter.(*Adapter)
	if !ok || a.base != b || a.handle == nil {
		return nil, fmt.Errorf("adapter %q isn't loaded on %s", adapter.Name(), b.spec.Name)
	}
	return a, nil
}

// decode fills the batch and runs it. Slices that would crash the library get an error of their own and are left out.
func (b *Base) decode(slices []batch.Slice) error {
	n, err := b.fillBatch(slices)
	if n == 0 || err != nil {
		return err
	}
	b.candidates.prepare(b.context, slices)
	threads := b.threadChoice.pick(n)
	C.llama_set_n_threads(b.context, C.int32_t(threads), C.int32_t(threads))
	began := time.Now()
	rc := b.compute(n)
	b.forgetGaps()
	switch {
	case rc == 0:
		b.threadChoice.record(n, threads, time.Since(began))
		b.noteComputed(slices)
		return nil
	case rc == 1:
		return fmt.Errorf("decode %d tokens: %w", n, batch.ErrNoCells)
	case rc != -1: // parts of the batch may have been kept
		b.rollBack(slices)
	}
	if rc == C.TDM_NO_MEMORY && b.candidates.attached { // they take some
		b.candidates.giveUp(b.context)
		return b.decode(slices)
	}
	if rc == C.TDM_NO_MEMORY {
		return &noMemoryError{fmt.Sprintf("decode %d tokens: there is no memory left to compute that", n)}
	}
	err = fmt.Errorf("decode %d tokens: llama.cpp gives %d", n, int(rc))
	b.backend.noteFailure(rc, err)
	return err
}

// noMemoryError is a step for which a device has no memory. To the executor that is as if there were no cells: fewer
// sequences may fit, or the same later.
type noMemoryError struct{ text string }

func (e *noMemoryError) Error() string { return e.text }

func (e *noMemoryError) Is(target error) bool { return target == batch.ErrNoCells }

// noteFailure reports a lost accelerator. A CPU that can't compute has met something in this step alone.
func (b *Backend) noteFailure(rc C.int32_t, err error) {
	if rc == C.TDM_COMPUTE_FAILED && len(b.accelerators) > 0 && b.opts.OnDeviceFailure != nil {
		b.opts.OnDeviceFailure(fmt.Errorf("compute on %s: %w", b.accelerators[0].Name, err))
	}
}

func (b *Base) compute(n int) C.int32_t {
	if b.thread != nil {
		return b.thread.decode(b.context, n, &b.batch)
	}
	token, pos, seq, output := b.batch.columns()
	return C.tdm_decode(b.context, C.int32_t(n), token, pos, seq, output)
}

// checkSlice refuses what makes the library assert: unknown sequences, positions beyond the trained context, unknown
// tokens; and what would go on after cells that aren't there, which gives an answer to something else.
func (b *Base) checkSlice(s *batch.Slice) error {
	switch {
	case len(s.Tokens) == 0:
		return errors.New("slice without tokens")
	case s.Seq < 0 || s.Seq >= b.limits.Sequences:
		return fmt.Errorf("sequence %d is outside 0 … %d", s.Seq, b.limits.Sequences-1)
	case s.Start < 0 || s.Start+len(s.Tokens) > b.limits.SequenceMax:
		return fmt.Errorf("positions %d … %d are outside the context of %d", s.Start, s.Start+len(s.Tokens)-1, b.limits.SequenceMax)
	}
	if b.memory != nil && b.lastPosition(s.Seq) != s.Start-1 { // a rollback may have had to empty it
		return fmt.Errorf("sequence %d goes on at position %d after %d: %w", s.Seq, s.Start, b.lastPosition(s.Seq), batch.ErrCellsLost)
	}
	if n := len(s.Score.Targets); n > 0 && (s.Score.After < 0 || s.Score.After+n > len(s.Tokens)) {
		return fmt.Errorf("log-probabilities after tokens %d … %d of %d", s.Score.After, s.Score.After+n-1, len(s.Tokens))
	}
	for _, t := range s.Tokens {
		if !b.vocab.valid(t) {
			return fmt.Errorf("token %d is outside the vocabulary of %d", t, b.vocab.size())
		}
	}
	return nil
}

func (b *Base) rollBack(slices []batch.Slice) {
	for i := range slices {
		if slices[i].Err == nil {
			b.Truncate(slices[i].Seq, slices[i].Start)
		}
	}
}

// samplerOf is the slice's sampler, if it is one of this base.
func (b *Base) samplerOf(s *batch.Slice) (*Sampler, error) {
	sampler, ok := s.Sampler.(*Sampler)
	if !ok || sampler.base != b || sampler.handle == nil {
		return nil, errors.New("the sampler is closed or of another base")
	}
	return sampler, nil
}

// draw draws a token from the logits of output at of the batch; a sampler with a grammar only keeps the logits for
// later.
func (b *Base) draw(s *batch.Slice, at int) error {
	sampler, err := b.samplerOf(s)
	if err != nil {
		return err
	}
	logits, err := b.logits(at)
	if err != nil {
		return err
	}
	if sampler.constraint != nil {
		sampler.constraint.keepLogits(logits)
		return nil
	}
	draw, err := sampler.drawFrom(logits, s.Index)
	if err != nil {
		return err
	}
	s.Draw = draw
	return sampler.Accept(draw.Token)
}

// score computes the log-probabilities of the prompt that a slice asks for, whose first token is at place first of the
// batch.
func (b *Base) score(s *batch.Slice, first int) error {
	s.Scores = nil
	for i, t := range s.Score.Targets {
		logits, err := b.logits(first + s.Score.After + i)
		if err != nil {
			return err
		}
		var out C.tdm_score
		if !C.tdm_score_token((*C.float)(&logits[0]), C.int32_t(len(logits)), C.int32_t(t), C.int32_t(s.Score.Top), &out) {
			return fmt.Errorf("log-probability of token %d at position %d: %w", t, s.Start+s.Score.After+i+1, errNoLogits)
		}
		s.Scores = append(s.Scores, batch.TokenScore{Logprob: float32(out.logprob), Top: topOf(int(out.n_top), &out.top_token, &out.top_logprob)})
	}
	return nil
}

// logits returns the logits of output at of the batch, valid until the next step.
func (b *Base) logits(at int) ([]float32, error) {
	row := C.llama_get_logits_ith(b.context, C.int32_t(at))
	if row == nil {
		return nil, fmt.Errorf("no logits at place %d of the step", at)
	}
	return unsafe.Slice((*float32)(row), b.vocab.size()), nil
}

// lastPosition is the last position of a sequence that has a cell; -1: it has none.
func (b *Base) lastPosition(seq int) int {
	return int(C.llama_memory_seq_pos_max(b.memory, C.llama_seq_id(seq)))
}

// Truncate removes the cells of a sequence from position from on; false: all its cells were removed.
func (b *Base) Truncate(seq, from int) bool {
	if seq < 0 || seq >= b.limits.Sequences {
		return false
	}
	if b.memory == nil { // an encoder keeps nothing
		return true
	}
	if from <= 0 {
		C.llama_memory_seq_rm(b.memory, C.llama_seq_id(seq), -1, -1)
		return true
	}
	switch last := b.lastPosition(seq); {
	case b.limits.Prefix && (last < from-1 || b.windowIsGone(seq, from)):
		C.llama_memory_seq_rm(b.memory, C.llama_seq_id(seq), -1, -1)
		return false
	case last < from:
		return true
	}
	if b.limits.Prefix {
		if bool(C.llama_memory_seq_rm(b.memory, C.llama_seq_id(seq), C.llama_pos(from), -1)) {
			return true
		}
	}
	C.llama_memory_seq_rm(b.memory, C.llama_seq_id(seq), -1, -1)
	return false
}

// windowIsGone reports whether a sequence lacks cells that position at sees. With attention over a sliding window the
// library gives cells that are behind the window of one sequence to others.
func (b *Base) windowIsGone(seq, at int) bool {
	first := int(C.llama_memory_seq_pos_min(b.memory, C.llama_seq_id(seq)))
	return lacksWindow(first, at, int(C.llama_model_n_swa(b.model)))
}

// lacksWindow reports whether position at sees positions before first, which is the first that has a cell; window 0: it
// sees all. A window has at itself as its last position.
func lacksWindow(first, at, window int) bool {
	return first > 0 && (window == 0 || first > at-window+1)
}

// CopyPrefix shares the first cells of one sequence with another, empty one, or copies them into its stream. It returns
// false when the model or the cache can't do that, or when the cells aren't all there.
func (b *Base) CopyPrefix(from, to, tokens int) bool {
	inside := func(seq int) bool { return seq >= 0 && seq < b.limits.Sequences }
	if !b.limits.Prefix || !inside(from) || !inside(to) || from == to || tokens <= 0 {
		return false
	}
	if C.llama_memory_seq_pos_min(b.memory, C.llama_seq_id(from)) != 0 || b.lastPosition(from) < tokens-1 {
		return false
	}
	if b.lastPosition(to) >= 0 {
		return false
	}
	if b.limits.StreamCells > 0 {
		return b.copyStream(from, to, tokens)
	}
	C.llama_memory_seq_cp(b.memory, C.llama_seq_id(from), C.llama_seq_id(to), 0, C.llama_pos(tokens))
	return true
}

// copyStream copies a whole stream, since the library aborts when it is to copy a part of one to another, and forgets
// what follows the prefix. The cells themselves are copied when the next step begins, before anything is computed.
func (b *Base) copyStream(from, to, tokens int) bool {
	C.llama_memory_seq_cp(b.memory, C.llama_seq_id(from), C.llama_seq_id(to), -1, -1)
	return b.Truncate(to, tokens)
}
