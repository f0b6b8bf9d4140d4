// Package redis runs a real redis-server (or valkey-server) for tests: on loopback, without files. REDIS_SERVER names
// the program; without it one is looked up on the PATH. scripts/redis.sh fetches one without installing it. This isn't
// a client.
package redis

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"tandem/scripts/await"
	"tandem/scripts/launch"
)

const startTimeout = 10 * time.Second

// Server is a redis-server that runs until the test ends.
type Server struct {
	Address string // host:port
	Socket  string // its Unix socket

	t       testing.TB
	program string
	args    []string
	process *launch.Process // nil: not running
	log     launch.Log
}

// Start starts a server with additional arguments. Without a program the test is skipped; with REDIS_REQUIRED=true it
// fails.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	program := findProgram()
	if program == "" {
		const missing = "no redis-server: REDIS_SERVER and the PATH name none (scripts/redis.sh fetches one)"
		if os.Getenv("REDIS_REQUIRED") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir, err := os.MkdirTemp("", "rds") // short: a socket's path holds 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	port := fmt.Sprint(launch.FreePort(t))
	s := &Server{t: t, program: program, Address: "127.0.0.1:" + port, Socket: filepath.Join(dir, "redis.sock")}
	s.args = append([]string{"--bind", "127.0.0.1", "--port", port, "--unixsocket", s.Socket, "--dir", dir, "--save", "", "--appendonly", "no"}, args...)
	t.Cleanup(s.Kill)
	s.Restart()
	return s
}

// findProgram returns the program to run, or "".
func findProgram() string {
	if program := os.Getenv("REDIS_SERVER"); program != "" {
		return program
	}
	for _, name := range []string{"redis-server", "valkey-server"} {
		if program, err := exec.LookPath(name); err == nil {
			return program
		}
	}
	return ""
}

// URL is the address as RATE_LIMIT_STORE takes it.
func (s *Server) URL() string { return "redis://" + s.Address }

// Restart starts the server again after Kill, at the same address and empty.
func (s *Server) Restart() {
	s.t.Helper()
	var err error
	if s.process, err = launch.Start("redis-server", s.program, os.Environ(), &s.log, s.args...); err != nil {
		s.t.Fatal(err)
	}
	answers := func() bool {
		conn, err := net.Dial("unix", s.Socket)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
	if !await.For(startTimeout, answers) {
		s.Kill()
		s.t.Fatalf("%s doesn't answer after %v\n%s", s.program, startTimeout, s.log.String())
	}
}

// Kill ends the server without warning.
func (s *Server) Kill() {
	if s.process == nil {
		return
	}
	s.process.Kill()
	s.process = nil
	os.Remove(s.Socket)
}

// Pause makes the server hang.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.process.Signal(sig); err != nil {
		s.t.Fatalf("signal redis-server: %v", err)
	}
}
