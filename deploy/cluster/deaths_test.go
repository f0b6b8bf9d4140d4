package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process returns the id of the pod's process with this command line, as the node sees it.
func (p pod) process(t *testing.T, words ...string) int {
	t.Helper()
	want := []byte(strings.Join(words, "\x00"))
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		line, err := os.ReadFile(file)
		if err != nil || !bytes.HasPrefix(line, want) {
			continue
		}
		if groups, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup")); err == nil && strings.Contains(string(groups), p.Metadata.UID) {
			id, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
	}
	t.Fatalf("pod %s has no process %q", p.Metadata.Name, words)
	return 0
}

var (
	supervisorCommand = []string{"/usr/local/bin/tandem-engine", "supervise"}
	engineCommand     = []string{"/usr/local/bin/tandem-engine", "serve"}
	proxyCommand      = []string{"/usr/local/bin/tandem-proxy", "serve"}
)

func (p pod) signal(t *testing.T, signal syscall.Signal, command ...string) {
	t.Helper()
	if err := syscall.Kill(p.process(t, command...), signal); err != nil {
		t.Fatalf("signal %v to %q: %v", signal, command, err)
	}
}

// hang stops a process, once more if that was just being replaced: on a machine without time for it, a supervisor may
// take its engine for hung by itself. Until the test ends it is stopped again when somebody else has continued it.
func (p pod) hang(t *testing.T, command ...string) {
	t.Helper()
	var id int
	eventually(t, "the process is stopped", 30*time.Second, func() error {
		id = p.process(t, command...)
		if err := syscall.Kill(id, syscall.SIGSTOP); err != nil {
			return err
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", id))
		if err == nil && !strings.Contains(string(status), "\nState:\tT") {
			err = fmt.Errorf("process %d of %q isn't stopped", id, command)
		}
		return err
	})
	done, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(done)
		<-stopped
	})
	go func() {
		defer close(stopped)
		for syscall.Kill(id, syscall.SIGSTOP) == nil { // until it is dead
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
}

// wantRestarts fails unless the pod's proxy has counted so many restarts of its engine for that reason, and no others.
func (p pod) wantRestarts(t *testing.T, reason string, want float64) {
	t.Helper()
	const metric = "llm_engine_restarts_total"
	ofReason, err := scrape(t.Context(), p.Status.PodIP, metric, `reason="`+reason+`"`)
	if err != nil {
		t.Error(err)
		return
	}
	all, err := scrape(t.Context(), p.Status.PodIP, metric, "")
	if err != nil || ofReason != want || all != want {
		t.Errorf("%v restarts count as %s, and %v in all, want %v: %v", ofReason, reason, all, want, err)
	}
}

// readyAgain polls the pod and reports how long it was unready before it was ready with this many restarts of the
// container.
func (d *deployment) readyAgain(t *testing.T, name, container string, restarts int, within time.Duration) (unready time.Duration) {
	t.Helper()
	var since time.Time
	eventually(t, fmt.Sprintf("%s is ready with %d restarts of %s", name, restarts, container), within, func() error {
		all, err := d.listPods()
		if err != nil {
			return err
		}
		for _, p := range all {
			if p.Metadata.Name != name {
				continue
			}
			if !p.ready() && since.IsZero() {
				since = time.Now()
			}
			if n := p.container(container).RestartCount; !p.ready() || n != restarts {
				return fmt.Errorf("ready %v, %d restarts", p.ready(), n)
			}
			if !since.IsZero() {
				unready = time.Since(since)
			}
			return nil
		}
		return fmt.Errorf("there is no pod %s", name)
	})
	return unready
}

// onlyNewConnectionsRefused fails where anything failed but new connections, while the only pod was unready.
func (l *load) onlyNewConnectionsRefused(t *testing.T, what string, within time.Duration) summary {
	t.Helper()
	s := l.end()
	for _, o := range l.outcomes {
		if o.kind != answered && (o.keepAlive || o.kind != "connection refused") {
			t.Errorf("%s: keep-alive %v, after %v: %s", what, o.keepAlive, o.began, o.kind)
		}
	}
	if span := s.failing(); span > within {
		t.Errorf("%s: connections were refused for %v, at most %v", what, span, within)
	}
	return s
}

// TestEngineProcessKilled kills the engine three times under load. Its supervisor starts the next one: no request
// fails, no container is restarted, and the only pod stays ready.
func TestEngineProcessKilled(t *testing.T) {
	d := deploy(t, "engine-process", variant{replicas: 1, engine: map[string]string{"STEP_DELAY": "20ms"}})
	p := d.onlyPod(t)
	want := d.mustAsk(t, storyRequest)
	load := d.startLoad(t, capitalRequest, 3, 3)
	for range 3 {
		got, err := stream(t.Context(), d.url, storyRequest, 20, func() { p.signal(t, syscall.SIGKILL, engineCommand...) })
		if err != nil || got != want {
			t.Errorf("a stream whose engine is killed: %q, %v; want %q", got, err, want)
		}
	}
	s := load.end()
	if s.failures() > 0 || s.answered == 0 {
		t.Errorf("clients while engines are killed: %v", s)
	}
	if after := d.onlyPod(t); after.container(engineName).RestartCount != 0 || !after.ready() {
		t.Errorf("the pod is ready %v with %d restarts of the container, want true and none", after.ready(), after.container(engineName).RestartCount)
	}
	p.wantRestarts(t, "crash", 3)
	record("the engine's process is killed three times under load, one replica", "no failed request, no unready pod", "%v", s)
}

// TestEngineContainerKilled kills the engine's container twice under load. The kubelet starts it again, the second time
// after its pause of ten seconds. What the proxy has taken goes on; new connections are refused while the only pod is
// unready.
func TestEngineContainerKilled(t *testing.T) {
	d := deploy(t, "engine-container", variant{replicas: 1, engine: map[string]string{"STEP_DELAY": "20ms"}})
	p := d.onlyPod(t)
	want := d.mustAsk(t, storyRequest)
	for i, within := range []time.Duration{6 * time.Second, 30 * time.Second} {
		what := []string{"the engine's container is killed", "the same again at once"}[i]
		load := d.startLoad(t, capitalRequest, 3, 3)
		var unready time.Duration
		got, err := stream(t.Context(), d.url, storyRequest, 20, func() {
			p.signal(t, syscall.SIGKILL, supervisorCommand...)
			unready = d.readyAgain(t, p.Metadata.Name, engineName, i+1, time.Minute)
		})
		if err != nil || got != want {
			t.Errorf("%s: the stream: %q, %v; want %q", what, got, err, want)
		}
		s := load.onlyNewConnectionsRefused(t, what, within)
		record(what+" under load, one replica", fmt.Sprintf("streams whole; only new connections refused, for %v", within),
			"%v; unready for %.1f s", s, unready.Seconds())
		p.wantRestarts(t, "crash", float64(i+1))
		if unready > within {
			t.Errorf("%s: the pod was unready for %v, at most %v", what, unready, within)
		}
	}
}

// TestProxyKilled kills one of two proxies under load. Its requests are lost, as the docs say, and nobody else's; the
// engine beside it stays.
func TestProxyKilled(t *testing.T) {
	const within = 15 * time.Second
	d := deploy(t, "proxy", variant{replicas: 2, engine: map[string]string{"STEP_DELAY": "20ms"}})
	p := d.pods(t)[0]
	load := d.startLoad(t, capitalRequest, 4, 4)
	p.signal(t, syscall.SIGKILL, proxyCommand...)
	began := time.Now()
	d.readyAgain(t, p.Metadata.Name, proxyName, 1, startTimeout)
	atMost(t, "the proxy of one of two pods is killed: ready again", within, time.Since(began))
	s := load.end()
	for kind := range s.failed {
		if kind != "connection cut" && kind != "connection refused" {
			t.Errorf("clients while a proxy is killed: %v", s)
		}
	}
	for _, p := range d.pods(t) {
		if n := p.container(engineName).RestartCount; n != 0 {
			t.Errorf("the engine of %s was restarted %d times", p.Metadata.Name, n)
		}
	}
	record("the same: its clients", "connections cut or refused until the Service leaves the pod out", "%v", s)
}

// TestHang stops supervisor and engine, as a driver may that never returns. The kubelet's liveness probe finds it and
// has the container killed; a stream goes on in the next engine.
func TestHang(t *testing.T) {
	t.Parallel()
	const within = 2 * time.Minute
	d := deploy(t, "hang", variant{replicas: 1, engine: map[string]string{"STEP_DELAY": "20ms"}})
	p := d.onlyPod(t)
	want := d.mustAsk(t, storyRequest)
	got, err := stream(t.Context(), d.url, storyRequest, 20, func() {
		p.hang(t, supervisorCommand...)
		p.hang(t, engineCommand...)
		began := time.Now()
		d.readyAgain(t, p.Metadata.Name, engineName, 1, startTimeout)
		atMost(t, "supervisor and engine hang: replaced and ready", within, time.Since(began))
	})
	p.wantRestarts(t, "stall", 1)
	if err != nil || got != want {
		t.Errorf("a stream whose engine hangs: %q, %v; want %q", got, err, want)
	}
}

// TestEngineImageReplaced changes the engine's image in a running pod while a stream runs. The old engine finishes it;
// what comes meanwhile waits.
func TestEngineImageReplaced(t *testing.T) {
	const within = 6 * time.Second
	d := deploy(t, "engine-image", variant{replicas: 1, engine: map[string]string{"STEP_DELAY": "100ms"}})
	const image, next = "docker.io/library/llm-inference-engine:1.0.0-cpu", "docker.io/library/llm-inference-engine:1.0.1-cpu"
	if out, err := exec.CommandContext(t.Context(), "ctr", "images", "tag", "--force", image, next).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p := d.onlyPod(t)
	want := d.mustAsk(t, storyRequest)
	load := d.startLoad(t, capitalRequest, 3, 3)
	var unready time.Duration
	got, err := stream(t.Context(), d.url, storyRequest, 3, func() {
		d.kubectl(t, "set", "image", "pod/"+p.Metadata.Name, "engine=llm-inference-engine:1.0.1-cpu")
		unready = d.readyAgain(t, p.Metadata.Name, engineName, 1, startTimeout) // the stream waits to be read
	})
	if err != nil || got != want {
		t.Errorf("a stream whose engine gets another image: %q, %v; want %q", got, err, want)
	}
	s := load.onlyNewConnectionsRefused(t, "the engine's image is replaced", within)
	p.wantRestarts(t, "upgrade", 1)
	record("`set image` of the engine alone under load, one replica", fmt.Sprintf("streams whole; only new connections refused, for %v", within),
		"%v; unready for %.1f s", s, unready.Seconds())
}

// TestKeyReplaced replaces the Secret. The proxies notice without a restart.
func TestKeyReplaced(t *testing.T) {
	t.Parallel()
	const within = 3 * time.Minute
	d := deploy(t, "key", variant{replicas: 1})
	d.setKey(t, "another-key")
	took := eventually(t, "the new key is good", within, func() error {
		_, err := ask(context.Background(), newClient(false), d.url, "another-key", capitalRequest)
		return err
	})
	if _, err := ask(t.Context(), newClient(false), d.url, apiKey, capitalRequest); err == nil || kindOf(err) != "401 unauthorized" {
		t.Errorf("the old key: %v, want that it is refused", err)
	}
	if p := d.onlyPod(t); p.container(proxyName).RestartCount != 0 {
		t.Errorf("the proxy was restarted %d times", p.container(proxyName).RestartCount)
	}
	atMost(t, "a key is replaced: the new one is good, the old one refused", within, took)
}
