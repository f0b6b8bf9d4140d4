// Package redis runs a real redis-server (or valkey-server) for tests: on loopback, without files. Which one says REDIS_SERVER, otherwise
// one is looked for on the PATH. scripts/redis.sh fetches one without installing it.
package redis

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const startLimit = 10 * time.Second

// Server is one redis-server. It ends with the test.
type Server struct {
	Address string // host:port
	Socket  string // its Unix socket

	t       testing.TB
	program string
	args    []string
	cmd     *exec.Cmd // nil: not running
	log     bytes.Buffer
}

// Start starts a server, with further arguments if any. Without a program to start the test is skipped, with REDIS_REQUIRED=true it fails.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	program := find()
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	s := &Server{t: t, program: program, Address: "127.0.0.1:" + port, Socket: filepath.Join(dir, "redis.sock")}
	s.args = append([]string{"--bind", "127.0.0.1", "--port", port, "--unixsocket", s.Socket, "--dir", dir, "--save", "", "--appendonly", "no"}, args...)
	t.Cleanup(s.Kill)
	s.Restart()
	return s
}

func find() string {
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

// URL is the address as a setting.
func (s *Server) URL() string { return "redis://" + s.Address }

// Restart starts the server again after Kill, at the same address and empty.
func (s *Server) Restart() {
	s.t.Helper()
	cmd := exec.Command(s.program, s.args...)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", s.program, err)
	}
	s.cmd = cmd
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) { // it offers no event to wait for
		conn, err := net.Dial("unix", s.Socket)
		if err == nil {
			conn.Close()
			return
		}
		if time.Since(began) > startLimit {
			s.Kill()
			s.t.Fatalf("%s doesn't answer after %v: %v\n%s", s.program, startLimit, err, s.log.String())
		}
	}
}

// Kill ends the server without warning.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended
	_ = s.cmd.Wait()         // with the signal
	s.cmd = nil
	os.Remove(s.Socket)
}

// Pause makes the server hang, Resume ends that.
func (s *Server) Pause()  { s.signal(syscall.SIGSTOP) }
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal redis-server: %v", err)
	}
}
