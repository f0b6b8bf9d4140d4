package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const liveReply = `{"timestamp":1795477396.5,"status":"degraded","device":"cpu","engine_up":0,"connections":3,"waiting":7,"running":2,"queue_capacity":64,
"cache_size":5,"loaded":1,"models":4,"loaded_models":[{"base_model":"demo","version":"v1.0","default":true}],
"targets":[{"name":"response_p95","title":"p95 response","unit":"seconds","value":1.25,"target":1,"state":"missed"},
{"name":"success","title":"Success","unit":"ratio","value":null,"target":0.99,"above":true,"state":"idle"}],
"figures":{"window_seconds":60,"response":{"mean":0.5,"p50":0.25,"p95":1.25,"p99":null},"phases":{"queue":0.012},"engine_restarts":2,"restart_reasons":{"oom":1,"crash":1}}}`

func TestTopShowsTheFigures(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status/live" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(liveReply))
	}))
	defer s.Close()
	var out bytes.Buffer
	if err := run(t.Context(), invocation{args: []string{"top", "--once", "--url=" + s.URL + "/"}, stdout: &out}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"degraded, device cpu, engine DOWN, restarts 2 (crash 1, oom 1)", "waiting 7 of 64, running 2", "1.25 s  < 1 s     MISSED", "-  > 99 %    idle",
		"queue 12.00 ms", "Models: 1 of at most 5 loaded, 4 installed", "demo@v1.0, default",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("escape sequences in a pipe: %q", out.String())
	}
}

// stopAfterWrites ends the run after some screens.
type stopAfterWrites struct {
	bytes.Buffer
	left int
	end  func()
}

func (s *stopAfterWrites) Write(inv []byte) (int, error) {
	if s.left--; s.left == 0 {
		s.end()
	}
	return s.Buffer.Write(inv)
}

func TestTopGoesOnWhileTheServerIsAway(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &stopAfterWrites{left: 2, end: cancel}
	if err := run(ctx, invocation{args: []string{"top", "--url", s.URL}, stdout: out}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "404 Not Found"); n != 2 {
		t.Errorf("%d screens: %q", n, out.String())
	}
	if err := run(t.Context(), invocation{args: []string{"top", "--once", "--url", s.URL}, stdout: out}); err == nil {
		t.Error("--once without figures is a success")
	}
}
