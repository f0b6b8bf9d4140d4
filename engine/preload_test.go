package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/engine/demo"
)

// waitableLog is a log output on whose text a test can wait.
type waitableLog struct {
	mu       sync.Mutex
	cond     *sync.Cond // on mu
	text     bytes.Buffer
	timedOut bool
}

func newWaitableLog(t *testing.T) *waitableLog {
	l := &waitableLog{}
	l.cond = sync.NewCond(&l.mu)
	limit := time.AfterFunc(time.Minute, func() { // a busy machine takes long to unpack the demo model
		l.mu.Lock()
		defer l.mu.Unlock()
		l.timedOut = true
		l.cond.Broadcast()
	})
	t.Cleanup(func() { limit.Stop() })
	return l
}

func (l *waitableLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.cond.Broadcast()
	return l.text.Write(p)
}

func (l *waitableLog) waitFor(t *testing.T, what string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !strings.Contains(l.text.String(), what) {
		if l.timedOut {
			t.Fatalf("the log never said %q:\n%s", what, l.text.String())
		}
		l.cond.Wait()
	}
}

// count is how many lines contain a text.
func (l *waitableLog) count(what string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, what) {
			n++
		}
	}
	return n
}

// installModelFile puts a file below MODELS_DIR, with an old modification time, so that it isn't taken for one that is
// still written.
func installModelFile(t *testing.T, c *Config, name string, content []byte) {
	t.Helper()
	path := filepath.Join(c.ModelsDir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	for _, err := range []error{os.WriteFile(path+".new", content, 0o644), os.Chtimes(path+".new", long, long), os.Rename(path+".new", path)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A default that kills the engine at its load must not do so at every start.
func TestAVersionThatKilledTheEngineIsNotPreloaded(t *testing.T) {
	for exit, skipped := range map[string]bool{
		`{"kind":"signal","signal":6,"loads":[{"model":"demo","version":"v1.0"}]}`: true,
		`{"kind":"signal","signal":9,"loads":[{"model":"demo","version":"v1.0"}]}`: false,
		`{"kind":"signal","signal":6,"loads":[{"model":"demo","version":"v2.0"}]}`: false,
	} {
		c, err := loadConfig(nil, testEnvironment(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("TANDEM_LAST_EXIT", exit)
		log := newWaitableLog(t)
		e, err := start(c, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		if skipped {
			log.waitFor(t, "not preloaded")
		} else {
			log.waitFor(t, "msg=loaded model=demo version=v1.0")
		}
		if err := e.close(); err != nil {
			t.Error(err)
		}
		if loaded := log.count("msg=loaded"); skipped && loaded != 0 {
			t.Errorf("%s: it was loaded", exit)
		}
	}
}

// The only installed model is the default. While its file is broken the log has one line about it; when it is repaired
// it is loaded without a request.
func TestBrokenDefaultIsToldOnceAndLoadedWhenMended(t *testing.T) {
	c, err := loadConfig(nil, testEnvironment(t))
	if err != nil {
		t.Fatal(err)
	}
	whole := demo.Files()[0].Packed
	installModelFile(t, c, "mine.gguf.xz", whole[:len(whole)/2])
	log := newWaitableLog(t)
	e, err := start(c, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.close(); err != nil {
			t.Error(err)
		}
	}()
	log.waitFor(t, "the only installed model is the default")
	log.waitFor(t, `msg="model can't be loaded" model=mine`)
	if _, err := e.cache.Acquire(t.Context(), "mine", "base"); err == nil {
		t.Error("it was loaded")
	}
	installModelFile(t, c, "mine.gguf.xz", whole)
	log.waitFor(t, "msg=loaded model=mine version=base")
	installModelFile(t, c, "yours.gguf.xz", whole) // two: none is the default, the demo model isn't offered
	if err := os.Remove(filepath.Join(c.ModelsDir, "mine.gguf.xz")); err != nil {
		t.Fatal(err)
	}
	log.waitFor(t, "msg=loaded model=yours version=base")
	if n := log.count("level=ERROR"); n != 1 {
		t.Errorf("%d lines of errors, want 1:\n%s", n, log.text.String())
	}
}

// MODELS_FOLLOW_LINKS decides about links that leave the models directory.
func TestLinksOutOfTheModelsDirectory(t *testing.T) {
	for setting, wantProblem := range map[string]bool{"true": false, "false": true} {
		preloaded := "msg=loaded model=linked"
		if wantProblem {
			preloaded = `msg="model can't be loaded" model=linked`
		}
		c, err := loadConfig(nil, append(testEnvironment(t), "MODELS_FOLLOW_LINKS="+setting))
		if err != nil {
			t.Fatal(err)
		}
		elsewhere := *c
		elsewhere.ModelsDir = t.TempDir()
		installModelFile(t, &elsewhere, "download.gguf.xz", demo.Files()[0].Packed)
		link := filepath.Join(c.ModelsDir, "linked.gguf.xz")
		if err := errors.Join(os.MkdirAll(c.ModelsDir, 0o755), os.Symlink(filepath.Join(elsewhere.ModelsDir, "download.gguf.xz"), link)); err != nil {
			t.Fatal(err)
		}
		log := newWaitableLog(t)
		e, err := start(c, slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		m, found := e.registry.Find("linked")
		if !found || (m.Versions[0].Problem != "") != wantProblem {
			t.Errorf("MODELS_FOLLOW_LINKS=%s: %+v", setting, m)
		}
		log.waitFor(t, preloaded) // closing waits for a load, but not as long as it takes on a busy machine
		if err := e.close(); err != nil {
			t.Error(err)
		}
	}
}
