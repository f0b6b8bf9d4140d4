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

	"tandem/deploy/test/binaries"
)

// waitTimeout is for steps that take moments.
const waitTimeout = 30 * time.Second

// localPod is a pod without containers: its two programs run as processes of this machine, with the arguments,
// environment and files of the manifests. Their paths are below a temporary directory, the port is a free one.
type localPod struct {
	t        *testing.T
	w        *workload
	dir      string
	binaries binaries.Paths
	settings []string // beside those of the manifests
	url      string
	key      string
	port     string
}

// builtBinaries compiles the programs once; TestMain removes them.
var builtBinaries = sync.OnceValues(func() (binaries.Paths, error) { return binaries.Build(binariesDir) })

var binariesDir string

func TestMain(m *testing.M) {
	var err error
	if binariesDir, err = os.MkdirTemp("", "programs"); err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the programs:", err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(binariesDir)
	os.Exit(code)
}

var mountPoints = []string{"/etc/tandem-keys", "/etc/tandem", "/run/tandem", "/models", "/tmp"}

// rewritePaths moves every mounted path in a text below the pod's directory.
func (p *localPod) rewritePaths(text string) string {
	for i, m := range mountPoints {
		text = strings.ReplaceAll(text, m, fmt.Sprintf("\x00%d", i))
	}
	for i, m := range mountPoints {
		text = strings.ReplaceAll(text, fmt.Sprintf("\x00%d", i), p.dir+m)
	}
	return text
}

// newPod prepares a pod of an overlay, whose engine is the mock.
func newPod(t *testing.T, overlay string) *localPod {
	t.Helper()
	built, err := builtBinaries()
	if err != nil {
		t.Fatal(err)
	}
	return preparePod(t, overlay, built, "ENGINE_MOCK=true", "MOCK_TOKEN_DELAY=50ms")
}

func preparePod(t *testing.T, overlay string, built binaries.Paths, settings ...string) *localPod {
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
	p := &localPod{t: t, w: w, dir: dir, binaries: built, settings: settings}
	for _, m := range mountPoints {
		if err := os.MkdirAll(dir+m, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text, err := w.configText()
	if err != nil {
		t.Fatal(err)
	}
	p.write("/etc/tandem/"+configFile, p.rewritePaths(text))
	p.makeKeyFile()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.url, p.port = "http://"+ln.Addr().String(), fmt.Sprint(ln.Addr().(*net.TCPAddr).Port)
	ln.Close()
	return p
}

func (p *localPod) write(path, text string) {
	if err := os.WriteFile(p.dir+path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// makeKeyFile writes the Secret's key file in the way that docs/deploy.md describes.
func (p *localPod) makeKeyFile() {
	c := exec.Command("sh", "-c", `{ echo keys:; "$0" keys new team-a; }`, p.binaries.Proxy)
	var secret bytes.Buffer
	c.Stderr = &secret
	entries, err := c.Output()
	if err != nil {
		p.t.Fatal(err)
	}
	p.key, _, _ = strings.Cut(secret.String(), "\n")
	p.write("/etc/tandem-keys/"+keysFile, string(entries))
}

// containerCommand returns a command to run in a container, with the container's environment.
func (p *localPod) containerCommand(ctx context.Context, c *core.Container, words ...string) *exec.Cmd {
	program := p.binaries.Proxy
	if c.Name == engineName {
		program = p.binaries.Engine
	}
	switch words[0] { // the image's program, which is its entry point
	case "/usr/local/bin/tandem-proxy", "/usr/local/bin/tandem-engine":
		if filepath.Base(words[0]) != filepath.Base(program) {
			p.t.Fatalf("container %s has no %s", c.Name, words[0])
		}
		words = words[1:]
	}
	cmd := exec.CommandContext(ctx, program, words...)
	cmd.Env = append([]string{"TMPDIR=" + p.dir + "/tmp", "HOST=127.0.0.1", "PORT=" + p.port, "RATE_LIMIT=off"}, p.settings...)
	for _, e := range c.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+p.rewritePaths(e.Value))
	}
	return cmd
}

// process stands for a running container.
type process struct {
	cmd   *exec.Cmd
	log   *processLog
	ended chan error
}

type processLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *processLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *processLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (p *localPod) start(c *core.Container) *process {
	proc := &process{cmd: p.containerCommand(p.t.Context(), c, c.Args...), log: &processLog{}, ended: make(chan error, 1)}
	proc.cmd.Stdout, proc.cmd.Stderr = proc.log, proc.log
	if err := proc.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() { proc.ended <- proc.cmd.Wait() }()
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Logf("log of %s:\n%s", c.Name, proc.log)
		}
	})
	return proc
}

// waitCleanEnd waits until the process has ended and wants exit status 0.
func (proc *process) waitCleanEnd(t *testing.T) {
	t.Helper()
	select {
	case err := <-proc.ended:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(waitTimeout):
		t.Error("still runs")
	}
}

// waitProbe runs a probe until it succeeds, as a kubelet does.
func (p *localPod) waitProbe(c *core.Container, probe *core.Probe) {
	p.t.Helper()
	p.eventually("a probe of "+c.Name+" passes", func() error { return p.runProbe(c, probe) })
}

func (p *localPod) runProbe(c *core.Container, probe *core.Probe) error {
	if probe.Exec != nil {
		output, err := p.containerCommand(p.t.Context(), c, probe.Exec.Command...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	}
	status, body := p.request("GET", probe.HTTPGet.Path, "", "")
	if status != 200 {
		return fmt.Errorf("%d %s", status, body)
	}
	return nil
}

// request returns status 0 when nothing answers.
func (p *localPod) request(method, path, key, body string) (int, string) {
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

func sendSIGTERM(t *testing.T, proc *process) {
	t.Helper()
	if err := proc.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok returns nil: nothing here sends an event to wait for.
func (p *localPod) eventually(what string, ok func() error) {
	p.t.Helper()
	for deadline := time.Now().Add(waitTimeout); ; time.Sleep(20 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("after %v it isn't so that %s: %v", waitTimeout, what, err)
		}
	}
}
