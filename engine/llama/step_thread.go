//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

import (
	"errors"
	"os"
)

// stepThread decodes on a thread outside Go's scheduler; the goroutine that steps waits for it as for a socket. Go's
// monitor thread checks a call into C tens of times a step, and each check takes a processor from one of the threads
// that compute, for which all others wait: with as many threads as processors that was 0.8 ms of a step of 10 ms. It
// may only be used on the goroutine that steps.
type stepThread struct {
	handle *C.tdm_thread
	done   *os.File // readable when a decode has ended
	count  [8]byte
}

func newStepThread() (*stepThread, error) {
	var fd C.int
	handle := C.tdm_thread_new(&fd)
	if handle == nil {
		return nil, errors.New("no thread to decode on: the process is out of threads or descriptors")
	}
	return &stepThread{handle: handle, done: os.NewFile(uintptr(fd), "end of decode")}, nil
}

// decode computes the first n tokens of the batch and returns the library's result.
func (t *stepThread) decode(context *C.struct_llama_context, n int, s *batchArrays) C.int32_t {
	token, pos, seq, output := s.columns()
	C.tdm_thread_post(t.handle, context, C.int32_t(n), token, pos, seq, output)
	// If the read fails, the next call waits as well, in C.
	_, _ = t.done.Read(t.count[:])
	return C.tdm_thread_result(t.handle)
}

// close ends the thread and waits for it. No decode may be running.
func (t *stepThread) close() error {
	C.tdm_thread_free(t.handle)
	return t.done.Close()
}
