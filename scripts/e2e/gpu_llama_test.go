//go:build llama

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// testGPU is the test GPU of a server: its settings, and what goes wrong with it.
type testGPU struct {
	t      *testing.T
	faults string // the file
}

// newTestGPU returns a GPU that the CPU plays and the settings with which an engine finds it. It is the only GPU, also
// where backends of others are installed.
func newTestGPU(t *testing.T) (*testGPU, []string) {
	t.Helper()
	library := os.Getenv("TESTGPU")
	if library == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("TESTGPU isn't set; make test sets it")
		}
		t.Skip(`SKIPPED without a test GPU; run: export TESTGPU="$(scripts/testgpu/build.sh)"`)
	}
	dir := cpuBackends(t)
	if err := os.Symlink(library, filepath.Join(dir, filepath.Base(library))); err != nil {
		t.Fatal(err)
	}
	g := &testGPU{t: t, faults: filepath.Join(t.TempDir(), "faults")}
	return g, []string{"BACKEND_DIR=" + dir, "TESTGPU_FAULTS=" + g.faults}
}

// On a machine with a card these tests are about the test GPU alone.
func TestTheTestGPUIsTheOnlyGPU(t *testing.T) {
	installed := cpuBackends(t)
	if err := os.Symlink("nowhere", filepath.Join(installed, "libggml-another.so")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BACKEND_DIR", installed)
	_, settings := newTestGPU(t)
	dir := strings.TrimPrefix(settings[0], "BACKEND_DIR=")
	found, err := filepath.Glob(filepath.Join(dir, "libggml-*.so"))
	for _, path := range found {
		if name := filepath.Base(path); !strings.HasPrefix(name, "libggml-cpu") && name != filepath.Base(os.Getenv("TESTGPU")) {
			t.Errorf("%s is a backend beside the test GPU's and the CPU's", name)
		}
	}
	if err != nil || len(found) < 2 {
		t.Errorf("%v, %v", found, err)
	}
}

// set says what goes wrong from now on.
func (g *testGPU) set(words string) {
	g.t.Helper()
	written := g.faults + ".new"
	if err := os.WriteFile(written, []byte(words), 0o600); err != nil {
		g.t.Fatal(err)
	}
	if err := os.Rename(written, g.faults); err != nil {
		g.t.Fatal(err)
	}
}

// statusOfDevices is what /status says of devices and backends.
type statusOfDevices struct {
	Device   string
	Backends []struct {
		Name    string
		Devices []struct{ Name string }
		Problem string
	}
}

// devices is the status as "testgpu: TestGPU0 TestGPU1, cpu: CPU", after the backend that computes.
func (s *testServer) devices() (computes, installed string) {
	s.t.Helper()
	_, body, err := s.get("/status")
	var status statusOfDevices
	if err != nil || json.Unmarshal([]byte(body), &status) != nil {
		s.t.Fatalf("/status: %v, %s", err, body)
	}
	var backends []string
	for _, b := range status.Backends {
		words := []string{b.Name + ":"}
		for _, d := range b.Devices {
			words = append(words, d.Name)
		}
		backends = append(backends, strings.TrimSpace(strings.Join(words, " ")+" "+b.Problem))
	}
	return status.Device, strings.Join(backends, ", ")
}

// memoryOfDemo are the devices on which the demo model has anything, by /status, and those with adapters.
func (s *testServer) memoryOfDemo() (names, adapted []string) {
	s.t.Helper()
	_, body, err := s.get("/status")
	var status struct {
		Memory []struct {
			Model   string `json:"base_model"`
			Cells   int    `json:"kv_cells"`
			Devices []struct {
				Name     string
				Weights  int64
				Compute  int64
				Adapters int64
			}
		} `json:"model_memory"`
	}
	if err != nil || json.Unmarshal([]byte(body), &status) != nil || len(status.Memory) != 1 || status.Memory[0].Cells == 0 {
		s.t.Fatalf("/status: %v, %s", err, body)
	}
	for _, d := range status.Memory[0].Devices {
		if d.Weights+d.Compute > 0 {
			names = append(names, d.Name)
		}
		if d.Adapters > 0 {
			adapted = append(adapted, d.Name)
		}
	}
	return names, adapted
}

func TestServerOnGPUs(t *testing.T) {
	for name, c := range map[string]struct {
		settings  []string
		computes  string
		installed string
		planned   string
		adapted   string
		busy      string // a GPU that nothing may open
	}{
		"one":            {[]string{"DEVICE=testgpu"}, "testgpu", "testgpu: TestGPU0, cpu: CPU", "TestGPU0 CPU", "TestGPU0", ""},
		"two":            {[]string{"TESTGPU_DEVICES=2"}, "testgpu", "testgpu: TestGPU0 TestGPU1, cpu: CPU", "TestGPU0 TestGPU1 CPU", "TestGPU0 TestGPU1", ""},
		"one of two":     {[]string{"TESTGPU_DEVICES=2", "DEVICE=TestGPU1"}, "testgpu", "testgpu: TestGPU0 TestGPU1, cpu: CPU", "TestGPU1 CPU", "TestGPU1", "busy 0"},
		"partly":         {[]string{"GPU_LAYERS=2"}, "testgpu", "testgpu: TestGPU0, cpu: CPU", "TestGPU0 CPU", "TestGPU0 CPU", ""},
		"none asked for": {[]string{"GPU_LAYERS=0"}, "cpu", "testgpu: TestGPU0, cpu: CPU", "CPU", "CPU", "busy 0"},
		"the CPU":        {[]string{"DEVICE=cpu"}, "cpu", "testgpu: TestGPU0, cpu: CPU", "CPU", "CPU", "busy 0"},
	} {
		t.Run(name, func(t *testing.T) {
			gpu, settings := newTestGPU(t)
			gpu.set(c.busy)
			s := startServer(t, slices.Concat(settings, c.settings)...)
			for version, want := range map[string]string{"v1.0": "The capital of France is Paris.", "v1.1": "Paris."} {
				if a := s.mustInfer(question("What is the capital of France?", version)); a.Result != want {
					t.Errorf("%s answers %d %q", version, a.Status, a.Result)
				}
			}
			if computes, installed := s.devices(); computes != c.computes || installed != c.installed {
				t.Errorf("%s computes, there is %s; want %s, %s", computes, installed, c.computes, c.installed)
			}
			s.waitFor(failureLimit, "what the versions take", func() bool { // comes with the next catalog
				_, adapted := s.memoryOfDemo()
				return len(adapted) > 0
			})
			planned, adapted := s.memoryOfDemo()
			if got := strings.Join(planned, " "); got != c.planned {
				t.Errorf("the demo lies on %s, want %s", got, c.planned)
			}
			if got := strings.Join(adapted, " "); got != c.adapted {
				t.Errorf("its versions lie on %s, want %s", got, c.adapted)
			}
			if log := s.engine.log.String(); !strings.Contains(log, `msg="memory is planned"`) || !strings.Contains(log, "decided_by=\"the model's context and PARALLEL\"") {
				t.Error("the log doesn't say what was planned")
			}
			for device, wanted := range map[string]bool{"TestGPU0": name != "one of two" && c.computes != "cpu", "TestGPU1": strings.Contains(name, "two")} {
				if wanted {
					s.waitFor(failureLimit, "memory in use on "+device, func() bool { // sampled once a second
						return s.scrape().sum("llm_device_memory_used_bytes", "device", device) > 0
					})
				}
			}
			s.waitFor(failureLimit, "a sample after the load", func() bool { return s.scrape().sum("llm_engine_kv_cells") > 0 })
			if name == "one of two" && s.scrape().sum("llm_device_memory_used_bytes", "device", "TestGPU0") > 0 {
				t.Error("TestGPU0 is in use")
			}
			if c.computes == "cpu" && s.scrape().sum("llm_device_memory_used_bytes", "device", "TestGPU0") > 0 {
				t.Error("the GPU is in use")
			}
		})
	}
}

// A device that is lost in the middle of an answer ends the engine, by an abort of the backend as with CUDA or in good
// order where the backend reports it. The next one finds it again, or computes on the CPU and says so, or refuses to
// start where DEVICE names it.
func TestLostGPU(t *testing.T) {
	story := `{"prompt":"Tell me a story.","base_model":"demo","max_new_tokens":120,"seed":7,"stream":true}`
	read := func(s *testServer, atTenth func()) string {
		text, tokens := "", 0
		status, err := s.stream(t.Context(), story, func(e event) bool {
			text += textOf(e)
			if tokens++; tokens == 10 {
				atTenth()
			}
			return true
		})
		if err != nil || status != 200 {
			t.Errorf("the story: %d, %v", status, err)
		}
		return text
	}
	const reported = "the device doesn't compute any more"
	for name, c := range map[string]struct{ settings, fault, computes, told string }{
		"and comes back":     {"DEVICE=testgpu", "reset slow 10", "testgpu", reported},
		"by an abort":        {"DEVICE=testgpu", "abort slow 10", "testgpu", "testgpu error: an illegal memory access was encountered"},
		"for good":           {"DEVICE=auto", "lost", "cpu", reported},
		"and is insisted on": {"DEVICE=testgpu", "lost", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			gpu, settings := newTestGPU(t)
			s := startServer(t, append(settings, c.settings, "REPLAY_WAIT=2s")...)
			whole := read(s, func() {})
			gpu.set("slow 10")
			if c.computes == "" {
				gpu.set(c.fault)
				s.waitEngineEnd("exit status 64", "the backend testgpu gives no device: testgpu: the device is lost")
				return
			}
			if again := read(s, func() { gpu.set(c.fault) }); again != whole || whole == "" {
				t.Errorf("before\n%q, over the loss\n%q", whole, again)
			}
			s.waitFor(failureLimit, "an engine", func() bool { return s.scrape().sum("llm_engine_up") == 1 })
			if computes, installed := s.devices(); computes != c.computes {
				t.Errorf("%s computes, there is %s", computes, installed)
			}
			if restarts := s.scrape().sum("llm_engine_restarts_total", "reason", "crash"); restarts != 1 {
				t.Errorf("%v restarts", restarts)
			}
			if !strings.Contains(s.engine.log.String(), c.told) {
				t.Errorf("the engine's log has no %q", c.told)
			}
		})
	}
}

