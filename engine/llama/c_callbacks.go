//go:build llama

package llama

/*
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
*/
import "C"

import (
	"context"
	"runtime/cgo"
	"unsafe"
)

// tdmGoLog takes one whole line of the library's log.
//
//export tdmGoLog
func tdmGoLog(level C.int32_t, text *C.char, length C.int32_t) {
	l := logger.Load()
	if l == nil {
		return
	}
	line := string(unsafe.Slice((*byte)(unsafe.Pointer(text)), int(length)))
	l.Log(context.Background(), levelOf(int(level), line), line, "source", "llama.cpp")
}

// tdmGoProgress calls the progress callback of a load; false aborts the load.
//
//export tdmGoProgress
func tdmGoProgress(ratio C.float, handle C.uintptr_t) C.bool {
	return C.bool(cgo.Handle(handle).Value().(func(float64) bool)(float64(ratio)))
}

// Abort ends the process like a failed assertion in the library: abort() on a thread that is in C. For tests of what
// follows.
func Abort() { C.abort() }
