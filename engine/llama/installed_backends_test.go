//go:build llama

package llama

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestBackendsAreFoundByTheirFilesNames(t *testing.T) {
	found := findBackendLibraries([]string{
		"libggml-base.so", "libggml-base.so.0", "libggml.so", "libggml-cpu-haswell.so", "libggml-cpu-x64.so", "libggml-cpu.so",
		"libggml-vulkan.so", "libggml-cuda.so", "libllama.so", "libggml-.so", "readme.txt", "libcudart.so.13",
	})
	var got []string
	for _, l := range found {
		got = append(got, fmt.Sprint(l.name, " ", l.file, " ", l.variants))
	}
	want := []string{"cuda libggml-cuda.so []", "vulkan libggml-vulkan.so []", "cpu libggml-cpu.so [libggml-cpu-haswell.so libggml-cpu-x64.so]"}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%q, want\n%q", got, want)
	}
}

func TestWhyABackendGivesNoDevice(t *testing.T) {
	for text, want := range map[string]string{
		"": "it finds no device",
		"load_backend: failed to load /opt/lib/libggml-cuda.so: libcuda.so.1: cannot open shared object file: No such file or directory": "no NVIDIA driver: libcuda.so.1: cannot open shared object file: No such file or directory",
		"load_backend: failed to load /opt/lib/libggml-cuda.so: libcudart.so.13: cannot open shared object file":                         "a library is missing: libcudart.so.13: cannot open shared object file",
		"ggml_cuda_init: failed to initialize CUDA: CUDA driver is a stub library":                                                       "the driver's library is a stub, made for linking only: ggml_cuda_init: failed to initialize CUDA: CUDA driver is a stub library",
		"ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected":                                                  "no device: ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected",
		"ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version":                        "the driver is missing or too old: ggml_cuda_init: failed to initialize CUDA: CUDA driver version is insufficient for CUDA runtime version",
		"something else": "something else",
	} {
		if got := whyNoDevice(text); got != want {
			t.Errorf("%q\ngives %q\nwant  %q", text, got, want)
		}
	}
}

func TestDeviceChoice(t *testing.T) {
	cpu := InstalledBackend{Name: "cpu", library: "cpu", Devices: []Device{{Name: "CPU", Backend: "cpu"}}}
	gpu := func(backend string, n int, bus string) Device {
		return Device{Name: fmt.Sprint(strings.ToUpper(backend), n), Backend: backend, GPU: true, Bus: bus}
	}
	cuda := InstalledBackend{Name: "cuda", library: "cuda", Devices: []Device{gpu("cuda", 0, "1"), gpu("cuda", 1, "2")}}
	vulkan := InstalledBackend{Name: "vulkan", library: "vulkan", Devices: []Device{gpu("vulkan", 0, "1")}}
	rocm := InstalledBackend{Name: "rocm", library: "hip", Devices: []Device{gpu("rocm", 0, "")}}
	broken := InstalledBackend{Name: "cuda", library: "cuda", Problem: "no NVIDIA driver: libcuda.so.1"}
	laptop := InstalledBackend{Name: "vulkan", library: "vulkan", Devices: []Device{{Name: "Vulkan0", Backend: "vulkan", GPU: true, integrated: true}}}
	for _, c := range []struct {
		wanted    string
		gpuLayers int
		installed []InstalledBackend
		want      string
		problem   string
	}{
		{"auto", -1, []InstalledBackend{cpu}, "", ""},
		{"", -1, []InstalledBackend{cuda, cpu}, "CUDA0 CUDA1", ""},
		{"auto", -1, []InstalledBackend{broken, cpu}, "", ""},
		{"auto", -1, []InstalledBackend{cuda, vulkan, cpu}, "CUDA0 CUDA1", ""}, // one card in two ways
		{"auto", -1, []InstalledBackend{cuda, laptop, cpu}, "CUDA0 CUDA1", ""},
		{"auto", -1, []InstalledBackend{laptop, cpu}, "Vulkan0", ""},
		{"auto", 0, []InstalledBackend{cuda, cpu}, "", ""},
		{"auto", 2, []InstalledBackend{cuda, cpu}, "CUDA0 CUDA1", ""},
		{"cpu", -1, []InstalledBackend{cuda, cpu}, "", ""},
		{"CPU", -1, []InstalledBackend{cuda, cpu}, "", ""},
		{"cuda", -1, []InstalledBackend{cuda, vulkan, cpu}, "CUDA0 CUDA1", ""},
		{"vulkan", -1, []InstalledBackend{cuda, vulkan, cpu}, "VULKAN0", ""},
		{"cuda1", -1, []InstalledBackend{cuda, cpu}, "CUDA1", ""},
		{"hip", -1, []InstalledBackend{rocm, cpu}, "ROCM0", ""},
		{"ROCm", -1, []InstalledBackend{rocm, cpu}, "ROCM0", ""},
		{"vulkan", -1, []InstalledBackend{cuda, laptop, cpu}, "Vulkan0", ""},
		{"cuda", -1, []InstalledBackend{broken, cpu}, "", "the backend cuda gives no device: no NVIDIA driver: libcuda.so.1"},
		{"cuda", -1, []InstalledBackend{cpu}, "", `no GPU or backend of GPUs has the name "cuda"; there is CPU of cpu`},
		{"CUDA2", -1, []InstalledBackend{cuda, cpu}, "", "there is CUDA0 of cuda, CUDA1 of cuda, CPU of cpu"},
		{"CUDA0", -1, []InstalledBackend{broken, cpu}, "", "the backend cuda gives no device: no NVIDIA driver: libcuda.so.1"},
	} {
		chosen, err := chooseAccelerators(c.wanted, c.gpuLayers, c.installed)
		var names []string
		for _, d := range chosen {
			names = append(names, d.Name)
		}
		_, refused := errors.AsType[*DeviceError](err)
		if got := strings.Join(names, " "); got != c.want || refused != (c.problem != "") || refused && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%q with %d layers: %q, %v; want %q, %q", c.wanted, c.gpuLayers, got, err, c.want, c.problem)
		}
	}
}

