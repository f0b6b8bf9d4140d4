//go:build !llama

package main

import (
	"log/slog"
	"runtime/debug"

	"tandem/engine/batch"
)

// newComputer gives the mock: this program was built without llama.cpp.
func newComputer(c *Config, _ *batch.Executor, log *slog.Logger) (computer, error) {
	if c.Mock {
		log.Warn("ENGINE_MOCK is set: answers are made up")
	} else {
		log.Warn("this program was built without llama.cpp (build tag llama): answers are made up, as with ENGINE_MOCK")
	}
	return mockComputer(c), nil
}

// abort ends the process by SIGABRT, as Go does with a core dump, rather than with exit code 2. It panics on a goroutine of its own: a
// library's abort runs no deferred function of the caller's, which might still tell somebody of its end.
func abort() {
	debug.SetTraceback("crash")
	go panic("asked to abort")
	select {}
}

func libraryCommit() string { return "none" }
