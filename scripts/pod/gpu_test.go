package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestPodOnGPUs runs the pod on two GPUs that the CPU plays (scripts/testgpu): the answers are those of the CPU, what
// it computes on is told, and an engine that is killed is a pause there, too.
func TestPodOnGPUs(t *testing.T) {
	onCPU := startPod(t, podConfig{name: "tandem-cpu", keys: writeKeyFolder(t)})
	want, err := onCPU.ask(t.Context(), fmt.Sprintf(storyRequest, ""))
	if err != nil {
		t.Fatal(err)
	}
	onCPU.removePod()
	image := os.Getenv("POD_TEST_GPU_IMAGE")
	if image == "" {
		t.Fatal("POD_TEST_GPU_IMAGE names no image")
	}
	p := startPod(t, podConfig{name: "tandem-gpu", engineImage: image, keys: writeKeyFolder(t), settings: map[string]string{
		"DEVICE": "testgpu", "TESTGPU_DEVICES": "2", "STEP_DELAY": "20ms", "PARALLEL": "4", "RATE_LIMIT": "off"}})
	if got, err := p.ask(t.Context(), fmt.Sprintf(storyRequest, "")); err != nil || got.Result != want.Result {
		t.Errorf("on the GPUs %q, %v; on the CPU %q", got.Result, err, want.Result)
	}
	if status := p.computeStatus(t); status != "testgpu computes; testgpu: TestGPU0 TestGPU1; cpu: CPU" {
		t.Errorf("/status: %s", status)
	}
	if err := p.checkMetricAtLeast(`llm_engine_compute_info{backend="testgpu",missing="none",setting="testgpu"}`, 1); err != nil {
		t.Error(err)
	}
	p.engineIsReplacedAfterKill(t)
}

// TestEngineImageWithoutItsGPU starts images where no card is, as the manifests for GPUs do: the reason is in the log,
// and the exit code says that another start won't help.
func TestEngineImageWithoutItsGPU(t *testing.T) {
	overlayManifests(t) // skips
	for name, c := range map[string]struct{ image, reason string }{
		"for CPUs": {os.Getenv("POD_ENGINE_IMAGE"), "there is CPU of cpu"},
		"for CUDA": {os.Getenv("POD_CUDA_IMAGE"), "no NVIDIA driver: libcuda.so.1: cannot open shared object file"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.image == "" {
				t.Skip("not built")
			}
			_, err := podman(t.Context(), "run", "--rm", "--network", "none", "-e", "DEVICE=cuda", c.image)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 64 || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}

// TestCUDAImageOnTheCPU runs the pod with the image for CUDA and DEVICE=auto where no card is: it answers, and says why
// it does so on the CPU.
func TestCUDAImageOnTheCPU(t *testing.T) {
	image := os.Getenv("POD_CUDA_IMAGE")
	if image == "" {
		t.Skip("POD_CUDA_IMAGE names no image; scripts/test-pod.sh --cuda builds one")
	}
	p := startPod(t, podConfig{name: "tandem-cuda", engineImage: image, keys: writeKeyFolder(t)})
	t.Run("the image's health check passes", p.healthChecksPass)
	t.Run("documented commands answer", p.readmeCommandsAnswer)
	const want = "cpu computes; cuda: no NVIDIA driver: libcuda.so.1: cannot open shared object file: No such file or directory; cpu: CPU"
	if status := p.computeStatus(t); status != want {
		t.Errorf("/status: %s", status)
	}
	if err := p.checkMetricAtLeast(`llm_engine_compute_info{backend="cpu",missing="cuda",setting="auto"}`, 1); err != nil {
		t.Error(err)
	}
}

// computeStatus is what /status says of the backend that computes, and of each with its devices or its problem.
func (p *pod) computeStatus(t *testing.T) string {
	t.Helper()
	code, raw, err := p.request(t.Context(), http.MethodGet, "/status", "")
	var status struct {
		Device   string
		Backends []struct {
			Name    string
			Devices []struct{ Name string }
			Problem string
		}
	}
	if err != nil || code != http.StatusOK || json.Unmarshal(raw, &status) != nil {
		t.Fatalf("/status: %d, %v, %s", code, err, raw)
	}
	parts := []string{status.Device + " computes"}
	for _, b := range status.Backends {
		words := []string{b.Name + ":"}
		for _, d := range b.Devices {
			words = append(words, d.Name)
		}
		parts = append(parts, strings.TrimSpace(strings.Join(words, " ")+" "+b.Problem))
	}
	return strings.Join(parts, "; ")
}
