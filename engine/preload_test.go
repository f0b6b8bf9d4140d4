package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/engine/demo"
)

// logWatch is a log on whose lines a test can wait.
type logWatch struct {
	mu   sync.Mutex
	cond *sync.Cond // on mu
	text bytes.Buffer
	over bool
}

func newLogWatch(t *testing.T) *logWatch {
	l := &logWatch{}
	l.cond = sync.NewCond(&l.mu)
	limit := time.AfterFunc(20*time.Second, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.over = true
		l.cond.Broadcast()
	})
	t.Cleanup(func() { limit.Stop() })
	return l
}

func (l *logWatch) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.cond.Broadcast()
	return l.text.Write(p)
}

func (l *logWatch) waitFor(t *testing.T, what string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for !strings.Contains(l.text.String(), what) {
		if l.over {
			t.Fatalf("the log never said %q:\n%s", what, l.text.String())
		}
		l.cond.Wait()
	}
}

// count of the lines that hold a text.
func (l *logWatch) count(what string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, what) {
			n++
		}
	}
	return n
}

// install puts a file below MODELS_DIR that has rested for long.
func install(t *testing.T, c *Config, name string, content []byte) {
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
		c, err := loadConfig(nil, environment(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("TANDEM_LAST_EXIT", exit)
		log := newLogWatch(t)
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

// The only installed model is the default. While its file is broken that is one line in the log; when it is mended nobody has to ask for it.
func TestBrokenDefaultIsToldOnceAndLoadedWhenMended(t *testing.T) {
	c, err := loadConfig(nil, environment(t))
	if err != nil {
		t.Fatal(err)
	}
	whole := demo.Files()[0].Packed
	install(t, c, "mine.gguf.xz", whole[:len(whole)/2])
	log := newLogWatch(t)
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
	install(t, c, "mine.gguf.xz", whole)
	log.waitFor(t, "msg=loaded model=mine version=base")
	install(t, c, "yours.gguf.xz", whole) // two: none is the default, the demo model isn't offered
	if err := os.Remove(filepath.Join(c.ModelsDir, "mine.gguf.xz")); err != nil {
		t.Fatal(err)
	}
	log.waitFor(t, "msg=loaded model=yours version=base")
	if n := log.count("level=ERROR"); n != 1 {
		t.Errorf("%d lines of errors, want 1:\n%s", n, log.text.String())
	}
}

// A default that seems to be broken is tried again, too: what made it seem so may have been the disk.
func TestABrokenDefaultIsTriedAgainLessOften(t *testing.T) {
	for _, tt := range []struct {
		before  time.Duration
		problem string
		want    time.Duration
	}{
		{0, "", time.Second},
		{time.Second, "", 2 * time.Second},
		{20 * time.Second, "", 30 * time.Second},
		{0, "bad", time.Minute},
		{30 * time.Second, "bad", time.Minute},
		{time.Minute, "bad", 2 * time.Minute},
		{8 * time.Minute, "bad", 10 * time.Minute},
		{10 * time.Minute, "", 30 * time.Second}, // mended
	} {
		if got := retryAfter(tt.before, tt.problem); got != tt.want {
			t.Errorf("after %v with problem %q: %v, want %v", tt.before, tt.problem, got, tt.want)
		}
	}
}
