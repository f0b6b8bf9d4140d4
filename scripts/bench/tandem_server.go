package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"tandem/scripts/launch"
)

// startProcess starts a program to be measured. With BENCH_VERBOSE set its output is shown.
func startProcess(name, program string, env []string, args ...string) (*launch.Process, error) {
	var output io.Writer
	if os.Getenv("BENCH_VERBOSE") != "" {
		output = os.Stderr
	}
	return launch.Start(name, program, append(os.Environ(), env...), output, args...)
}

// stop ends a process. How it ends is of no interest here.
func stop(p *launch.Process) { _ = p.Stop(10 * time.Second) }

func freePort() (int, error) {
	ports, err := launch.FreePorts(1)
	if err != nil {
		return 0, err
	}
	return ports[0], nil
}

// waitForOK polls a URL until it answers 200.
func waitForOK(ctx context.Context, url string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := http.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s isn't ready: %w", url, ctx.Err())
		}
	}
}

// tandemServer is our two programs with an API key and no rate limit.
type tandemServer struct {
	proxy, engine *launch.Process
	url           string
	dir           string
}

func startTandem(proxy, engine string, settings ...string) (*tandemServer, error) {
	dir, err := os.MkdirTemp("", "tnd")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &tandemServer{url: fmt.Sprintf("http://127.0.0.1:%d", port), dir: dir}
	settings = append([]string{"HOST=127.0.0.1", fmt.Sprintf("PORT=%d", port), "API_KEYS=bench:bench-key", "RATE_LIMIT=off",
		"ENGINE_SOCKET=" + dir + "/engine.sock", "LOG_LEVEL=" + envOr("LOG_LEVEL", "warn")}, settings...)
	if s.proxy, err = startProcess("proxy", proxy, settings, "serve"); err != nil {
		return nil, err
	}
	if s.engine, err = startProcess("engine", engine, settings, "supervise"); err != nil {
		stop(s.proxy)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := waitForOK(ctx, s.url+"/readyz"); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *tandemServer) stop() {
	stop(s.proxy)
	stop(s.engine)
	os.RemoveAll(s.dir)
}
