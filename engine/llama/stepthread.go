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

// stepThread decodes on a thread outside Go's scheduler, where the goroutine that steps waits as for a socket. Go's monitor thread looks
// at a call into C tens of times a step, and each look takes a processor from one of the threads that compute, for which all others
// wait: with as many threads as processors that was 0.8 ms of a step of 10 ms. It belongs to the goroutine that steps.
type stepThread struct {
	handle *C.tdm_thread
	ended  *os.File // readable when a decode has ended
	count  [8]byte
}

func newStepThread() (*stepThread, error) {
	var fd C.int
	handle := C.tdm_thread_new(&fd)
	if handle == nil {
		return nil, errors.New("no thread to decode on: the process is out of threads or descriptors")
	}
	return &stepThread{handle: handle, ended: os.NewFile(uintptr(fd), "end of decode")}, nil
}

// decode computes the first n columns and gives the library's answer.
func (t *stepThread) decode(context *C.struct_llama_context, n int, s *stepArrays) C.int32_t {
	token, pos, seq, output := s.columns()
	C.tdm_thread_post(t.handle, context, C.int32_t(n), token, pos, seq, output)
	// Without the descriptor the next call waits as well, in C.
	_, _ = t.ended.Read(t.count[:])
	return C.tdm_thread_result(t.handle)
}

// close waits for the thread's end. No decode may be running.
func (t *stepThread) close() error {
	C.tdm_thread_free(t.handle)
	return t.ended.Close()
}