// waitEngineEnd asks until the engine's supervisor has ended, with this result and a line in its log.
func (s *testServer) waitEngineEnd(result, line string) {
	s.t.Helper()
	s.waitFor(failureLimit, "an end of the engine", func() bool {
		_, _ = s.infer(s.t.Context(), question("What is the capital of France?", "v1.0"))
		select {
		case <-s.engine.Ended():
			return true
		default:
			return false
		}
	})
	if err := s.engine.Err(); err == nil || err.Error() != result || !strings.Contains(s.engine.log.String(), line) {
		s.t.Errorf("the supervisor ended with %v", err)
	}
}

// A model for which the GPU has no memory is refused with words, and the engine goes on.
func TestModelTooLargeForTheGPU(t *testing.T) {
	_, settings := newTestGPU(t)
	s := newServer(t, append(settings, "DEVICE=testgpu", "TESTGPU_MEMORY=1")...)
	s.startProxy()
	s.waitProxyAnswers()
	s.startEngine()
	s.waitFor(failureLimit, "an engine", func() bool { return s.scrape().sum("llm_engine_up") == 1 })
	if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Status != 503 || a.Error.Type != "out_of_memory" {
		t.Errorf("with 1 MiB: %d %s", a.Status, a.Body)
	}
	if log := s.engine.log.String(); strings.Contains(log, "engine process ended") {
		t.Error("the engine died of it")
	}
}

