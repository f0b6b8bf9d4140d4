package main

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

// adminTimeout bounds one exchange on the admin socket.
const adminTimeout = 5 * time.Second

// adminSocket is beside the engine's socket, so that whoever may go there may drain the proxy, and nobody over the network.
func adminSocket(c *Config) string {
	return filepath.Join(filepath.Dir(c.EngineSocket), "proxy-admin.sock")
}

// drain asks the running proxy to begin its drain and returns when its readiness is off.
func drain(ctx context.Context, p program) error {
	c, err := loadConfig(p.args, p.environ)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", adminSocket(c))
	if err != nil {
		return fmt.Errorf("reach the running proxy: %w", err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(adminTimeout))
	if _, err := io.WriteString(conn, "drain\n"); err != nil {
		return fmt.Errorf("ask the running proxy: %w", err)
	}
	answer, err := bufio.NewReader(io.LimitReader(conn, 256)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("hear from the running proxy: %w", err)
	}
	_, err = io.WriteString(p.stdout, answer)
	return err
}

// admin serves the admin socket: one line in, one line out.
type admin struct {
	ln     net.Listener
	drain  func()
	log    *slog.Logger
	ended  chan struct{} // closed by close
	served sync.WaitGroup
}

// startAdmin takes the place of a socket that a proxy before this one left.
func startAdmin(path string, drain func(), log *slog.Logger) (*admin, error) {
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
	a := &admin{ln: ln, drain: drain, log: log, ended: make(chan struct{})}
	a.served.Go(a.serve)
	return a, nil
}

// adminPause is how long nothing is accepted after an error, out of file descriptors usually.
const adminPause = time.Second

// serve takes one connection after the other; each is short.
func (a *admin) serve() {
	for {
		conn, err := a.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			a.log.Error("tandem-proxy drain can't be heard now", "error", err)
			select {
			case <-a.ended:
				return
			case <-time.After(adminPause):
				continue
			}
		}
		a.answer(conn)
		_ = conn.Close()
	}
}

func (a *admin) answer(conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(adminTimeout))
	line, err := bufio.NewReader(io.LimitReader(conn, 256)).ReadString('\n')
	switch {
	case err != nil:
		return
	case line == "drain\n":
		a.drain()
		_, _ = io.WriteString(conn, "draining: /readyz says 503; after DRAIN_DELAY new requests are refused\n")
	default:
		_, _ = io.WriteString(conn, "unknown command\n")
	}
}

// close ends the admin socket and waits for its last exchange.
func (a *admin) close() {
	close(a.ended)
	_ = a.ln.Close()
	a.served.Wait()
}
