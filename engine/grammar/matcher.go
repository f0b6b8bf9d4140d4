//go:build llama

package grammar

/*
#include <stdlib.h>
#include "llguidance_bridge.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"time"
	"unsafe"
)

// grammarLimits are the limits of one grammar: the library's own defaults, except for the lexer's states, each of which
// takes one to two KiB.
var grammarLimits = C.tdm_grammar_limits{
	compile_fuel: 1_000_000, // about 20 ms
	mask_fuel:    200_000,   // about 14 ms for one mask
	row_items:    2_000,
	mask_items:   50_000,
	lexer_states: 30_000,
	symbols:      500_000,
}

const (
	maxForced      = 64 // forced tokens taken at a time
	wallTimeFactor = 20 // how often the budget of a call may pass before it ends, whatever it worked
	// hangTimeout bounds a call that can't be cancelled, or that ignores it; everyday ones take milliseconds.
	hangTimeout = 30 * time.Second
)

// Matcher follows one answer. One goroutine at a time.
type Matcher struct {
	vocabulary *Vocabulary
	handle     *C.LlgMatcher
	cancel     *cancellation
	maskBytes  C.size_t
	forced     []C.uint32_t
}

// NewMatcher returns a matcher before the first token. Errors wrap ErrInvalid or ErrTooComplex.
func (v *Vocabulary) NewMatcher(s Source) (*Matcher, error) {
	kind, text, err := s.prepare(v.controls)
	if err != nil {
		return nil, err
	}
	setMemoryLimit()
	if UsedBytes() > memoryLimitBytes/4*3 {
		return nil, fmt.Errorf("%w: the grammars of other requests hold the memory; try again later", ErrTooComplex)
	}
	m := v.compile(kind, text)
	if m == nil {
		return nil, errors.New("compile a grammar: no thread or no memory for its stack")
	}
	if err := m.failure(); err != nil {
		m.Close()
		return nil, s.explain(err)
	}
	return m, nil
}

// compile passes a text to the library as it is; nil: there is no thread or no memory for its stack.
func (v *Vocabulary) compile(kind, text string) *Matcher {
	ckind, ctext := C.CString(kind), C.CString(text)
	defer C.free(unsafe.Pointer(ckind))
	defer C.free(unsafe.Pointer(ctext))
	watchdog := StartHangWatchdog("compiling a grammar")
	defer watchdog.Stop()
	handle := C.tdm_grammar_matcher(v.handle, &grammarLimits, ckind, ctext)
	if handle == nil {
		return nil
	}
	return v.wrapMatcher(handle)
}

// explain is the library's error in a form for the client, for a schema with the place of the keyword that can't be
// obeyed.
func (s Source) explain(err error) error {
	if s.Kind != JSONSchema || !errors.Is(err, ErrInvalid) {
		return err
	}
	return explainSchema(s.Text, err)
}

func (v *Vocabulary) wrapMatcher(handle *C.LlgMatcher) *Matcher {
	m := &Matcher{vocabulary: v, handle: handle, maskBytes: C.llg_matcher_get_mask_byte_size(handle)}
	m.cancel = &cancellation{handle: C.llg_matcher_get_cancellation_handle(handle)}
	return m
}

// Check returns an error when a grammar can't be followed at all: it is compiled and followed to the first choice that
// it leaves.
func (v *Vocabulary) Check(s Source, budget time.Duration) error {
	m, err := v.NewMatcher(s)
	if err != nil {
		return err
	}
	defer m.Close()
	words := make([]uint32, m.MaskWords())
	if err := m.Mask(words, budget); err != nil {
		return err
	}
	forced, err := m.Forced(maxForced, budget)
	if err != nil || len(forced) == 0 || m.Ended() {
		return err
	}
	for _, t := range forced {
		if err := m.Accept(t, budget); err != nil {
			return err
		}
	}
	return m.Mask(words, budget)
}

// Clone returns a matcher in the state of m; neither affects the other.
func (m *Matcher) Clone() *Matcher { return m.vocabulary.wrapMatcher(C.llg_clone_matcher(m.handle)) }

// Close frees the matcher. Twice is harmless.
func (m *Matcher) Close() {
	if m.handle == nil {
		return
	}
	m.cancel.close()
	C.llg_free_matcher(m.handle)
	m.handle = nil
}

// MaskWords is how many words a mask has.
func (m *Matcher) MaskWords() int { return int(m.maskBytes) / 4 }

// Mask writes which tokens may come next: bit t%32 of word t/32. The budget is processor time; 0: no limit.
// ErrTooComplex: it is used up.
func (m *Matcher) Mask(words []uint32, budget time.Duration) error {
	if len(words) != m.MaskWords() {
		return fmt.Errorf("a mask of %d words, %d are needed", len(words), m.MaskWords())
	}
	defer m.cancel.startBudget(budget)()
	if C.llg_matcher_compute_mask_into(m.handle, (*C.uint32_t)(unsafe.SliceData(words)), m.maskBytes) != 0 {
		return m.failure()
	}
	return nil
}

// Accept moves past a token. An error that wraps ErrInvalid means that it isn't allowed here; the matcher can't be used
// any more then.
func (m *Matcher) Accept(t int32, budget time.Duration) error {
	defer m.cancel.startBudget(budget)()
	if C.llg_matcher_consume_token(m.handle, C.uint32_t(t)) != 0 {
		return m.failure()
	}
	return nil
}

// Forced returns the tokens that must come next, at most most of them, without moving past them. When the grammar is at
// its end and allows nothing more, that is the end token.
func (m *Matcher) Forced(most int, budget time.Duration) ([]int32, error) {
	if m.handle == nil || most <= 0 {
		return nil, nil
	}
	if bool(C.llg_matcher_is_stopped(m.handle)) {
		if err := m.failure(); err != nil {
			return nil, err
		}
		return []int32{m.vocabulary.end}, nil
	}
	if m.forced == nil {
		m.forced = make([]C.uint32_t, maxForced)
	}
	defer m.cancel.startBudget(budget)()
	n := C.llg_matcher_compute_ff_tokens(m.handle, unsafe.SliceData(m.forced), maxForced)
	if n < 0 {
		return nil, m.failure()
	}
	tokens := make([]int32, min(int(n), most, maxForced))
	for i := range tokens {
		tokens[i] = int32(m.forced[i])
	}
	return tokens, nil
}

// Ended reports whether nothing but an end token may follow.
func (m *Matcher) Ended() bool { return bool(C.llg_matcher_is_stopped(m.handle)) }