// While no memory can be had a version that isn't loaded is refused, and what is loaded goes on.
func TestGPUWhoseMemoryEnds(t *testing.T) {
	gpu, settings := newTestGPU(t)
	s := startServer(t, append(settings, "DEVICE=testgpu")...)
	s.mustInfer(question("What is the capital of France?", "v1.0"))
	gpu.set("full")
	if a := s.mustInfer(question("What is the capital of France?", "v1.1")); a.Status != 503 || a.Error.Type != "out_of_memory" {
		t.Errorf("a version for which there is no memory: %d %s", a.Status, a.Body)
	}
	if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Result != "The capital of France is Paris." {
		t.Errorf("the loaded version: %d %s", a.Status, a.Body)
	}
	gpu.set("")
	s.waitFor(failureLimit, "the version once there is memory", func() bool {
		return s.mustInfer(question("What is the capital of France?", "v1.1")).Result == "Paris."
	})
}

// A GPU that takes its time while a model is loaded, as for compiling kernels, doesn't count as hung; one that does in
// a step of which there were others like it is given up.
func TestSlowGPU(t *testing.T) {
	t.Parallel() // most of its time is the GPU's
	gpu, settings := newTestGPU(t)
	gpu.set("slow 7000") // each step of the warm-up
	s := newServer(t, append(settings, "DEVICE=testgpu", "ENGINE_STALL_TIMEOUT=6s", "BACKEND_SAMPLING=off", "PRELOAD=demo")...)
	s.startProxy()
	s.waitProxyAnswers()
	s.startEngine()
	s.waitFor(failureLimit, "the model", func() bool { return s.scrape().sum("llm_engine_kv_cells") > 0 })
	gpu.set("")
	for range 3 { // so that the kinds of steps are known
		if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Result != "The capital of France is Paris." {
			t.Fatalf("after a slow load: %d %s", a.Status, a.Body)
		}
	}
	if log := s.engine.log.String(); strings.Contains(log, "engine process ended") {
		t.Fatal("the engine didn't survive its load")
	}
	gpu.set("slow 120000")
	answered := make(chan *answer, 1)
	go func() {
		a, err := s.infer(t.Context(), question("What is the capital of France?", "v1.0"))
		if err != nil {
			t.Error(err)
		}
		answered <- a
	}()
	s.waitFor(failureLimit, "the end of an engine that hangs", func() bool { return strings.Contains(s.engine.log.String(), "in phase step without progress") })
	gpu.set("")
	if a := <-answered; a == nil || a.Result != "The capital of France is Paris." {
		t.Errorf("the request of the step that hung: %+v", a)
	}
	if stalls := s.scrape().sum("llm_engine_restarts_total", "reason", "stall"); stalls != 1 {
		t.Errorf("%v restarts for a stall", stalls)
	}
}

