//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"unsafe"

	"tandem/engine/models"
)

// errorBuffer is a C buffer for an error's text from the library.
type errorBuffer struct {
	text *C.char
	size C.size_t
}

func newErrorBuffer() errorBuffer {
	return errorBuffer{text: (*C.char)(C.calloc(1, errorBytes)), size: errorBytes}
}

func (c errorBuffer) err() error { return errors.New(C.GoString(c.text)) }

func (c errorBuffer) free() { C.free(unsafe.Pointer(c.text)) }

func fileReason(err error) models.Reason {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return models.ReasonNotFound
	case errors.Is(err, errFormat):
		return models.ReasonBadFormat
	}
	return models.ReasonOther
}

// loadReason finds the reason of a failed load by the words of the library's message: there are no error codes.
func loadReason(ctx context.Context, err error) models.Reason {
	if _, ok := errors.AsType[*noMemoryError](err); ok { // a dry run
		return models.ReasonOutOfMemory
	}
	switch text := err.Error(); {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded):
		return models.ReasonTimeout
	case ctx.Err() != nil:
		return models.ReasonOther
	case containsAny(text, "failed to allocate", "out of memory", "cudaMalloc failed", "bad_alloc", "unable to allocate", "Cannot allocate memory", "cannot allocate memory"):
		return models.ReasonOutOfMemory
	case containsAny(strings.ToLower(text), "input/output error", "stale file handle", "stale nfs file handle", "too many open files", "remote i/o error",
		"connection timed out", "transport endpoint is not connected", "no thread to"):
		return models.ReasonOther // of the disk, the network or this process: the same file may load later
	}
	return models.ReasonBadFormat
}

func containsAny(text string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// adapterReason is loadReason for adapters; a valid adapter of another model is a mismatch.
func adapterReason(ctx context.Context, err error) models.Reason {
	reason := loadReason(ctx, err)
	if reason == models.ReasonBadFormat && containsAny(err.Error(), "mismatch", "does not exist in base model", "incorrect shape", "not supported",
		"hint: maybe wrong base model", "none of the adapter's tensors applies") {
		return models.ReasonAdapterMismatch
	}
	return reason
}
