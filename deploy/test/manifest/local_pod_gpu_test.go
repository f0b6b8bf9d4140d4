package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"

	"tandem/deploy/test/binaries"
)

// builtNative compiles the programs with llama.cpp once, beside those without.
var builtNative = sync.OnceValues(func() (binaries.Native, error) { return binaries.BuildNative(filepath.Join(binariesDir, "native")) })

// newGPUPod prepares a pod on as many GPUs as its engine is given, which the CPU plays (scripts/testgpu). Their backend
// has the name of CUDA's, so that they are what the manifests' DEVICE asks for.
func newGPUPod(t *testing.T, overlay string, gpus int) *localPod {
	t.Helper()
	native, err := builtNative()
	if errors.Is(err, binaries.ErrNoLibrary) && os.Getenv("CI") != "true" {
		t.Skip("SKIPPED: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	backends := t.TempDir()
	links, err := filepath.Glob(filepath.Join(native.Backends, "libggml-cpu*.so"))
	if err != nil || len(links) == 0 {
		t.Fatalf("no backends in %s: %v", native.Backends, err)
	}
	for _, cpu := range links {
		err = errors.Join(err, os.Symlink(cpu, filepath.Join(backends, filepath.Base(cpu))))
	}
	if err = errors.Join(err, os.Symlink(native.TestGPU, filepath.Join(backends, "libggml-cuda.so"))); err != nil {
		t.Fatal(err)
	}
	return preparePod(t, overlay, native.Paths, "BACKEND_DIR="+backends, "LD_LIBRARY_PATH="+native.Backends,
		fmt.Sprint("TESTGPU_DEVICES=", gpus), "STEP_DELAY=20ms")
}

// TestPodOnGPUs starts the pods of the manifests for GPUs as a kubelet does, on one and two of them: the probes pass,
// the answer is right, all GPUs are used, and the loss of the engine's container is a pause.
func TestPodOnGPUs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		overlay string
		gpus    int
	}{{"gpu", 1}, {"two containers on a GPU", 2}} {
		t.Run(fmt.Sprint(c.overlay, ", ", c.gpus), func(t *testing.T) {
			t.Parallel()
			p := newGPUPod(t, c.overlay, c.gpus)
			if c.gpus > 1 { // docs/deploy.md: more than one is another limit
				p.w.engine.Resources.Limits["nvidia.com/gpu"] = resource.MustParse(strconv.Itoa(c.gpus))
			}
			if limit := p.w.engine.Resources.Limits["nvidia.com/gpu"]; limit.Value() != int64(c.gpus) {
				t.Fatalf("the engine is given %v GPUs", limit.Value())
			}
			p.runOnGPUs(c.gpus)
		})
	}
}

func (p *localPod) runOnGPUs(gpus int) {
	t, w := p.t, p.w
	proxy := p.start(w.proxy)
	p.waitProbe(w.proxy, w.proxy.StartupProbe)
	engine := p.start(w.engine)
	p.waitProbe(w.engine, w.engine.StartupProbe)
	p.waitProbe(w.engine, w.engine.LivenessProbe)
	p.waitProbe(w.proxy, w.proxy.ReadinessProbe)
	if got := p.ask("What is the capital of France?", 32); got != "The capital of France is Paris." {
		t.Errorf("answer %q", got)
	}
	p.checkDevices(gpus)
	engine = p.replaceEngine(engine)
	p.waitProbe(w.engine, w.engine.LivenessProbe)
	p.waitProbe(w.proxy, w.proxy.LivenessProbe)
	sendSIGTERM(t, engine)
	engine.waitCleanEnd(t)
	sendSIGTERM(t, proxy)
	proxy.waitCleanEnd(t)
}

// ask returns the answer of the demo model.
func (p *localPod) ask(prompt string, tokens int) string {
	status, body := p.request("POST", "/infer", p.key, fmt.Sprintf(`{"prompt":%q,"adapter_version":"v1.0","seed":7,"max_new_tokens":%d}`, prompt, tokens))
	var answer struct{ Result string }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 {
		p.t.Errorf("%s: %d %s", prompt, status, body)
	}
	return answer.Result
}

