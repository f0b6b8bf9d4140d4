// Package adminsocket is the Unix socket by which the command drain reaches the running proxy. It knows one command,
// drain; who may use it is decided by the permissions of the socket and its directory.
package adminsocket

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tandem/proxy/link"
)

// timeout bounds one exchange on the admin socket.
const timeout = 5 * time.Second

// Path is the admin socket's path. It is beside the engine's socket, so that those with access there may drain the
// proxy, and nobody over the network.
func Path(engineSocket string) string {
	return filepath.Join(filepath.Dir(engineSocket), "proxy-admin.sock")
}

// Drain asks the proxy that listens on path to begin its drain and returns its answer, when its readiness is off.
func Drain(ctx context.Context, path string) (answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return "", fmt.Errorf("reach the running proxy: %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(timeout))
	if _, err := io.WriteString(conn, "drain\n"); err != nil {
		return "", fmt.Errorf("ask the running proxy: %w", err)
	}
	answer, err = bufio.NewReader(io.LimitReader(conn, 256)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("hear from the running proxy: %w", err)
	}
	return answer, nil
}

// Server serves the admin socket: one line in, one line out.
type Server struct {
	ln     net.Listener
	drain  func()
	log    *slog.Logger
	ended  chan struct{} // closed by Close
	served sync.WaitGroup
}

// Serve starts a server, which calls drain when it is asked to; Close ends it. It replaces a socket that an earlier
// proxy left behind.
func Serve(path string, drain func(), log *slog.Logger) (*Server, error) {
	switch listening, err := link.Listening(path); {
	case err != nil:
		return nil, err
	case listening:
		return nil, fmt.Errorf("another proxy listens on admin socket %s; give each ENGINE_SOCKET a directory of its own", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("remove old admin socket: %w", err)
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on admin socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("protect admin socket: %w", err)
	}
	s := &Server{ln: ln, drain: drain, log: log, ended: make(chan struct{})}
	s.served.Go(s.accept)
	return s, nil
}

// acceptPause is how long nothing is accepted after an error, usually for lack of file descriptors.
const acceptPause = time.Second

// accept serves one connection after the other; each is short.
func (s *Server) accept() {
	for {
		conn, err := s.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Error("tandem-proxy drain can't be heard now", "error", err)
			select {
			case <-s.ended:
				return
			case <-time.After(acceptPause):
				continue
			}
		}
		s.answer(conn)
		_ = conn.Close()
	}
}

func (s *Server) answer(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(timeout))
	line, err := bufio.NewReader(io.LimitReader(conn, 256)).ReadString('\n')
	switch {
	case err != nil:
		return
	case line == "drain\n":
		s.drain()
		_, _ = io.WriteString(conn, "draining: /readyz says 503; after DRAIN_DELAY new requests are refused\n")
	default:
		_, _ = io.WriteString(conn, "unknown command\n")
	}
}

// Close ends the admin socket and waits for its last exchange.
func (s *Server) Close() {
	close(s.ended)
	_ = s.ln.Close()
	s.served.Wait()
}
