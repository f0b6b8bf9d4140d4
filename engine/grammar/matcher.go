//go:build llama

package grammar

/*
#include <stdlib.h>
#include "bridge.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"
)

// limits of one grammar. The library's own defaults, but for the lexer's states, of which each takes one to two KiB.
var limits = C.tdm_grammar_limits{
	compile_fuel: 1_000_000, // about 20 ms
	mask_fuel:    200_000,   // about 14 ms for one mask
	row_items:    2_000,
	mask_items:   50_000,
	lexer_states: 30_000,
	symbols:      500_000,
}

const (
	forcedMost  = 64               // forced tokens taken at a time
	waitFactor  = 20               // how often the budget of a call may pass before it ends, whatever it worked
	memoryBytes = 2 << 30          // of all vocabularies and grammars together; everyday ones take a few MiB each
	hangTime    = 30 * time.Second // of a call that can't be cancelled, or wasn't heeding it; everyday ones take milliseconds
)

// bound sets the last line of defence: a grammar that takes this much was made to do harm, and nothing inside the library stops it. The
// process ends, the requests in hand are replayed, and the one that does it again is refused (docs/restarts.md).
var bound = sync.OnceFunc(func() { boundMemory(memoryBytes) })

func boundMemory(bytes int64) { C.tandem_llguidance_bound(C.size_t(bytes)) }

// giveUp ends the process when the timer isn't stopped in time, for the same reason.
func giveUp(doing string) *time.Timer {
	return time.AfterFunc(hangTime, func() { panic(fmt.Sprintf("%s doesn't end after %s", doing, hangTime)) })
}

// UsedBytes is the memory of all vocabularies and grammars.
func UsedBytes() int64 { return int64(C.tandem_llguidance_used()) }

// Matcher follows one answer. One goroutine at a time.
type Matcher struct {
	vocabulary *Vocabulary
	handle     *C.LlgMatcher
	cancel     *cancellation
	maskBytes  C.size_t
	forced     []C.uint32_t
}

// NewMatcher stands before the first token. Errors wrap ErrInvalid or ErrTooComplex.
func (v *Vocabulary) NewMatcher(s Source) (*Matcher, error) {
	kind, text, err := s.prepare()
	if err != nil {
		return nil, err
	}
	bound()
	if UsedBytes() > memoryBytes/4*3 {
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

// compile gives a text to the library as it is.
func (v *Vocabulary) compile(kind, text string) *Matcher {
	ckind, ctext := C.CString(kind), C.CString(text)
	defer C.free(unsafe.Pointer(ckind))
	defer C.free(unsafe.Pointer(ctext))
	watchdog := giveUp("compiling a grammar")
	defer watchdog.Stop()
	handle := C.tdm_grammar_matcher(v.handle, &limits, ckind, ctext)
	if handle == nil {
		return nil
	}
	return v.adopt(handle)
}

// explain says what the library's error means for the client, for a schema with the place of what can't be obeyed.
func (s Source) explain(err error) error {
	if s.Kind != JSONSchema || !errors.Is(err, ErrInvalid) {
		return err
	}
	return explainSchema(s.Text, err)
}

func (v *Vocabulary) adopt(handle *C.LlgMatcher) *Matcher {
	m := &Matcher{vocabulary: v, handle: handle, maskBytes: C.llg_matcher_get_mask_byte_size(handle)}
	m.cancel = &cancellation{handle: C.llg_matcher_get_cancellation_handle(handle)}
	return m
}

// Check tells whether a grammar can be followed at all: it is compiled and taken to the first choice that it leaves.
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
	forced, err := m.Forced(forcedMost, budget)
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

// Clone stands where m stands and goes its own way.
func (m *Matcher) Clone() *Matcher { return m.vocabulary.adopt(C.llg_clone_matcher(m.handle)) }

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

// Mask writes which tokens may come next: bit t%32 of word t/32. The budget is processor time; 0: none. ErrTooComplex: it is used up.
func (m *Matcher) Mask(words []uint32, budget time.Duration) error {
	if len(words) != m.MaskWords() {
		return fmt.Errorf("a mask of %d words, %d are needed", len(words), m.MaskWords())
	}
	defer m.cancel.after(budget)()
	if C.llg_matcher_compute_mask_into(m.handle, (*C.uint32_t)(unsafe.SliceData(words)), m.maskBytes) != 0 {
		return m.failure()
	}
	return nil
}

// Accept moves past a token. An error that wraps ErrInvalid means that it isn't allowed here; the matcher is of no use then.
func (m *Matcher) Accept(t int32, budget time.Duration) error {
	defer m.cancel.after(budget)()
	if C.llg_matcher_consume_token(m.handle, C.uint32_t(t)) != 0 {
		return m.failure()
	}
	return nil
}

// Forced gives the tokens that must come next, at most most of them, without moving past them. When the grammar is at its end and allows
// nothing more it is the end token.
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
		m.forced = make([]C.uint32_t, forcedMost)
	}
	defer m.cancel.after(budget)()
	n := C.llg_matcher_compute_ff_tokens(m.handle, unsafe.SliceData(m.forced), forcedMost)
	if n < 0 {
		return nil, m.failure()
	}
	tokens := make([]int32, min(int(n), most, forcedMost))
	for i := range tokens {
		tokens[i] = int32(m.forced[i])
	}
	return tokens, nil
}

// Ended tells that nothing but an end token may follow.
func (m *Matcher) Ended() bool { return bool(C.llg_matcher_is_stopped(m.handle)) }

// failure is the matcher's error, nil when there is none.
func (m *Matcher) failure() error {
	text := C.llg_matcher_get_error(m.handle)
	if text == nil {
		return nil
	}
	return sorted(C.GoString(text))
}

// sorted makes a Go error of the library's words, of which it has no codes.
func sorted(text string) error {
	text, _, _ = strings.Cut(text, "\n<")
	if strings.Contains(text, "NoExtensionBias") {
		return invalid("no text fits it")
	}
	own := ownWords(text)
	for _, words := range []string{"cancel", "fuel", "too many", "too complex", "too big", "limit", "Limit", "too large", "max is", "u16::MAX"} {
		if strings.Contains(own, words) {
			return fmt.Errorf("%w (%s)", ErrTooComplex, text)
		}
	}
	if strings.HasPrefix(text, "panic:") {
		return invalid("the library failed on it (%s)", text)
	}
	return invalid("%w", errors.New(text))
}

var quoted = regexp.MustCompile("'[^']*'|\"[^\"]*\"|`[^`]*`")

// ownWords is what of a message is the library's, not the client's.
func ownWords(message string) string {
	if _, rest, ok := strings.Cut(message, regexError); ok {
		_, message, _ = strings.Cut(rest, "error: ")
	}
	message, _, _ = strings.Cut(message, "Unknown format: ")
	return quoted.ReplaceAllString(message, "")
}

// cancellation stops a matcher's work from another goroutine. The matcher can't be used afterwards.
type cancellation struct {
	mu     sync.Mutex
	handle *C.LlgCancellationHandle
}

// after cancels when the budget is used up before the returned function is called. The budget is processor time of the calling goroutine,
// which keeps its thread until then: on a busy machine a call may wait for longer than it works. It ends in any case after waitFactor times
// the budget.
func (c *cancellation) after(budget time.Duration) (done func()) {
	if budget <= 0 {
		return func() {}
	}
	runtime.LockOSThread()
	clock := C.tdm_thread_clock()
	began, start := time.Now(), C.tdm_clock_read(clock)
	var ended bool // guarded by mu, like the two timers
	var timer, watchdog *time.Timer
	c.mu.Lock()
	defer c.mu.Unlock()
	timer = time.AfterFunc(budget, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if ended || c.handle == nil {
			return
		}
		used := time.Duration(C.tdm_clock_read(clock) - start)
		if left := budget - used; left > 0 && time.Since(began) < waitFactor*budget {
			timer.Reset(left)
			return
		}
		C.llg_cancel(c.handle)
		watchdog = giveUp("following a grammar")
	})
	return func() {
		defer runtime.UnlockOSThread()
		if timer.Stop() {
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if ended = true; watchdog != nil {
			watchdog.Stop()
		}
		timer.Stop() // it may have been set again
	}
}

func (c *cancellation) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	C.llg_free_cancellation_handle(c.handle)
	c.handle = nil
}