// checkDevices asserts that each GPU has weights and is in use, and that nothing is missing.
func (p *localPod) checkDevices(gpus int) {
	var status struct {
		Device string
		Memory []struct {
			Devices []struct {
				Name    string
				Weights int64
			}
		} `json:"model_memory"`
	}
	_, body := p.request("GET", "/status", "", "")
	if err := json.Unmarshal([]byte(body), &status); err != nil || status.Device != "testgpu" || len(status.Memory) != 1 {
		p.t.Fatalf("/status: %v, %s", err, body)
	}
	used := make(map[string]bool)
	for _, d := range status.Memory[0].Devices {
		used[d.Name] = d.Weights > 0
	}
	for i := range gpus {
		if !used[fmt.Sprint("TestGPU", i)] {
			p.t.Errorf("TestGPU%d has no weights: %s", i, body)
		}
	}
	if n := p.metric(`llm_engine_compute_info{backend="testgpu",missing="none",setting="cuda"}`); n != 1 {
		p.t.Errorf("the setting, or what computes, is another than the manifests say: %v", n)
	}
}

// replaceEngine kills the engine's container in the middle of an answer and starts it again, as a kubelet does.
func (p *localPod) replaceEngine(engine *process) *process {
	const story = "Tell me a story."
	want := p.ask(story, 120)
	before := p.metric("tokens_generated_total")
	got := make(chan string, 1)
	go func() { got <- p.ask(story, 120) }()
	p.eventually("an answer is under way", func() error {
		if n := p.metric("tokens_generated_total") - before; n < 10 {
			return fmt.Errorf("%v tokens", n)
		}
		return nil
	})
	if err := engine.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := <-engine.ended; !errors.As(err, &exit) || exit.ExitCode() != -1 {
		p.t.Errorf("the killed engine ended with %v", err)
	}
	if err := p.runProbe(p.w.proxy, p.w.proxy.LivenessProbe); err != nil {
		p.t.Errorf("without an engine the proxy isn't alive: %v", err)
	}
	next := p.start(p.w.engine)
	p.waitProbe(p.w.engine, p.w.engine.StartupProbe)
	select {
	case answer := <-got:
		if answer != want || want == "" {
			p.t.Errorf("undisturbed\n%q, over a kill\n%q", want, answer)
		}
	case <-time.After(waitTimeout):
		p.t.Fatal("the answer never ends")
	}
	if n := p.metric(`llm_requests_replayed_total{result="resumed"}`); n != 1 {
		p.t.Errorf("%v requests went on at another engine", n)
	}
	return next
}

// metric is the sum of a metric's series whose line begins so.
func (p *localPod) metric(begins string) (sum float64) {
	_, page := p.request("GET", p.w.value(p.w.proxy, "METRICS_PATH"), "", "")
	for _, m := range regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(begins)+`(?:{[^}]*})? (\S+)$`).FindAllStringSubmatch(page, -1) {
		value, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			p.t.Errorf("metric %s: %v", begins, err)
		}
		sum += value
	}
	return sum
}

// A pod of the manifests for GPUs that gets none doesn't start, and says why.
func TestPodWithoutItsGPU(t *testing.T) {
	t.Parallel()
	p := newGPUPod(t, "gpu", 0)
	p.start(p.w.proxy)
	p.waitProbe(p.w.proxy, p.w.proxy.StartupProbe)
	engine := p.start(p.w.engine)
	var exit *exec.ExitError
	select {
	case err := <-engine.ended:
		if !errors.As(err, &exit) || exit.ExitCode() != 64 || !strings.Contains(engine.log.String(), "variable DEVICE: the backend testgpu gives no device") {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(waitTimeout):
		t.Fatal("it still runs")
	}
	if err := p.runProbe(p.w.engine, p.w.engine.StartupProbe); err == nil {
		t.Error("its startup probe passes")
	}
	if err := p.runProbe(p.w.proxy, p.w.proxy.ReadinessProbe); err == nil {
		t.Error("the pod is ready")
	}
}
