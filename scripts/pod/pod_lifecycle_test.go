package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// storyRequest is a request with a long answer that depends only on the model.
const storyRequest = `{"prompt":"Tell me a story.","max_new_tokens":120,"base_model":"demo","adapter_version":"v1.0"%s}`

func TestPod(t *testing.T) {
	// Few sequences at a time and slow steps: when the engine is killed, some requests run and others wait.
	p := startPod(t, podConfig{name: "tandem", keys: writeKeyFolder(t), settings: map[string]string{"STEP_DELAY": "20ms", "PARALLEL": "4", "RATE_LIMIT": "off"}})
	t.Run("liveness probes pass", func(t *testing.T) {
		for name := range p.containers {
			if err := p.probe(name, "livenessProbe"); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("the images' health checks pass", p.healthChecksPass)
	t.Run("documented commands answer", p.readmeCommandsAnswer)
	t.Run("nobody is root", p.noProcessIsRoot)
	t.Run("root file systems are read-only", p.rootsAreReadOnly)
	t.Run("an engine that is killed is a pause", p.engineIsReplacedAfterKill)
}

// healthChecksPass runs the HEALTHCHECK of both images as Docker would; podman kube play ignores it.
func (p *pod) healthChecksPass(t *testing.T) {
	for name := range p.containers {
		image := mustPodman(t, "inspect", "-f", "{{.Image}}", p.containerName(name))
		raw := mustPodman(t, "image", "inspect", "-f", "{{json .HealthCheck.Test}}", image)
		var test []any
		if err := json.Unmarshal([]byte(raw), &test); err != nil || len(test) < 2 || test[0] != "CMD" {
			t.Errorf("%s: the image's health check is %s: %v", name, raw, err)
			continue
		}
		if out, err := p.exec(name, test[1:]); err != nil || out != "ok" {
			t.Errorf("%s: health check says %q, %v", name, out, err)
		}
	}
}

// engineIsReplacedAfterKill kills the whole engine container in the middle of a stream, while requests run and others
// wait, sends one more request while there is no engine, and starts the container again as the kubelet does. Every
// answer must be the same as without the kill.
func (p *pod) engineIsReplacedAfterKill(t *testing.T) {
	ctx := t.Context()
	streamed := fmt.Sprintf(storyRequest, `,"stream":true`)
	want, err := p.stream(ctx, streamed, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	const others = 12
	var asked sync.WaitGroup
	failures := make(chan error, others+1)
	ask := func() {
		defer asked.Done()
		switch a, err := p.ask(ctx, fmt.Sprintf(storyRequest, "")); {
		case err != nil:
			failures <- err
		case a.Result != want:
			failures <- fmt.Errorf("answer %q, want %q", a.Result, want)
		}
	}
	got, err := p.stream(ctx, streamed, 10, func() {
		asked.Add(others)
		for range others {
			go ask()
		}
		p.eventually(t, "requests are waiting", 10*time.Second, func() error { return p.checkMetricAtLeast("llm_requests_waiting", 1) })
		mustPodman(t, "kill", "-s", "KILL", p.containerName(engineName))
		if code := p.exitCode(t, engineName); code != 128+int(syscall.SIGKILL) {
			t.Errorf("the killed engine has exit status %d", code)
		}
		asked.Add(1)
		go ask()
		if err := p.probe(proxyName, "readinessProbe"); err != nil {
			t.Errorf("a short absence of the engine turns the pod unready: %v", err)
		}
		mustPodman(t, "start", p.containerName(engineName))
	})
	if err != nil || got != want {
		t.Errorf("stream over a kill: %q, %v; want %q", got, err, want)
	}
	asked.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	if err := p.checkMetricAtLeast(`llm_requests_replayed_total{result="resumed"}`, 1); err != nil {
		t.Errorf("nothing was replayed, so this test shows nothing: %v", err)
	}
}

// checkMetricAtLeast returns an error when a sample of the metrics is lower, or missing.
func (p *pod) checkMetricAtLeast(series string, minimum float64) error {
	status, page, err := p.request(context.Background(), "GET", "/prometheus", "")
	if err != nil {
		return fmt.Errorf("scrape: %w", err)
	}
	for line := range strings.Lines(string(page)) {
		var value float64
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				return fmt.Errorf("sample %q: %w", line, err)
			}
			if value >= minimum {
				return nil
			}
			return fmt.Errorf("%s is %v", series, value)
		}
	}
	return fmt.Errorf("status %d, no series %s", status, series)
}

// TestDrain ends a pod as the kubelet does: all preStop hooks, then SIGTERM to every container. Steps are slow enough
// for the stream to outlast drain_delay.
func TestDrain(t *testing.T) {
	p := startPod(t, podConfig{name: "tandem-drain", keys: writeKeyFolder(t), settings: map[string]string{"STEP_DELAY": "100ms", "RATE_LIMIT": "off"}})
	ctx := t.Context()
	want, err := p.ask(ctx, fmt.Sprintf(storyRequest, ""))
	if err != nil {
		t.Fatal(err)
	}
	var signalled time.Time
	got, err := p.stream(ctx, fmt.Sprintf(storyRequest, `,"stream":true`), 3, func() {
		for name := range p.containers {
			if err := p.preStop(name); err != nil {
				t.Error(err)
			}
		}
		if err := p.probe(proxyName, "readinessProbe"); err == nil {
			t.Error("a pod that drains is ready")
		}
		signalled = time.Now()
		for name := range p.containers {
			mustPodman(t, "kill", "-s", "TERM", p.containerName(name))
		}
	})
	if err != nil || got != want.Result {
		t.Errorf("stream over a drain: %q, %v; want %q", got, err, want.Result)
	}
	const drainDelay = 5 * time.Second // of the overlay's configuration file
	if lasted := time.Since(signalled); lasted < drainDelay {
		t.Errorf("the stream ended %v after SIGTERM; it must outlast the delay for this test to show anything", lasted)
	}
	for name := range p.containers {
		if code := p.exitCode(t, name); code != 0 {
			t.Errorf("%s ends with status %d", name, code)
		}
	}
}
