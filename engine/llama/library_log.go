//go:build llama

package llama

/*
#cgo CXXFLAGS: -std=c++17 -O3 -Wno-psabi
#cgo LDFLAGS: -lllama-common -lllama -lggml -lggml-base -lm -Wl,-rpath,$ORIGIN/lib
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
)

// logger gets the library's log lines; there is one for the process, as in the library.
var logger atomic.Pointer[slog.Logger]

func setLogger(l *slog.Logger) {
	logger.Store(l)
	C.tdm_log_start(C.int32_t(minLogLevel(l)))
}

// Levels of ggml.
const (
	ggmlDebug = 1
	ggmlInfo  = 2
	ggmlWarn  = 3
	ggmlError = 4
)

// minLogLevel is ggml's least level that l logs. It is passed to C once, since a load logs about a thousand lines.
func minLogLevel(l *slog.Logger) int {
	for level := ggmlDebug; level < ggmlError; level++ {
		if l.Enabled(context.Background(), slogLevel(level)) {
			return level
		}
	}
	return ggmlError
}

func slogLevel(ggml int) slog.Level {
	switch {
	case ggml <= ggmlDebug:
		return slog.LevelDebug
	case ggml == ggmlInfo:
		return slog.LevelInfo
	case ggml == ggmlWarn:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// levelOf is the level of a line. Where a CPU has a weight format of its own (AMX), an adapter's load warns of each
// tensor that it stays in the usual format: hundreds of lines about which nobody can do anything.
func levelOf(ggml int, line string) slog.Level {
	if strings.Contains(line, "cannot use buft") && strings.Contains(line, "fallback to CPU") {
		return slog.LevelDebug
	}
	return slogLevel(ggml)
}
