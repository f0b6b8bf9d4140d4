package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// story is a request with a long answer, which doesn't depend on anything but the model.
const story = `{"prompt":"Tell me a story.","max_new_tokens":120,"base_model":"demo","adapter_version":"v1.0"%s}`

func TestPod(t *testing.T) {
	// Few sequences at a time and slow steps, so that requests are under way and others wait when something happens.
	r := play(t, plan{name: "tandem", keys: writeKeys(t), settings: map[string]string{"STEP_DELAY": "20ms", "PARALLEL": "4", "RATE_LIMIT": "off"}})
	t.Run("liveness probes pass", func(t *testing.T) {
		for name := range r.containers {
			if err := r.probe(name, "livenessProbe"); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("the images' health checks pass", r.healthChecks)
	t.Run("documented commands answer", r.documentedCommands)
	t.Run("nobody is root", r.nobodyIsRoot)
	t.Run("root file systems are read-only", r.readOnlyRoots)
	t.Run("an engine that is killed is a pause", r.killedEngine)
}

// healthChecks runs the HEALTHCHECK of both images as Docker would; kube play passes it over.
func (r *pod) healthChecks(t *testing.T) {
	for name := range r.containers {
		image := mustPodman(t, "inspect", "-f", "{{.Image}}", r.container(name))
		raw := mustPodman(t, "image", "inspect", "-f", "{{json .HealthCheck.Test}}", image)
		var test []any
		if err := json.Unmarshal([]byte(raw), &test); err != nil || len(test) < 2 || test[0] != "CMD" {
			t.Errorf("%s: the image's health check is %s: %v", name, raw, err)
			continue
		}
		if out, err := r.exec(name, test[1:]); err != nil || out != "ok" {
			t.Errorf("%s: health check says %q, %v", name, out, err)
		}
	}
}

// nobodyIsRoot looks at every process of both containers. The container that holds the pod's network is podman's own.
func (r *pod) nobodyIsRoot(t *testing.T) {
	user := fmt.Sprint(userID)
	for name := range r.containers {
		for _, pid := range processes(t, r.container(name)) {
			status := statusOf(t, pid)
			for _, field := range []string{"Uid", "Gid"} {
				for id := range strings.FieldsSeq(status[field]) {
					if id != user {
						t.Errorf("%s: process %s (%s) has %s %s", name, pid, status["Name"], field, status[field])
					}
				}
			}
			if status["NoNewPrivs"] != "1" || status["Seccomp"] != "2" || strings.Trim(status["CapBnd"], "0") != "" {
				t.Errorf("%s: process %s (%s) may gain privileges: NoNewPrivs %s, Seccomp %s, CapBnd %s",
					name, pid, status["Name"], status["NoNewPrivs"], status["Seccomp"], status["CapBnd"])
			}
		}
	}
}

// processes are all of a container, seen from the host: those in its PID namespace.
func processes(t *testing.T, container string) (pids []string) {
	t.Helper()
	first := mustPodman(t, "inspect", "-f", "{{.State.Pid}}", container)
	namespace, err := os.Readlink("/proc/" + first + "/ns/pid")
	if err != nil {
		t.Fatalf("container %s: %v", container, err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == namespace {
			pids = append(pids, strings.Split(link, "/")[2])
		}
	}
	if len(pids) == 0 {
		t.Fatalf("container %s has no process", container)
	}
	return pids
}

func statusOf(t *testing.T, pid string) map[string]string {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	status := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		status[name] = strings.TrimSpace(value)
	}
	return status
}

// readOnlyRoots tries to write where a program's own files are. Root on the host may write anywhere unless the mount forbids it.
func (r *pod) readOnlyRoots(t *testing.T) {
	for name := range r.containers {
		pids := processes(t, r.container(name))
		for _, dir := range []string{"/", "/etc", "/usr/local/bin"} {
			path := filepath.Join("/proc", pids[0], "root", dir, "written-by-a-test")
			f, err := os.Create(path)
			if err == nil {
				f.Close()
				os.Remove(path)
			}
			if !errors.Is(err, syscall.EROFS) {
				t.Errorf("%s: writing to %s: %v", name, dir, err)
			}
		}
	}
}

// killedEngine kills the whole engine container in the middle of a stream, with requests under way, some waiting and one that comes
// while there is no engine, and starts it again as the kubelet does. Every answer must be what it is without that.
func (r *pod) killedEngine(t *testing.T) {
	ctx := t.Context()
	streamed := fmt.Sprintf(story, `,"stream":true`)
	want, err := r.stream(ctx, streamed, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	const others = 12
	var asked sync.WaitGroup
	failures := make(chan error, others+1)
	ask := func() {
		defer asked.Done()
		switch a, err := r.ask(ctx, fmt.Sprintf(story, "")); {
		case err != nil:
			failures <- err
		case a.Result != want:
			failures <- fmt.Errorf("answer %q, want %q", a.Result, want)
		}
	}
	got, err := r.stream(ctx, streamed, 10, func() {
		asked.Add(others)
		for range others {
			go ask()
		}
		r.await(t, "requests are waiting", 10*time.Second, func() error { return r.atLeast("llm_requests_waiting", 1) })
		mustPodman(t, "kill", "-s", "KILL", r.container(engineName))
		if code := r.exitCode(t, engineName); code != 128+int(syscall.SIGKILL) {
			t.Errorf("the killed engine has exit status %d", code)
		}
		asked.Add(1)
		go ask()
		if err := r.probe(proxyName, "readinessProbe"); err != nil {
			t.Errorf("a short absence of the engine turns the pod unready: %v", err)
		}
		mustPodman(t, "start", r.container(engineName))
	})
	if err != nil || got != want {
		t.Errorf("stream over a kill: %q, %v; want %q", got, err, want)
	}
	asked.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	if err := r.atLeast(`llm_requests_replayed_total{result="resumed"}`, 1); err != nil {
		t.Errorf("nothing was replayed, so this test shows nothing: %v", err)
	}
}

// atLeast fails while a sample of the metrics page is lower, or not there.
func (r *pod) atLeast(series string, low float64) error {
	status, page, err := r.do(context.Background(), "GET", "/prometheus", "")
	if err != nil {
		return fmt.Errorf("scrape: %w", err)
	}
	for line := range strings.Lines(string(page)) {
		var value float64
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				return fmt.Errorf("sample %q: %w", line, err)
			}
			if value >= low {
				return nil
			}
			return fmt.Errorf("%s is %v", series, value)
		}
	}
	return fmt.Errorf("status %d, no series %s", status, series)
}

// TestDrain ends a pod as the kubelet does: all preStop hooks, then SIGTERM to every container. Steps are slow enough for the stream to
// outlast drain_delay.
func TestDrain(t *testing.T) {
	r := play(t, plan{name: "tandem-drain", keys: writeKeys(t), settings: map[string]string{"STEP_DELAY": "100ms", "RATE_LIMIT": "off"}})
	ctx := t.Context()
	want, err := r.ask(ctx, fmt.Sprintf(story, ""))
	if err != nil {
		t.Fatal(err)
	}
	var signalled time.Time
	got, err := r.stream(ctx, fmt.Sprintf(story, `,"stream":true`), 3, func() {
		for name := range r.containers {
			if err := r.preStop(name); err != nil {
				t.Error(err)
			}
		}
		if err := r.probe(proxyName, "readinessProbe"); err == nil {
			t.Error("a pod that drains is ready")
		}
		signalled = time.Now()
		for name := range r.containers {
			mustPodman(t, "kill", "-s", "TERM", r.container(name))
		}
	})
	if err != nil || got != want.Result {
		t.Errorf("stream over a drain: %q, %v; want %q", got, err, want.Result)
	}
	const drainDelay = 5 * time.Second // of the overlay's configuration file
	if lasted := time.Since(signalled); lasted < drainDelay {
		t.Errorf("the stream ended %v after SIGTERM; it must outlast the delay for this test to show anything", lasted)
	}
	for name := range r.containers {
		if code := r.exitCode(t, name); code != 0 {
			t.Errorf("%s ends with status %d", name, code)
		}
	}
}
