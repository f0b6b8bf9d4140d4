package models

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Work that gives way does so on its own thread only: steps run on another, and mustn't wait behind everybody else.
func TestLowPriorityIsOneThreadsOnly(t *testing.T) {
	if usual := niceThreads(t); len(usual) > 0 {
		t.Skip("SKIPPED: the tests themselves run with the lowest priority")
	}
	during := make(chan []string)
	within := make(chan struct{})
	go func() {
		if err := lowerPriority(); err != nil {
			t.Errorf("lower the priority: %v", err)
		}
		// the system call returns 20 - nice
		if got, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err != nil || got != 20-lowestPriority {
			t.Errorf("priority of the thread: %d, %v; want %d", got, err, 20-lowestPriority)
		}
		during <- niceThreads(t)
		<-within
	}()
	if low := <-during; len(low) != 1 {
		t.Errorf("%d threads have a low priority, want 1: %v", len(low), low)
	}
	close(within)
}

// niceThreads lists the process's threads with the lowest priority.
func niceThreads(t *testing.T) []string {
	stats, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil || len(stats) == 0 {
		t.Fatalf("threads of this process: %v, %v", stats, err)
	}
	var low []string
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if fields[16] == "19" { // the 19th field of the line
			low = append(low, file)
		}
	}
	return low
}
