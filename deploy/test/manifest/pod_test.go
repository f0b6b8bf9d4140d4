package manifest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	core "k8s.io/api/core/v1"

	"tandem/deploy/test/programs"
)

// limit is the patience of this test, for steps that take moments.
const limit = 30 * time.Second

// pod is a pod without containers: its two programs as processes of this machine, with everything that the manifests tell them. Paths
// lie below a directory, the port is a free one, and the engine is a mock.
type pod struct {
	t     *testing.T
	w     *workload
	dir   string
	built programs.Built
	url   string
	key   string
	port  string
}

// built compiles the programs once; TestMain removes them.
var built = sync.OnceValues(func() (programs.Built, error) { return programs.Build(binDir) })

var binDir string

func TestMain(m *testing.M) {
	var err error
	if binDir, err = os.MkdirTemp("", "programs"); err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the programs:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(binDir)
	os.Exit(code)
}

var mountPoints = []string{"/etc/tandem-keys", "/etc/tandem", "/run/tandem", "/models", "/tmp"}

// inside moves every path of a text below the pod's directory.
func (p *pod) inside(text string) string {
	for i, m := range mountPoints {
		text = strings.ReplaceAll(text, m, fmt.Sprintf("\x00%d", i))
	}
	for i, m := range mountPoints {
		text = strings.ReplaceAll(text, fmt.Sprintf("\x00%d", i), p.dir+m)
	}
	return text
}

func newPod(t *testing.T, overlay string) *pod {
	t.Helper()
	s, err := Decode([]byte(render(t)[overlay]))
	if err != nil {
		t.Fatal(err)
	}
	w, err := newWorkload(s)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "pod") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &pod{t: t, w: w, dir: dir}
	for _, m := range mountPoints {
		if err := os.MkdirAll(dir+m, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if p.built, err = built(); err != nil {
		t.Fatal(err)
	}
	text, err := w.configText()
	if err != nil {
		t.Fatal(err)
	}
	p.write("/etc/tandem/"+configFile, p.inside(text))
	p.makeKey()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.url, p.port = "http://"+ln.Addr().String(), fmt.Sprint(ln.Addr().(*net.TCPAddr).Port)
	ln.Close()
	return p
}

func (p *pod) write(path, text string) {
	if err := os.WriteFile(p.dir+path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// makeKey makes the Secret's content as docs/deploy.md says.
func (p *pod) makeKey() {
	c := exec.Command("sh", "-c", `{ echo keys:; "$0" keys new team-a; }`, p.built.Proxy)
	var secret bytes.Buffer
	c.Stderr = &secret
	entries, err := c.Output()
	if err != nil {
		p.t.Fatal(err)
	}
	p.key, _, _ = strings.Cut(secret.String(), "\n")
	p.write("/etc/tandem-keys/"+keysFile, string(entries))
}

// command is one of a container's, in the container's environment.
func (p *pod) command(ctx context.Context, c *core.Container, words ...string) *exec.Cmd {
	program := p.built.Proxy
	if c.Name == engineName {
		program = p.built.Engine
	}
	switch words[0] { // what an image's entry point is, and where its program lies
	case "/usr/local/bin/tandem-proxy", "/usr/local/bin/tandem-engine":
		if filepath.Base(words[0]) != filepath.Base(program) {
			p.t.Fatalf("container %s has no %s", c.Name, words[0])
		}
		words = words[1:]
	}
	cmd := exec.CommandContext(ctx, program, words...)
	cmd.Env = []string{"TMPDIR=" + p.dir + "/tmp", "HOST=127.0.0.1", "PORT=" + p.port, "RATE_LIMIT=off", "ENGINE_MOCK=true", "MOCK_TOKEN_DELAY=50ms"}
	for _, e := range c.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+p.inside(e.Value))
	}
	return cmd
}

// process is a running container.
type process struct {
	cmd   *exec.Cmd
	log   *logBuffer
	ended chan error
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (p *pod) start(c *core.Container) *process {
	x := &process{cmd: p.command(p.t.Context(), c, c.Args...), log: &logBuffer{}, ended: make(chan error, 1)}
	x.cmd.Stdout, x.cmd.Stderr = x.log, x.log
	if err := x.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() { x.ended <- x.cmd.Wait() }()
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Logf("log of %s:\n%s", c.Name, x.log)
		}
	})
	return x
}

// await waits for a clean end.
func (x *process) await(t *testing.T) {
	t.Helper()
	select {
	case err := <-x.ended:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(limit):
		t.Error("still runs")
	}
}

// passes does what a kubelet does with a probe: asks until it succeeds.
func (p *pod) passes(c *core.Container, probe *core.Probe) {
	p.t.Helper()
	deadline := time.Now().Add(limit)
	var last error
	for time.Now().Before(deadline) {
		if last = p.ask(c, probe); last == nil {
			return
		}
		time.Sleep(50 * time.Millisecond) // a kubelet polls, too
	}
	p.t.Fatalf("a probe of %s fails for %v: %v", c.Name, limit, last)
}

