//go:build llama

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cpuBackends returns a directory of links to the engine's backends for CPUs, to which others can be added. Those for
// GPUs stay away: tests name what is there, and one that is written to would be the installed one.
func cpuBackends(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	given, err := filepath.Glob(filepath.Join(os.Getenv("BACKEND_DIR"), "libggml-cpu*.so"))
	if err != nil || len(given) == 0 {
		t.Fatalf("no backends in BACKEND_DIR=%s: %v", os.Getenv("BACKEND_DIR"), err)
	}
	for _, path := range given {
		if err := os.Symlink(path, filepath.Join(dir, filepath.Base(path))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// brokenCUDA is a directory of backends in which CUDA's can't be loaded.
func brokenCUDA(t *testing.T) string {
	t.Helper()
	dir := cpuBackends(t)
	if err := os.WriteFile(filepath.Join(dir, "libggml-cuda.so"), []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The backend of a build with CUDA, of which BACKEND_DIR is the only copy, is left as it is.
func TestTheInstalledCUDAIsNotWrittenTo(t *testing.T) {
	const content = "an hour of compiling"
	dir := cpuBackends(t)
	installed := filepath.Join(dir, "libggml-cuda.so")
	if err := os.WriteFile(installed, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BACKEND_DIR", dir)
	brokenCUDA(t)
	if got, err := os.ReadFile(installed); err != nil || string(got) != content {
		t.Errorf("%s holds %q, %v", installed, got, err)
	}
}

// A backend for GPUs that can't be loaded is told by the log, /status and the metrics while the CPU computes.
func TestAGPUThatIsMissingIsTold(t *testing.T) {
	s := startServer(t, "BACKEND_DIR="+brokenCUDA(t))
	s.mustInfer(question("What is the capital of France?", "v1.0"))
	var status struct {
		Device   string
		Backends []struct {
			Name    string
			Devices []struct{ Name string }
			Problem string
		}
	}
	if _, body, err := s.get("/status"); err != nil || json.Unmarshal([]byte(body), &status) != nil {
		t.Fatalf("/status: %v, %s", err, body)
	}
	if b := status.Backends; status.Device != "cpu" || len(b) != 2 || b[0].Name != "cuda" || len(b[0].Devices) != 0 ||
		!strings.Contains(b[0].Problem, "file too short") || b[1].Name != "cpu" || len(b[1].Devices) != 1 || b[1].Problem != "" {
		t.Errorf("/status: %+v", status)
	}
	s.waitFor(failureLimit, "series that tells that the CPU computes in place of a GPU", func() bool {
		_, page, err := s.get("/prometheus")
		return err == nil && strings.Contains(page, `llm_engine_compute_info{backend="cpu",missing="cuda",setting="auto"} 1`)
	})
	for _, want := range []string{`msg="backend gives no device" program=engine name=cuda`, "the CPU computes, since no accelerator is there"} {
		if !strings.Contains(s.engine.log.String(), want) {
			t.Errorf("the engine's log has no %q", want)
		}
	}
}

// With DEVICE=cuda the engine refuses to start in that case, and its supervisor doesn't try again.
func TestAGPUThatIsNamedMustBeThere(t *testing.T) {
	s := newServer(t, "DEVICE=cuda", "BACKEND_DIR="+brokenCUDA(t))
	s.startProxy()
	s.startEngine()
	select {
	case <-s.engine.Ended():
	case <-time.After(failureLimit):
		t.Fatal("the engine goes on")
	}
	text := s.engine.log.String()
	if err := s.engine.Err(); err == nil || err.Error() != "exit status 64" || strings.Count(text, "engine process started") != 1 ||
		!strings.Contains(text, "variable DEVICE: the backend cuda gives no device") || !strings.Contains(text, "file too short") {
		t.Errorf("the supervisor ended with %v", err)
	}
}
