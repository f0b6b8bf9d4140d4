//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"unsafe"
)

// batchArrays are the columns of a llama_batch, in C memory, so that C keeps no Go pointer.
type batchArrays struct {
	token, pos, seq []int32
	output          []int8
}

func newBatchArrays(n int) batchArrays {
	column := func(size C.size_t) unsafe.Pointer { return C.calloc(C.size_t(n), size) }
	return batchArrays{
		token:  unsafe.Slice((*int32)(column(4)), n),
		pos:    unsafe.Slice((*int32)(column(4)), n),
		seq:    unsafe.Slice((*int32)(column(4)), n),
		output: unsafe.Slice((*int8)(column(1)), n),
	}
}

func (s *batchArrays) columns() (token, pos, seq *C.int32_t, output *C.int8_t) {
	return (*C.int32_t)(&s.token[0]), (*C.int32_t)(&s.pos[0]), (*C.int32_t)(&s.seq[0]), (*C.int8_t)(&s.output[0])
}

func (s *batchArrays) free() {
	if s.token == nil {
		return
	}
	for _, column := range [][]int32{s.token, s.pos, s.seq} {
		C.free(unsafe.Pointer(unsafe.SliceData(column)))
	}
	C.free(unsafe.Pointer(unsafe.SliceData(s.output)))
	*s = batchArrays{}
}
