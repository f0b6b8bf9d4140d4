//go:build llama

package llama

import (
	"errors"
	"os"
	"testing"
)

func TestOnlySeveralThreadsGetAThreadThatDecodes(t *testing.T) {
	for threads, want := range map[int]bool{1: false, 2: true} {
		b, executor := newBackend(t, func(o *Options) { o.Threads = threads })
		first, second := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil), loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
		if got := first.thread != nil; got != want || first.thread != second.thread {
			t.Errorf("%d threads: %v, one for both bases: %v", threads, got, first.thread == second.thread)
		}
		text, _, err := generate(first, executor, nil, 0, render(t, first, france), greedy, 12)
		if err != nil || text == "" {
			t.Errorf("%d threads: %q, %v", threads, text, err)
		}
		thread := first.thread
		if err := errors.Join(first.Close(), second.Close(), b.Close(), b.Close()); err != nil {
			t.Error(err)
		}
		if thread == nil {
			continue
		}
		if _, err := thread.done.Read(thread.count[:]); !errors.Is(err, os.ErrClosed) {
			t.Errorf("after the end the descriptor gives %v", err)
		}
	}
}
