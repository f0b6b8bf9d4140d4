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
	"io"
	"os"
	"unsafe"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// Adapter is a LoRA version loaded onto a Base. After Close no step may use it.
type Adapter struct {
	base   *Base
	name   string
	bytes  int64
	handle *C.struct_llama_adapter_lora // used only on the goroutine that steps
	slot   int32                        // of adapterSlots; 0: there are none

	byDevice []int64 // bytes on each device, without the slot; guarded by Base.mu
}

var _ models.Adapter = (*Adapter)(nil)
var _ batch.Adapter = (*Adapter)(nil)

// LoadAdapter reads the file beside the step loop, so that the library finds it in the page cache, and makes the
// adapter between two steps.
func (b *Base) LoadAdapter(ctx context.Context, spec models.AdapterSpec) (models.Adapter, error) {
	fail := func(reason models.Reason, err error) error {
		return &models.LoadError{Reason: reason, What: b.spec.Name + " " + spec.Name, Err: err}
	}
	if err := checkGGUF(spec.Path); err != nil {
		return nil, fail(fileReason(err), err)
	}
	size, err := readIntoPageCache(ctx, spec.Path)
	if err != nil {
		return nil, fail(loadReason(ctx, err), err)
	}
	a := &Adapter{base: b, name: spec.Name, bytes: size}
	if err := b.opts.OnDevice(ctx, func() error { return a.open(spec.Path) }); err != nil {
		return nil, fail(adapterReason(ctx, err), err)
	}
	return a, nil
}

// readIntoPageCache reads a file once and returns its size.
func readIntoPageCache(ctx context.Context, path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	size := int64(0)
	for buf := make([]byte, 1<<20); ; {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		n, err := f.Read(buf)
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", path, err)
		}
	}
}

// open makes the adapter from the file. Called between two steps.
func (a *Adapter) open(path string) error {
	b := a.base
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return errors.New("the base was closed meanwhile")
	}
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	errBuf := newErrorBuffer()
	defer errBuf.free()
	a.handle = C.tdm_adapter_load(b.model, cpath, errBuf.text, errBuf.size)
	if a.handle == nil {
		return errBuf.err()
	}
	if C.llama_adapter_get_alora_n_invocation_tokens(a.handle) > 0 {
		C.tdm_adapter_free(a.handle)
		a.handle = nil
		return errors.New("adapters with invocation tokens are not supported")
	}
	if err := a.join(); err != nil {
		C.tdm_adapter_free(a.handle)
		a.handle = nil
		return err
	}
	a.byDevice = a.bytesByDevice()
	b.adapters[a] = struct{}{}
	b.noteAdapterMemory()
	return nil
}

// join puts the adapter beside the others, if the base has slots.
func (a *Adapter) join() error {
	b := a.base
	if b.slots == nil {
		if len(b.adapters) == 0 && b.generates {
			b.opts.Logger.Info("versions take turns, a step has one of them", "model", b.spec.Name, "reason", b.turnsReason)
		}
		return nil
	}
	slot, bytes, err := b.slots.add(a.handle)
	if err != nil {
		return err
	}
	a.slot, a.bytes = slot, a.bytes+bytes
	return nil
}

// Name is the version's name.
func (a *Adapter) Name() string { return a.name }

// Bytes is what Close frees.
func (a *Adapter) Bytes() int64 { return a.bytes }

// Close frees the adapter between two steps.
func (a *Adapter) Close() error {
	free := func() error {
		a.free()
		return nil
	}
	if err := a.base.opts.OnDevice(context.Background(), free); err != nil { // nobody steps any more
		a.free()
	}
	return nil
}

func (a *Adapter) free() {
	b := a.base
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, mine := b.adapters[a]; !mine {
		return
	}
	delete(b.adapters, a)
	// The context keeps pointers to the adapter that it used last, even if that isn't this one.
	if b.context != nil {
		C.tdm_adapter_use(b.context, nil)
	}
	if b.slots != nil {
		b.slots.remove(a.slot)
	}
	b.activeAdapter = nil
	b.embed.dropAdapter()
	C.tdm_adapter_free(a.handle)
	a.handle = nil
	b.noteAdapterMemory()
}
