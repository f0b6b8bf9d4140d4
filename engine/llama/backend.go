//go:build llama

package llama

/*
#cgo CXXFLAGS: -std=c++17 -O3 -Wno-psabi
#cgo LDFLAGS: -lllama-common -lllama -lggml -lggml-base -lm -Wl,-rpath,$ORIGIN/lib
#include "shim.h"
*/
import "C"

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// Options of a Backend. BackendDir and OnDevice are required.
type Options struct {
	// BackendDir holds the loadable backends (libggml-cpu*.so, libggml-cuda.so). No other directory is searched.
	BackendDir string
	Logger     *slog.Logger // default: slog.Default()
	// LibraryLogger gets the library's own lines; default: Logger.
	LibraryLogger *slog.Logger
	// OnDevice runs call on the goroutine that steps, between two steps, and returns its error when it has ended. Any
	// other error means that call didn't run and never will.
	OnDevice func(ctx context.Context, call func() error) error
	// OnTurn is OnDevice for what computes: one call after each step while somebody decodes. nil: OnDevice.
	OnTurn func(ctx context.Context, call func(batch.Turn) error) error

	// Device is what computes: auto or empty for the accelerators that are there, cpu, or the name of a backend or
	// device. New returns a DeviceError where it isn't there.
	Device string
	// OnDeviceFailure is called when an accelerator couldn't compute. What it holds is then of no use, so the process
	// should end. nil: what was to be computed fails.
	OnDeviceFailure func(error)

	Threads    int       // CPU threads of a step; 0: as many as this process may use, 1 for models under 64 MiB
	GPULayers  int       // layers to keep on GPUs; negative: all
	MainGPU    int       // with OneGPU: which one
	OneGPU     bool      // don't spread a model over several GPUs
	GPUSplit   []float32 // proportions when spread; empty: by free memory
	StepTokens int       // tokens of one step at most; 0: 2048
	MicroBatch int       // tokens of one pass through the network; 0: 512
	CacheBytes int64     // KV cache of one base at most; 0: what its devices have room for after loading
	CacheCells int       // KV cells of one base at most; 0: 65536 in a host's memory, as many as fit on GPUs
	Watermark  float64   // share (0 to 1) of an accelerator's memory that may be in use; 0: all

	// FoundBefore is what the engine before this one found on its accelerators. Where there is less a load waits for
	// it, until MemoryWait after New, if its KV cache would be smaller.
	FoundBefore []FoundMemory
	MemoryWait  time.Duration
	OnFound     func([]FoundMemory) // is called with what loads find; nil: nobody wants to know

	DeviceSampling DeviceSampling // empty: auto

	// Deterministic makes logits depend only on the tokens before, bit for bit: not on what else is computed, how
	// prompts are split, how many threads there are or where in the cache a sequence is. New refuses it where a GPU
	// computes. It holds for all bases of the process; one for which it turns out not to hold isn't loaded.
	Deterministic bool
}

const (
	defaultStepTokens = 2048
	defaultMicroBatch = 512
	defaultContext    = 8192
	cpuDryRun         = 32  // tokens of a prompt in the dry run of a load on a CPU
	sequencesMax      = 256 // of the library
	errorBytes        = 4096
)

// Backend loads models with llama.cpp. The library's log and its list of backends exist once in a process, so there is
// one Backend.
type Backend struct {
	opts Options
	// accelerators may hold weights beside the host's memory; empty: the CPU computes. Without their memory.
	accelerators []Device
	// thread is shared by all bases: each thread that decodes has computing threads of its own. Used only on the
	// goroutine that steps.
	thread *stepThread
	memory memoryBook
}

var _ models.Backend = (*Backend)(nil)

// New loads the backends of a directory and sends the library's log to the logger. It is an error when no device is
// found.
func New(o Options) (*Backend, error) {
	if o.OnDevice == nil {
		return nil, errors.New("llama: Options.OnDevice is missing")
	}
	if o.OnTurn == nil {
		o.OnTurn = func(ctx context.Context, call func(batch.Turn) error) error {
			return o.OnDevice(ctx, func() error { return call(batch.Turn{}) })
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.StepTokens <= 0 {
		o.StepTokens = defaultStepTokens
	}
	if o.MicroBatch <= 0 {
		o.MicroBatch = defaultMicroBatch
	}
	o.StepTokens = max(o.StepTokens, o.MicroBatch)
	if len(o.GPUSplit) > int(C.llama_max_devices()) {
		return nil, fmt.Errorf("llama: %d proportions in GPUSplit, at most %d devices are possible", len(o.GPUSplit), int(C.llama_max_devices()))
	}
	setLogger(cmp.Or(o.LibraryLogger, o.Logger))
	if err := loadBackends(o.BackendDir); err != nil {
		return nil, err
	}
	b := &Backend{opts: o, memory: memoryBook{until: time.Now().Add(o.MemoryWait), held: make(map[*Base][]heldMemory)}}
	installed := b.Backends()
	if needsBuses(o.Device, o.GPULayers, installed) {
		installed = installedWith(listDevices(func(*Device) bool { return true }))
	}
	var err error
	if b.accelerators, err = chooseAccelerators(o.Device, o.GPULayers, installed); err != nil {
		return nil, fmt.Errorf("llama: %w", err)
	}
	if n := len(b.accelerators); o.OneGPU && n > 0 && o.MainGPU >= n {
		return nil, fmt.Errorf("llama: %w", &DeviceError{fmt.Sprintf("it gives %d GPUs, and MAIN_GPU is %d, counted from 0", n, o.MainGPU)})
	}
	C.tdm_device_home(C.int32_t(b.home()))
	mode, err := batchInvarianceFor(o, b.accelerators)
	if err != nil {
		return nil, fmt.Errorf("llama: %w", err)
	}
	setBatchInvariance(mode)
	return b, nil
}

// Close ends the thread that decodes, if there is one. All bases must be closed, and OnDevice must run nothing any
// more.
func (b *Backend) Close() error {
	if b.thread == nil {
		return nil
	}
	err := b.thread.close()
	b.thread = nil
	return err
}

// sharedStepThread returns the one thread that decodes for all bases whose steps several CPU threads compute.
func (b *Backend) sharedStepThread() (*stepThread, error) {
	if b.thread != nil {
		return b.thread, nil
	}
	thread, err := newStepThread()
	b.thread = thread
	return thread, err
}

// BuildInfo names the library's release, commit and the instruction sets in use.
func BuildInfo() string { return C.GoString(C.tdm_build_info()) }
