//go:build llama

package llama

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Threads that a load leaves behind count for OpenMP, which then lets all threads sleep at each of the some hundred
// barriers of a step. Only on processors with AMX does a load have such threads at all.
func TestThreadsOfAStepSpinAfterALoad(t *testing.T) {
	b, executor := newBackend(t, func(o *Options) { onCPU(o); o.Threads = 2 })
	base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
	defer base.Close()
	for range 30 { // steps of one token are done with one thread, too, to see whether that is faster
		if _, _, err := generate(base, executor, nil, 0, render(t, base, france), greedy, 12); err != nil {
			t.Fatal(err)
		}
	}
	before := sleepsOfDecode(t)
	const prompts = 30
	for range prompts {
		if _, _, err := generate(base, executor, nil, 0, render(t, base, france), greedy, 1); err != nil {
			t.Fatal(err)
		}
	}
	if got := sleepsOfDecode(t) - before; got > 20*prompts {
		t.Errorf("the threads of %d steps slept %d times", prompts, got)
	}
}

// sleepsOfDecode is how often the threads that decode gave their processor away.
func sleepsOfDecode(t *testing.T) int {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, task := range tasks {
		name, _ := os.ReadFile(filepath.Join(task, "comm")) // a thread may end meanwhile
		if strings.TrimSpace(string(name)) != "decode" {
			continue
		}
		status, _ := os.ReadFile(filepath.Join(task, "status"))
		_, after, found := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
		n, err := strconv.Atoi(strings.Fields(after + " none")[0])
		if !found || err != nil {
			t.Fatalf("%s: %v in %s", task, err, status)
		}
		sum += n
	}
	return sum
}

func TestOnlySeveralThreadsGetAThreadThatDecodes(t *testing.T) {
	for threads, want := range map[int]bool{1: false, 2: true} {
		b, executor := newBackend(t, func(o *Options) { onCPU(o); o.Threads = threads })
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
