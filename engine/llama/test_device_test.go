//go:build llama

package llama

import (
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
)

// onCPU keeps a test on the CPU that is about the CPU's code, or compares numbers bit by bit.
func onCPU(o *Options) { o.Device = DeviceCPU }

// testDevice is what computes in tests that name no device.
func testDevice(t testing.TB) string {
	t.Helper()
	installed, err := installedOnce()
	if err != nil {
		t.Fatal(err)
	}
	return chooseTestDevice(os.Getenv("TEST_DEVICE"), installed)
}

// installedOnce lists what BACKEND_DIR has. No device is opened: tests on the CPU leave cards alone.
var installedOnce = sync.OnceValues(func() ([]InstalledBackend, error) {
	setLogger(slog.New(slog.DiscardHandler))
	if err := loadBackends(os.Getenv("BACKEND_DIR")); err != nil {
		return nil, err
	}
	return installedWith(listDevices(func(*Device) bool { return false })), nil
})

// chooseTestDevice is the one that is named (TEST_DEVICE), otherwise the backend that an engine would take by itself:
// that of a card, where there is one, or the CPU. The test GPU is for the tests that name it.
func chooseTestDevice(named string, installed []InstalledBackend) string {
	if named != "" {
		return named
	}
	others := slices.DeleteFunc(slices.Clone(installed), func(b InstalledBackend) bool { return b.is("testgpu") })
	chosen, err := chooseAccelerators(DeviceAuto, -1, others)
	if err != nil || len(chosen) == 0 {
		return DeviceCPU
	}
	return chosen[0].Backend
}

func TestWhereTestsCompute(t *testing.T) {
	with := func(name string, devices ...Device) InstalledBackend {
		for i := range devices {
			devices[i].Backend = name
		}
		return InstalledBackend{Name: name, library: name, Devices: devices}
	}
	cpu, cuda := with("cpu", Device{Name: "CPU"}), with("cuda", Device{Name: "CUDA0", GPU: true}, Device{Name: "CUDA1", GPU: true})
	testGPU := with("testgpu", Device{Name: "TestGPU0", GPU: true}, Device{Name: "TestGPU1", GPU: true})
	noDriver := InstalledBackend{Name: "cuda", library: "cuda", Problem: "no NVIDIA driver: libcuda.so.1"}
	blas := with("blas", Device{Name: "BLAS"})
	laptop := with("vulkan", Device{Name: "Vulkan0", GPU: true, integrated: true})
	for name, c := range map[string]struct {
		named     string
		installed []InstalledBackend
		want      string
	}{
		"a build for CPUs":                 {"", []InstalledBackend{cpu}, "cpu"},
		"the test GPU alone":               {"", []InstalledBackend{testGPU, cpu}, "cpu"},
		"the test GPU, by name":            {"testgpu", []InstalledBackend{testGPU, cpu}, "testgpu"},
		"a card":                           {"", []InstalledBackend{cuda, cpu}, "cuda"},
		"a card beside the test GPU":       {"", []InstalledBackend{testGPU, cuda, cpu}, "cuda"},
		"a card, and the CPU by name":      {"cpu", []InstalledBackend{cuda, cpu}, "cpu"},
		"one of two cards":                 {"CUDA1", []InstalledBackend{cuda, cpu}, "CUDA1"},
		"a build for cards without one":    {"", []InstalledBackend{noDriver, testGPU, cpu}, "cpu"},
		"products by BLAS":                 {"", []InstalledBackend{blas, cpu}, "cpu"},
		"a GPU within the processor":       {"", []InstalledBackend{laptop, testGPU, cpu}, "vulkan"},
		"a card beside one in a processor": {"", []InstalledBackend{laptop, cuda, cpu}, "cuda"},
	} {
		if got := chooseTestDevice(c.named, c.installed); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
