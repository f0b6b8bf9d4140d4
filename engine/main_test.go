package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tandem/engine/supervise"
	"tandem/scripts/await"
)

// sharedCacheDir is the CACHE_DIR of all tests: unpacking the demo model takes seconds under the race detector.
var sharedCacheDir string

func TestMain(m *testing.M) {
	if os.Getenv(engineProgramEnv) != "" {
		main()
	}
	dir, err := os.MkdirTemp("", "tandem-engine-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	sharedCacheDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// testEnvironment is the environment of an engine that needs nothing of this machine.
func testEnvironment(t *testing.T, more ...string) []string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tnd") // short: a socket's path holds 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Setenv("TMPDIR", dir)
	return append([]string{
		"ENGINE_MOCK=true", "ENGINE_SOCKET=" + filepath.Join(dir, "e.sock"), "MODELS_DIR=" + filepath.Join(dir, "models"),
		"CACHE_DIR=" + sharedCacheDir,
	}, more...)
}

// awaitStarted waits until the engine's heartbeat says that preloading is over.
func awaitStarted(t *testing.T, c *Config) {
	t.Helper()
	await.Until(t, 3*time.Minute, "the engine has started", func() bool {
		return supervise.Check(c.Socket, supervise.Started, time.Minute) == nil
	})
}

func TestCommands(t *testing.T) {
	env := testEnvironment(t)
	for name, test := range map[string]struct {
		args   []string
		env    []string
		code   int
		stdout string
		stderr string
	}{
		"help":                   {[]string{"--help"}, env, 0, "ENGINE_SOCKET", ""},
		"version":                {[]string{"--version"}, env, 0, "tandem-engine " + version, ""},
		"version as a command":   {[]string{"version"}, env, 0, "llama.cpp ", ""},
		"licences":               {[]string{"licenses"}, env, 0, "llama.cpp and ggml", ""},
		"unknown command":        {[]string{"dance"}, env, codeUsage, "", "unknown command"},
		"unknown flag":           {[]string{"serve", "--frobnicate=1"}, env, codeUsage, "", "frobnicate"},
		"bad variable":           {[]string{"supervise"}, append(env, "PARALLEL=many"), codeUsage, "", "PARALLEL"},
		"health without engine":  {[]string{"healthcheck", "--live"}, env, codeFailed, "no engine", ""},
		"started without engine": {[]string{"healthcheck", "--started"}, env, codeFailed, "no engine", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(test.args, test.env, &stdout, &stderr); code != test.code {
				t.Errorf("exit code %d, want %d; stderr: %s", code, test.code, stderr.String())
			}
			if !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
			}
		})
	}
}

func TestEngineStartsLoadsItsDefaultAndEndsOnASignal(t *testing.T) {
	env := testEnvironment(t)
	c, err := loadConfig(nil, env)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ended := make(chan int, 1)
	go func() { ended <- runEngine(c, slog.New(slog.NewTextHandler(&log, nil))) }()
	awaitStarted(t, c)
	if err := supervise.Check(c.Socket, supervise.Live, time.Minute); err != nil {
		t.Errorf("live: %v", err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"answers are made up", "demo model is the default", "msg=loaded", "engine ended"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log doesn't say %q:\n%s", want, log.String())
		}
	}
	if err := supervise.Check(c.Socket, supervise.Live, time.Minute); err == nil {
		t.Error("still alive after its end")
	}
}

// A proxy that accepts the connection and sends nothing must not keep the engine from ending.
func TestEngineEndsBesideASilentProxy(t *testing.T) {
	env := testEnvironment(t, "DRAIN_TIMEOUT=100ms")
	c, err := loadConfig(nil, env)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e, err := start(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), c.DrainTimeout)
	defer cancel()
	if err := e.drain(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("drain: %v", err)
	}
	if err := e.close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestPreloadOfAMissingModelIsLoggedAndStopsNothing(t *testing.T) {
	env := testEnvironment(t, "PRELOAD=nope,demo@v9,demo@v1.1", "DEFAULT_MODEL=org/other")
	c, err := loadConfig(nil, env)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	e, err := start(c, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	awaitStarted(t, c)
	if got := e.preloader.DefaultModel(); got != "org/other" {
		t.Errorf("a default that was set gave way to %q", got)
	}
	loaded := e.cache.Entries()
	if err := e.close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if len(loaded) != 1 || loaded[0].Version != "v1.1" {
		t.Errorf("loaded %+v", loaded)
	}
	for _, want := range []string{"model=nope", "version=v9"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log doesn't say %q:\n%s", want, log.String())
		}
	}
}