// Devices are opened to be told apart only where several backends may have the same ones.
func TestWhenDevicesAreToldApart(t *testing.T) {
	with := func(name string, devices ...Device) InstalledBackend {
		return InstalledBackend{Name: name, Devices: devices}
	}
	cpu, cuda, vulkan := with("cpu", Device{Name: "CPU"}), with("cuda", Device{GPU: true}, Device{GPU: true}), with("vulkan", Device{GPU: true})
	laptop := with("vulkan", Device{GPU: true, integrated: true})
	for _, c := range []struct {
		wanted    string
		gpuLayers int
		installed []InstalledBackend
		want      bool
	}{
		{"auto", -1, []InstalledBackend{cuda, cpu}, false},
		{"auto", -1, []InstalledBackend{cuda, laptop, cpu}, false},
		{"auto", -1, []InstalledBackend{cuda, vulkan, cpu}, true},
		{"", 2, []InstalledBackend{cuda, vulkan, cpu}, true},
		{"auto", 0, []InstalledBackend{cuda, vulkan, cpu}, false},
		{"cuda", -1, []InstalledBackend{cuda, vulkan, cpu}, false},
		{"cpu", -1, []InstalledBackend{cuda, vulkan, cpu}, false},
	} {
		if got := needsBuses(c.wanted, c.gpuLayers, c.installed); got != c.want {
			t.Errorf("%q with %d layers, %d backends: %v", c.wanted, c.gpuLayers, len(c.installed), got)
		}
	}
}

// What a backend's library lacks is told; the library itself passes over such a backend without a word.
func TestABackendThatCannotBeLoadedIsTold(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "libggml-cuda.so"), []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	libraries := findBackendLibraries([]string{"libggml-cuda.so"})
	got := libraries[0].load(dir)
	if got.Name != "cuda" || !strings.Contains(got.Problem, "file too short") || !got.Accelerates() {
		t.Errorf("%+v", got)
	}
}

// A variant that can't be loaded is something else than a processor that none is for.
func TestVariantsThatCannotBeLoadedAreTold(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "libggml-cpu-haswell.so"), []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	libraries := findBackendLibraries([]string{"libggml-cpu-haswell.so"})
	if got := libraries[0].load(dir); !strings.Contains(got.Problem, "file too short") {
		t.Errorf("%+v", got)
	}
}

func TestBackendsAreListedWithTheirDevices(t *testing.T) {
	b, _ := newBackend(t, nil)
	all := b.Backends()
	i := slices.IndexFunc(all, func(i InstalledBackend) bool { return i.Name == "cpu" })
	if i < 0 || len(all[i].Devices) != 1 || all[i].Problem != "" || all[i].Accelerates() || all[i].Devices[0].Description == "" {
		t.Errorf("%+v", all)
	}
}