// The GPU picks candidates, and answers are those of an engine that doesn't. /status says which it is.
func TestSamplingOnTheGPU(t *testing.T) {
	ask := func(way, told string) (answers []string, draws float64) {
		_, settings := newTestGPU(t)
		s := startServer(t, append(settings, "DEVICE=testgpu", "BACKEND_SAMPLING="+way)...)
		for _, parameters := range []string{`"temperature":0`, `"seed":7`, `"seed":8,"temperature":1.5,"top_k":100,"repeat_penalty":1.1`, `"seed":9,"temperature":1,"top_k":0,"top_p":0.9`} {
			a := s.mustInfer(`{"prompt":"Tell me a story.","base_model":"demo","max_new_tokens":60,` + parameters + `}`)
			if a.Status != 200 {
				t.Fatalf("%s: %d %s", parameters, a.Status, a.Body)
			}
			answers = append(answers, a.Result)
		}
		if _, body, err := s.get("/status"); err != nil || !strings.Contains(body, told) {
			t.Errorf("/status doesn't have %s: %v, %s", told, err, body)
		}
		s.waitFor(failureLimit, "metrics of the engine", func() bool { // missing where it didn't tell them in time
			scraped := s.scrape()
			draws = scraped.sum("llm_engine_device_draws_total")
			return scraped.sum("llm_engine_tokens_total", "kind", "generated") > 0
		})
		return answers, draws
	}
	on, onDraws := ask("on", `"sampling":"device","sampling_decided_by":"BACKEND_SAMPLING=on"`)
	off, offDraws := ask("off", `"sampling":"host","sampling_decided_by":"BACKEND_SAMPLING=off"`)
	if !slices.Equal(on, off) {
		t.Errorf("with candidates %q, from rows %q", on, off)
	}
	if onDraws == 0 || offDraws != 0 {
		t.Errorf("draws from candidates: %v, and %v without", onDraws, offDraws)
	}
}
