package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"tandem/proxy/api"
)

// refusalsAtOnce bounds how many refused connections linger at a time; more are closed without a word.
const refusalsAtOnce = 64

// Listen opens a TCP listener whose connections notice a peer that vanished without a word.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	config := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	ln, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return ln, nil
}

// listener accepts connections that are watched, up to a limit.
type listener struct {
	net.Listener
	watch    *watcher
	limit    int
	origins  origins // that may read a refusal
	log      *slog.Logger
	refusals chan struct{} // places for refused connections that linger
	ended    chan struct{} // closed by Close
	end      sync.Once

	mu       sync.Mutex
	open     map[*conn]struct{}
	refusing sync.WaitGroup
}

func newListener(ln net.Listener, watch *watcher, limit int, origins origins, log *slog.Logger) *listener {
	return &listener{Listener: ln, watch: watch, limit: limit, origins: origins, log: log, refusals: make(chan struct{}, refusalsAtOnce),
		ended: make(chan struct{}), open: make(map[*conn]struct{})}
}

// Close stops accepting; connections stay.
func (l *listener) Close() error {
	l.end.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

// Accept waits for a connection that there is room for and refuses the others.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if exhausted(err) {
			l.log.Error("no connection can be accepted now; those that are open go on", "error", err)
			l.pause()
			continue
		}
		if err != nil {
			return nil, err
		}
		tcp, ok := raw.(*net.TCPConn)
		if !ok {
			return raw, nil
		}
		c, ok := l.admit(tcp)
		if !ok {
			l.refuse(tcp)
			continue
		}
		tune(tcp)
		if err := l.watch.add(c); err != nil {
			l.log.Warn("this connection is not watched: its client's leaving is noticed with the next write", "error", err)
		}
		return c, nil
	}
}

// exhausted tells whether accepting failed for want of files or memory, which passes when connections end.
func exhausted(err error) bool {
	for _, passing := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// acceptPause is how long nothing is accepted after that.
const acceptPause = 500 * time.Millisecond

func (l *listener) pause() {
	select {
	case <-l.ended:
	case <-time.After(acceptPause):
	}
}

func (l *listener) admit(tcp *net.TCPConn) (*conn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limit > 0 && len(l.open) >= l.limit {
		return nil, false
	}
	c := &conn{TCPConn: tcp, owner: l}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	l.open[c] = struct{}{}
	return c, true
}

func (l *listener) forget(c *conn) {
	l.watch.remove(c)
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
}

// refuse answers 503 and closes, beside the accepting goroutine.
func (l *listener) refuse(tcp *net.TCPConn) {
	select {
	case l.refusals <- struct{}{}:
	default:
		_ = tcp.Close()
		return
	}
	l.refusing.Go(func() {
		defer func() { <-l.refusals }()
		c := &conn{TCPConn: tcp, owner: l, cancel: func(error) {}}
		c.linger.Store(true)
		_ = tcp.SetWriteDeadline(time.Now().Add(lingerTimeout))
		_, _ = tcp.Write(refusal(newID(), l.limit, l.origins))
		_ = c.Close()
	})
}

// refusal is a whole reply, since no HTTP server has seen the connection yet.
func refusal(id string, limit int, readers origins) []byte {
	err := api.NewError(api.TypeQueueFull, "all %d connections are in use; try again later", limit)
	body := api.AppendError(nil, err, id)
	return fmt.Appendf(nil, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"+
		"Connection: close\r\n%sX-Request-Id: %s\r\nContent-Length: %d\r\n\r\n%s", readers.markedLines(), id, len(body), body)
}

// abort closes the open connections that which picks and tells how many they were.
func (l *listener) abort(which func(*conn) bool) int {
	l.mu.Lock()
	var picked []*conn
	for c := range l.open {
		if which(c) {
			picked = append(picked, c)
		}
	}
	l.mu.Unlock()
	for _, c := range picked {
		c.abort()
	}
	return len(picked)
}

func anyConn(*conn) bool { return true }

func silentConn(c *conn) bool { return !c.used.Load() }

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}
