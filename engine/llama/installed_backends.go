//go:build llama

package llama

/*
#cgo CXXFLAGS: -std=c++17 -O3 -Wno-psabi
#cgo LDFLAGS: -lllama-common -lllama -lggml -lggml-base -lm -ldl -Wl,-rpath,$ORIGIN/lib
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"
)

// InstalledBackend is a compute backend whose library is installed, with what it gives.
type InstalledBackend struct {
	Name    string // cpu, cuda …, as Device.Backend
	Devices []Device
	Problem string // why it gives no device; empty when it gives one

	library string // the name in its file's name: hip for ROCm
}

// Accelerates reports whether such a backend computes on hardware of its own: its devices are missed when there
// are none.
func (i *InstalledBackend) Accelerates() bool {
	return !slices.Contains([]string{"cpu", "blas", "zendnn", "rpc"}, i.Name)
}

// Backends lists the installed backends with their devices as they are at this moment.
func (b *Backend) Backends() []InstalledBackend { return installedWith(b.Devices()) }

func installedWith(all []Device) []InstalledBackend {
	backends.mu.Lock()
	defer backends.mu.Unlock()
	out := slices.Clone(backends.installed)
	for i := range out {
		for _, d := range all {
			if d.Backend == out[i].Name {
				out[i].Devices = append(out[i].Devices, d)
			}
		}
	}
	return out
}

var backends struct {
	mu        sync.Mutex // guards the others
	loaded    map[string]bool
	installed []InstalledBackend // without devices
}

// outOfTree names a backend outside the directory, as for any program with this library.
const outOfTree = "GGML_BACKEND_PATH"

// loadBackends loads the backends of a directory once: a second time would register every device again. It does what
// the library's ggml_backend_load_all does, which says nothing of backends that it can't load.
func loadBackends(dir string) error {
	backends.mu.Lock()
	defer backends.mu.Unlock()
	if backends.loaded[dir] {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("llama: load backends from %q: %w", dir, err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	for _, library := range findBackendLibraries(names) {
		backends.installed = append(backends.installed, library.load(dir))
	}
	if path := os.Getenv(outOfTree); path != "" {
		library := backendLibrary{name: strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), libraryPrefix), librarySuffix), file: filepath.Base(path)}
		backends.installed = append(backends.installed, library.load(filepath.Dir(path)))
	}
	C.tdm_backends_start()
	if C.tdm_device_count() == 0 {
		return fmt.Errorf("llama: no backend for this machine in %q: %s", dir, problems(backends.installed))
	}
	if backends.loaded == nil {
		backends.loaded = make(map[string]bool)
	}
	backends.loaded[dir] = true
	return nil
}

func problems(installed []InstalledBackend) string {
	var list []string
	for _, i := range installed {
		if i.Problem != "" {
			list = append(list, i.Name+": "+i.Problem)
		}
	}
	return cmp.Or(strings.Join(list, "; "), "there is none")
}

// backendLibrary is the shared library of a backend.
type backendLibrary struct {
	name     string   // cuda, cpu …, as in the file's name
	file     string   // libggml-cuda.so; empty: there are only variants
	variants []string // libggml-cpu-haswell.so …: one for each kind of processor
}

const (
	libraryPrefix = "libggml-"
	librarySuffix = ".so"
)

// findBackendLibraries picks the backends out of a directory's files, the CPU's last: where a device can be reached in
// two ways, the library takes the first.
func findBackendLibraries(files []string) []backendLibrary {
	byName := make(map[string]*backendLibrary)
	for _, file := range files {
		rest, isLibrary := strings.CutPrefix(file, libraryPrefix)
		rest, isShared := strings.CutSuffix(rest, librarySuffix)
		name, _, isVariant := strings.Cut(rest, "-")
		if !isLibrary || !isShared || name == "" || name == "base" {
			continue
		}
		if byName[name] == nil {
			byName[name] = &backendLibrary{name: name}
		}
		if isVariant {
			byName[name].variants = append(byName[name].variants, file)
		} else {
			byName[name].file = file
		}
	}
	list := make([]backendLibrary, 0, len(byName))
	for _, l := range byName {
		slices.Sort(l.variants)
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b backendLibrary) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.name, b.name))
	})
	return list
}

func (l *backendLibrary) rank() int {
	if l.name == "cpu" {
		return 1
	}
	return 0
}

// load loads the library, or the variant of it that fits this processor best.
func (l *backendLibrary) load(dir string) InstalledBackend {
	out := InstalledBackend{Name: l.name, library: l.name}
	variant, problem := l.bestVariant(dir)
	file := cmp.Or(variant, l.file)
	if file == "" {
		out.Problem = cmp.Or(problem, "none of its variants is for this processor")
		return out
	}
	path := C.CString(filepath.Join(dir, file))
	defer C.free(unsafe.Pointer(path))
	errBuf := newErrorBuffer()
	defer errBuf.free()
	var loaded C.tdm_backend
	if C.tdm_backend_load(path, &loaded, errBuf.text, errBuf.size); loaded.name != nil {
		out.Name = backendName(C.GoString(loaded.name))
	}
	if loaded.devices == 0 {
		out.Problem = whyNoDevice(errBuf.err().Error())
	}
	return out
}

// bestVariant is the file of the variant that fits this processor best; problem says why one can't be loaded at all.
func (l *backendLibrary) bestVariant(dir string) (file, problem string) {
	errBuf := newErrorBuffer()
	defer errBuf.free()
	best := 0
	for _, v := range l.variants {
		path := C.CString(filepath.Join(dir, v))
		if score := int(C.tdm_backend_score(path, errBuf.text, errBuf.size)); score > best {
			best, file = score, v
		}
		C.free(unsafe.Pointer(path))
	}
	if text := errBuf.err().Error(); text != "" {
		problem = whyNoDevice(text)
	}
	return file, problem
}

// whyNoDevice puts what kind of thing is missing before what the library says.
func whyNoDevice(text string) string {
	if _, reason, ok := strings.Cut(text, librarySuffix+": "); ok && strings.Contains(text, "failed to load") {
		text = reason
	}
	kind := ""
	switch {
	case text == "":
		return "it finds no device"
	case strings.Contains(text, "libcuda.so"):
		kind = "no NVIDIA driver: "
	case strings.Contains(text, "cannot open shared object file"):
		kind = "a library is missing: "
	case strings.Contains(text, "stub library"):
		kind = "the driver's library is a stub, made for linking only: "
	case strings.Contains(text, "driver version is insufficient"):
		kind = "the driver is missing or too old: "
	case containsAny(text, "no CUDA-capable device", "no ROCm-capable device"):
		kind = "no device: "
	}
	return kind + text
}
