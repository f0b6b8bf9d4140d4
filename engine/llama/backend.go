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
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"tandem/engine/models"
)

// Options of a Backend. BackendDir and OnDevice are required.
type Options struct {
	// BackendDir holds the loadable backends (libggml-cpu*.so, libggml-cuda.so). No other place is searched.
	BackendDir string
	Logger     *slog.Logger // default: slog.Default()
	// OnDevice runs call on the goroutine that steps, between two steps, and gives back its error when it has ended. Any other error
	// means that call didn't run and never will.
	OnDevice func(ctx context.Context, call func() error) error

	Threads    int       // CPU threads of a step; 0: as many as this process may use, 1 for models under 64 MiB
	GPULayers  int       // layers to keep on GPUs; negative: all
	MainGPU    int       // with OneGPU: which one
	OneGPU     bool      // don't spread a model over several GPUs
	GPUSplit   []float32 // proportions when spread; empty: by free memory
	StepTokens int       // tokens of one step at most; 0: 2048
	CacheBytes int64     // KV cache of one base at most; 0: a quarter of what its device has free after loading
	CacheCells int       // KV cells of one base at most; 0: 65536

	// Deterministic makes logits depend on the tokens before alone, bit for bit: not on what else is computed, how prompts are cut,
	// how many threads there are or where in the cache a sequence lies. New refuses it where a GPU computes. It holds for all bases
	// of the process; one that turns out otherwise isn't loaded.
	Deterministic bool
}

const (
	defaultStepTokens = 2048
	defaultCacheCells = 65536
	defaultContext    = 8192
	microBatch        = 512 // tokens of one pass through the network
	cpuDryRun         = 32  // tokens of a prompt in the dry run of a load on a CPU
	sequencesMax      = 256 // of the library
	errorBytes        = 4096
)

// Backend loads models with llama.cpp. The library's log and its list of backends belong to the process, so there is one Backend.
type Backend struct {
	opts   Options
	thread *stepThread // shared by all bases: each thread that decodes has computing threads of its own. Of the goroutine that steps.
}

var _ models.Backend = (*Backend)(nil)

// New loads the backends of a directory and sends the library's log to the logger. The error says when no device was found.
func New(o Options) (*Backend, error) {
	if o.OnDevice == nil {
		return nil, errors.New("llama: Options.OnDevice is missing")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.StepTokens <= 0 {
		o.StepTokens = defaultStepTokens
	}
	if o.CacheCells <= 0 {
		o.CacheCells = defaultCacheCells
	}
	if len(o.GPUSplit) > int(C.llama_max_devices()) {
		return nil, fmt.Errorf("llama: %d proportions in GPUSplit, at most %d devices are possible", len(o.GPUSplit), int(C.llama_max_devices()))
	}
	startLog(o.Logger)
	if err := loadBackends(o.BackendDir); err != nil {
		return nil, err
	}
	b := &Backend{opts: o}
	how, err := invarianceFor(o, b.Devices())
	if err != nil {
		return nil, fmt.Errorf("llama: %w", err)
	}
	setInvariance(how)
	return b, nil
}

// Close ends the thread that decodes, if there is one. All bases are closed and OnDevice runs nothing any more.
func (b *Backend) Close() error {
	if b.thread == nil {
		return nil
	}
	err := b.thread.close()
	b.thread = nil
	return err
}

// stepThread is the one thread that decodes for all bases whose steps are computed by several threads of a CPU.
func (b *Backend) stepThread() (*stepThread, error) {
	if b.thread != nil {
		return b.thread, nil
	}
	thread, err := newStepThread()
	b.thread = thread
	return thread, err
}

var backends struct {
	mu     sync.Mutex // guards loaded
	loaded map[string]bool
}

// loadBackends does so once for each directory: a second time would register every device again.
func loadBackends(dir string) error {
	backends.mu.Lock()
	defer backends.mu.Unlock()
	if backends.loaded[dir] {
		return nil
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return fmt.Errorf("llama: load backends from %q: not a directory", dir)
	}
	cdir := C.CString(dir)
	defer C.free(unsafe.Pointer(cdir))
	if C.tdm_backends_load(cdir) == 0 {
		return fmt.Errorf("llama: no backend for this machine in %q", dir)
	}
	if backends.loaded == nil {
		backends.loaded = make(map[string]bool)
	}
	backends.loaded[dir] = true
	return nil
}

// BuildInfo names the library's release, commit and the instruction sets in use.
func BuildInfo() string { return C.GoString(C.tdm_build_info()) }

// Device is one piece of hardware as the library sees it.
type Device struct {
	Name        string // CPU, CUDA0 …
	Description string
	Backend     string // cpu, cuda …, as in metrics
	GPU         bool
	FreeBytes   int64
	TotalBytes  int64
	Bus         string // place on the PCI bus, empty when it has none
}

// Devices lists them; memory figures are of this moment.
func (b *Backend) Devices() []Device {
	out := make([]Device, 0, int(C.tdm_device_count()))
	for i := range int(C.tdm_device_count()) {
		var d C.tdm_device
		if C.tdm_device_get(C.int32_t(i), &d) {
			out = append(out, deviceOf(&d))
		}
	}
	return out
}

func deviceOf(d *C.tdm_device) Device {
	return Device{
		Name:        C.GoString(d.name),
		Description: C.GoString(d.description),
		Backend:     backendName(C.GoString(d.backend)),
		GPU:         d._type == C.GGML_BACKEND_DEVICE_TYPE_GPU || d._type == C.GGML_BACKEND_DEVICE_TYPE_IGPU,
		FreeBytes:   int64(d.free),
		TotalBytes:  int64(d.total),
		Bus:         C.GoString(d.bus),
	}
}

// logger is where the library's lines go; one for the process, like the library's.
var logger atomic.Pointer[slog.Logger]

func startLog(l *slog.Logger) {
	logger.Store(l)
	C.tdm_log_start(C.int32_t(leastLevel(l)))
}

// Levels of ggml.
const (
	ggmlDebug = 1
	ggmlInfo  = 2
	ggmlWarn  = 3
	ggmlError = 4
)

// leastLevel is decided once, in C, since a load writes about a thousand lines.
func leastLevel(l *slog.Logger) int {
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
