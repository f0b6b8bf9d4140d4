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
	"fmt"
	"os"
	"runtime/cgo"
	"strings"
	"unsafe"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// LoadBase reads the weights on the calling goroutine and makes the context between two steps; ctx aborts it.
func (b *Backend) LoadBase(ctx context.Context, spec models.BaseSpec, progress func(models.Progress)) (models.Base, error) {
	fail := func(reason models.Reason, err error) error {
		return &models.LoadError{Reason: reason, What: spec.Name, Err: err}
	}
	if err := checkSpec(spec); err != nil {
		return nil, fail(fileReason(err), err)
	}
	if err := b.awaitMemoryToSpread(ctx, spec.Name, progress); err != nil {
		return nil, fail(loadReason(ctx, err), err)
	}
	model, err := b.loadModel(ctx, spec, progress)
	if err != nil {
		return nil, fail(loadReason(ctx, err), err)
	}
	base := &Base{backend: b, spec: spec, opts: b.opts, model: model}
	if err := base.finishLoad(ctx, progress); err != nil {
		base.release()
		return nil, fail(loadReason(ctx, err), err)
	}
	return base, nil
}

var _ models.Base = (*Base)(nil)
var _ batch.Runner = (*Base)(nil)

func checkSpec(spec models.BaseSpec) error {
	if spec.Context < 0 || spec.Parallel < 0 || spec.Parallel > sequencesMax {
		return fmt.Errorf("context %d, parallel %d: out of range (parallel at most %d)", spec.Context, spec.Parallel, sequencesMax)
	}
	return checkGGUF(spec.Path)
}

// errFormat is the error for a file that isn't GGUF.
var errFormat = errors.New("not a GGUF file")

// checkGGUF checks the first bytes; package models has checked the header and that all tensors are in the file.
func checkGGUF(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var magic [4]byte
	if n, _ := f.Read(magic[:]); n != 4 || string(magic[:]) != "GGUF" {
		return fmt.Errorf("%s: %w", path, errFormat)
	}
	return nil
}

func (b *Backend) loadModel(ctx context.Context, spec models.BaseSpec, progress func(models.Progress)) (*C.struct_llama_model, error) {
	arrived := b.memory.expectWeights(spec.WeightBytes)
	defer arrived()
	listener := cgo.NewHandle(func(ratio float64) bool {
		arrived() // the library takes all memory before it reads the first tensor
		if progress != nil {
			progress(models.Progress{Phase: "weights", Ratio: ratio})
		}
		return ctx.Err() == nil
	})
	defer listener.Delete()
	params := C.tdm_load{
		mmap:       C.bool(spec.MMap),
		gpu_layers: C.int32_t(b.opts.GPULayers),
		main_gpu:   C.int32_t(b.opts.MainGPU),
		one_gpu:    C.bool(b.opts.OneGPU),
		progress:   C.uintptr_t(listener),
	}
	if len(b.opts.GPUSplit) > 0 {
		split := C.calloc(C.llama_max_devices(), C.sizeof_float)
		defer C.free(split)
		copy(unsafe.Slice((*float32)(split), int(C.llama_max_devices())), b.opts.GPUSplit)
		params.split = (*C.float)(split)
	}
	if n := len(b.accelerators); n > 0 {
		numbers := C.calloc(C.size_t(n), C.sizeof_int32_t)
		defer C.free(numbers)
		for i, d := range b.accelerators {
			unsafe.Slice((*int32)(numbers), n)[i] = int32(d.number)
		}
		params.devices, params.n_devices = (*C.int32_t)(numbers), C.int32_t(n)
	}
	path := C.CString(spec.Path)
	defer C.free(unsafe.Pointer(path))
	errBuf := newErrorBuffer()
	defer errBuf.free()
	model := C.tdm_model_load(path, &params, errBuf.text, errBuf.size)
	if model == nil {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		return nil, errBuf.err()
	}
	return model, nil
}

// checkModel refuses models that can't generate text token by token.
func checkModel(model *C.struct_llama_model) error {
	switch {
	case bool(C.llama_model_has_encoder(model)):
		return errors.New("models with an encoder are not supported")
	case !bool(C.llama_model_has_decoder(model)):
		return errors.New("the model has no decoder")
	case bool(C.llama_model_is_diffusion(model)):
		return errors.New("diffusion models are not supported")
	case C.llama_model_n_ctx_train(model) <= 0:
		return errors.New("the model doesn't say what context it was trained for")
	}
	return nil
}

// meta returns a value of the GGUF header as text, empty when there is none.
func meta(model *C.struct_llama_model, key string) string {
	ckey := C.CString(key)
	defer C.free(unsafe.Pointer(ckey))
	var buf [256]C.char
	if C.llama_model_meta_val_str(model, ckey, &buf[0], C.size_t(len(buf))) < 0 {
		return ""
	}
	return C.GoString(&buf[0])
}

// quantization is the last part of the library's description: "llama 1B Q8_0".
func quantization(model *C.struct_llama_model) string {
	var buf [256]C.char
	C.llama_model_desc(model, &buf[0], C.size_t(len(buf)))
	fields := strings.SplitN(C.GoString(&buf[0]), " ", 3)
	if len(fields) < 3 {
		return "unknown"
	}
	return strings.TrimSpace(strings.TrimPrefix(fields[2], "(guessed) "))
}

// backendName is the name in metrics of a ggml backend.
func backendName(ggml string) string { return strings.ToLower(strings.Fields(ggml + " unknown")[0]) }
