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
	"io/fs"
	"math"
	"os"
	"runtime/cgo"
	"strconv"
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
	model, err := b.loadModel(ctx, spec, progress)
	if err != nil {
		return nil, fail(loadReason(ctx, err), err)
	}
	base := &Base{backend: b, spec: spec, opts: b.opts, model: model}
	if err := base.open(ctx, progress); err != nil {
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

// errFormat is for a file that isn't what it should be.
var errFormat = errors.New("not a GGUF file")

// checkGGUF looks at the first bytes; package models has checked header and extents.
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
	listener := cgo.NewHandle(func(ratio float64) bool {
		if progress != nil {
			progress(models.Progress{Phase: "weights", Ratio: ratio})
		}
		return ctx.Err() == nil
	})
	defer listener.Delete()
	how := C.tdm_load{
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
		how.split = (*C.float)(split)
	}
	path := C.CString(spec.Path)
	defer C.free(unsafe.Pointer(path))
	why := newComplaint()
	defer why.free()
	model := C.tdm_model_load(path, &how, why.text, why.size)
	if model == nil {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		return nil, why.err()
	}
	return model, nil
}

// complaint is a C buffer for the library's reason.
type complaint struct {
	text *C.char
	size C.size_t
}

func newComplaint() complaint {
	return complaint{text: (*C.char)(C.calloc(1, errorBytes)), size: errorBytes}
}

func (c complaint) err() error { return errors.New(C.GoString(c.text)) }
func (c complaint) free()      { C.free(unsafe.Pointer(c.text)) }

func fileReason(err error) models.Reason {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return models.ReasonNotFound
	case errors.Is(err, errFormat):
		return models.ReasonBadFormat
	}
	return models.ReasonOther
}

// loadReason sorts what went wrong in the library by its words, since it gives no codes.
func loadReason(ctx context.Context, err error) models.Reason {
	switch text := err.Error(); {
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded):
		return models.ReasonTimeout
	case ctx.Err() != nil:
		return models.ReasonOther
	case mentions(text, "failed to allocate", "out of memory", "cudaMalloc failed", "bad_alloc", "unable to allocate", "Cannot allocate memory", "cannot allocate memory"):
		return models.ReasonOutOfMemory
	case mentions(strings.ToLower(text), "input/output error", "stale file handle", "stale nfs file handle", "too many open files", "remote i/o error",
		"connection timed out", "transport endpoint is not connected"):
		return models.ReasonOther // of the disk, the network or this process: the same file may load later
	}
	return models.ReasonBadFormat
}

func mentions(text string, words ...string) bool {
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// checkModel refuses what can't generate text token by token.
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

// plan is how large a context becomes.
type plan struct {
	context   int // tokens of one sequence
	cells     int
	sequences int
}

// planContext cuts the wishes of spec to what the model was trained for and what memory allows. A position beyond the trained context
// would end the process with some architectures.
func planContext(spec models.BaseSpec, o Options, trained int, cellBytes, freeBytes int64) plan {
	p := plan{context: spec.Context, sequences: max(spec.Parallel, 1)}
	if p.context == 0 {
		p.context = defaultContext
	}
	p.context = min(p.context, trained)
	p.cells = min(p.context*p.sequences, max(o.CacheCells, p.context))
	budget := o.CacheBytes
	switch {
	case budget > 0:
	case spec.FreeBytes > 0: // next to nothing is a budget, too
		budget = max(min(freeBytes, spec.FreeBytes)/4, 1)
	default:
		budget = freeBytes / 4
	}
	if cellBytes > 0 && budget > 0 {
		p.cells = min(p.cells, int(min(budget/cellBytes, math.MaxInt32/2)))
	}
	p.cells = max(p.cells, 256) // the library rounds up to that
	p.context = min(p.context, p.cells)
	return p
}

// cellBytes is what one token takes in the KV cache, by the model's own numbers; an estimate where layers differ.
func cellBytes(model *C.struct_llama_model) int64 {
	layers, heads := int64(C.llama_model_n_layer(model)), int64(C.llama_model_n_head(model))
	headsKV := int64(C.llama_model_n_head_kv(model))
	if heads <= 0 {
		return 0
	}
	width := int64(C.llama_model_n_embd(model)) / heads
	arch := meta(model, "general.architecture")
	key, value := width, width
	if n, err := strconv.ParseInt(meta(model, arch+".attention.key_length"), 10, 32); err == nil {
		key = n
	}
	if n, err := strconv.ParseInt(meta(model, arch+".attention.value_length"), 10, 32); err == nil {
		value = n
	}
	const bytesF16 = 2
	return layers * headsKV * (key + value) * bytesF16
}

// meta is a value of the GGUF header as text, empty when there is none.
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

// backendName is the metrics' name of a ggml backend.
func backendName(ggml string) string { return strings.ToLower(strings.Fields(ggml + " unknown")[0]) }