func (p *pod) ask(c *core.Container, probe *core.Probe) error {
	if probe.Exec != nil {
		said, err := p.command(p.t.Context(), c, probe.Exec.Command...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		return nil
	}
	status, body := p.http("GET", probe.HTTPGet.Path, "", "")
	if status != 200 {
		return fmt.Errorf("%d %s", status, body)
	}
	return nil
}

// http gives 0 when nobody answers.
func (p *pod) http(method, path, key, body string) (int, string) {
	r, err := http.NewRequestWithContext(p.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if key != "" {
		r.Header.Set("X-API-Key", key)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err.Error()
	}
	return answer.StatusCode, string(text)
}

// TestPod lives a pod's life as a kubelet arranges it, in both forms: start in order, probes, a request, deletion, and a stream that begins just in time.
func TestPod(t *testing.T) {
	for _, overlay := range []string{"cpu", "two-containers"} {
		t.Run(overlay, func(t *testing.T) {
			t.Parallel()
			newPod(t, overlay).live()
		})
	}
}

func (p *pod) live() {
	t, w := p.t, p.w
	if said, err := p.command(t.Context(), w.proxy, "check-config").CombinedOutput(); err != nil || !strings.Contains(string(said), "1 API keys") {
		t.Fatalf("check-config: %v: %s", err, said)
	}
	proxy := p.start(w.proxy)
	p.passes(w.proxy, w.proxy.StartupProbe) // no engine is there: a sidecar's startup probe must pass without
	if status, body := p.http("GET", w.proxy.ReadinessProbe.HTTPGet.Path, "", ""); status != 503 {
		t.Errorf("ready without an engine: %d %s", status, body)
	}
	engine := p.start(w.engine)
	p.passes(w.engine, w.engine.StartupProbe)
	p.passes(w.engine, w.engine.LivenessProbe)
	p.passes(w.proxy, w.proxy.LivenessProbe)
	p.passes(w.proxy, w.proxy.ReadinessProbe)
	question := `{"prompt":"hello","max_new_tokens":4}`
	if status, body := p.http("POST", "/infer", "", question); status != 401 {
		t.Errorf("without a key: %d %s", status, body)
	}
	if status, body := p.http("POST", "/infer", p.key, question); status != 200 {
		t.Errorf("with the key: %d %s", status, body)
	}
	if status, body := p.http("GET", w.value(w.proxy, "METRICS_PATH"), "", ""); status != 200 || !strings.Contains(body, "llm_engine_up 1") {
		t.Errorf("metrics: %d, %d bytes", status, len(body))
	}
	p.end(proxy, engine, question)
}

// end deletes the pod: hooks first, then SIGTERM; to a sidecar only when the engine has ended.
func (p *pod) end(proxy, engine *process, question string) {
	t, w := p.t, p.w
	if said, err := p.command(t.Context(), w.proxy, w.proxy.Lifecycle.PreStop.Exec.Command...).CombinedOutput(); err != nil {
		t.Errorf("preStop: %v: %s", err, said)
	}
	began := time.Now()
	terminate(t, engine)
	if !w.sidecar {
		terminate(t, proxy)
	}
	if status, body := p.http("GET", w.proxy.ReadinessProbe.HTTPGet.Path, "", ""); status != 503 {
		t.Errorf("ready while it drains: %d %s", status, body)
	}
	if status, body := p.http("POST", "/infer", p.key, question); status != 200 {
		t.Errorf("within DRAIN_DELAY: %d %s", status, body)
	}
	long := fmt.Sprintf(`{"prompt":%q,"max_new_tokens":250,"stream":true}`, strings.Repeat("word ", 160)) // 8 s, longer than the delay
	stream := make(chan string, 1)
	go func() {
		_, body := p.http("POST", "/infer", p.key, long)
		stream <- body
	}()
	p.eventually("the stream runs", func() bool {
		_, body := p.http("GET", w.value(w.proxy, "METRICS_PATH"), "", "")
		return strings.Contains(body, "llm_requests_running 1")
	})
	p.eventually("nothing new is taken", func() bool {
		status, _ := p.http("POST", "/infer", p.key, question)
		return status == 503 || status == 0 // the latter when it doesn't listen any more
	})
	if took := time.Since(began); took < w.duration(w.proxy, "DRAIN_DELAY")-time.Second {
		t.Errorf("requests are refused after %v", took)
	}
	engine.await(t)
	if w.sidecar {
		terminate(t, proxy)
	}
	proxy.await(t)
	select {
	case body := <-stream:
		if !strings.Contains(body, `"finish_reason"`) || strings.Contains(body, "event: error") {
			t.Errorf("the stream was cut: …%s", body[max(0, len(body)-300):])
		}
	case <-time.After(limit):
		t.Error("the stream never ends")
	}
	if took := time.Since(began); took > time.Duration(*w.pod.TerminationGracePeriodSeconds)*time.Second {
		t.Errorf("the pod took %v to end", took)
	}
}

func terminate(t *testing.T, x *process) {
	t.Helper()
	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func (p *pod) eventually(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			p.t.Fatalf("after %v it isn't so that %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
