//go:build !llama

package main

import (
	"log/slog"
	"runtime/debug"

	"tandem/engine/batch"
)

// newComputeBackend returns the mock: this program was built without llama.cpp.
func newComputeBackend(c *Config, _ *batch.Executor, _ foundMemory, log *slog.Logger) (computeBackend, error) {
	if c.Mock {
		log.Warn("ENGINE_MOCK is set: answers are made up")
	} else if c.namesDevice() {
		return computeBackend{}, c.problem("DEVICE", "this program was built without llama.cpp (build tag llama) and knows no device")
	} else {
		log.Warn("this program was built without llama.cpp (build tag llama): answers are made up, as with ENGINE_MOCK")
	}
	return mockBackend(c), nil
}

// abortProcess ends the process by SIGABRT, as Go does with a core dump, rather than with exit code 2. It panics on a
// goroutine of its own: a library's abort runs no deferred function of the caller's, which might still report the end.
func abortProcess() {
	debug.SetTraceback("crash")
	go panic("asked to abort")
	select {}
}

func libraryCommit() string { return "none" }
