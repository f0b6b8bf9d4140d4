//go:build llama

package grammar

/*
#include <stdlib.h>
#include "llguidance_bridge.h"
*/
import "C"

import (
	"fmt"
	"runtime"
	"sync"
	"time"
)

// StartHangWatchdog ends the process when the timer isn't stopped within hangTimeout: the running requests are
// replayed, and one that does it again is refused (docs/restarts.md).
func StartHangWatchdog(doing string) *time.Timer {
	return time.AfterFunc(hangTimeout, func() { panic(fmt.Sprintf("%s doesn't end after %s", doing, hangTimeout)) })
}

// cancellation stops a matcher's work from another goroutine. The matcher can't be used afterwards.
type cancellation struct {
	mu     sync.Mutex
	handle *C.LlgCancellationHandle
}

// startBudget cancels when the budget is used up before done is called. The budget is processor time of the calling
// goroutine, which keeps its thread until then: on a busy machine a call may wait for longer than it works. In any case
// it is cancelled after wallTimeFactor times the budget.
func (c *cancellation) startBudget(budget time.Duration) (done func()) {
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
		if left := budget - used; left > 0 && time.Since(began) < wallTimeFactor*budget {
			timer.Reset(left)
			return
		}
		C.llg_cancel(c.handle)
		watchdog = StartHangWatchdog("following a grammar")
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
		timer.Stop() // it may have been reset meanwhile
	}
}

func (c *cancellation) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	C.llg_free_cancellation_handle(c.handle)
	c.handle = nil
}
