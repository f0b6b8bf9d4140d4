package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"tandem/proxy/api"
)

// maxConcurrentRefusals bounds how many refused connections linger at a time; more are closed without a reply.
const maxConcurrentRefusals = 64

// Listen opens a TCP listener with keep-alive, by which its connections notice a peer that vanished without closing.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	config := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	ln, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return ln, nil
}

// listener accepts connections up to a limit and registers them with the disconnectWatcher.
type listener struct {
	net.Listener
	disconnects  *disconnectWatcher
	limit        int
	corsOrigins  corsOrigins // for the reply to refused connections
	tls          *tls.Config // likewise; nil without TLS
	log          *slog.Logger
	refusalSlots chan struct{} // for refused connections that linger
	stopped      chan struct{} // closed by Close
	end          sync.Once

	mu       sync.Mutex
	open     map[*conn]struct{}
	refusing sync.WaitGroup
}

func newListener(ln net.Listener, disconnects *disconnectWatcher, limit int, corsOrigins corsOrigins, log *slog.Logger) *listener {
	return &listener{Listener: ln, disconnects: disconnects, limit: limit, corsOrigins: corsOrigins, log: log, refusalSlots: make(chan struct{}, maxConcurrentRefusals),
		stopped: make(chan struct{}), open: make(map[*conn]struct{})}
}

// Close stops accepting; open connections stay.
func (l *listener) Close() error {
	l.end.Do(func() { close(l.stopped) })
	return l.Listener.Close()
}

// Accept returns the next connection for which there is room, and refuses those for which there is none.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if isResourceExhausted(err) {
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
		c, ok := l.register(tcp)
		if !ok {
			l.refuseConn(tcp)
			continue
		}
		setSocketOptions(tcp)
		if err := l.disconnects.add(c); err != nil {
			l.log.Warn("this connection is not watched: its client's leaving is noticed with the next write", "error", err)
		}
		return c, nil
	}
}

// isResourceExhausted reports whether accepting failed for lack of files or memory, which passes when connections end.
func isResourceExhausted(err error) bool {
	for _, passing := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// acceptPause is how long nothing is accepted after such an error.
const acceptPause = 500 * time.Millisecond

func (l *listener) pause() {
	select {
	case <-l.stopped:
	case <-time.After(acceptPause):
	}
}

func (l *listener) register(tcp *net.TCPConn) (*conn, bool) {
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

func (l *listener) unregister(c *conn) {
	l.disconnects.remove(c)
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
}

// refuseConn answers 503 and closes the connection, on a goroutine of its own. A liveness probe gets its 200: refused,
// it would have the server killed, and with it the requests of the connections that take the room.
func (l *listener) refuseConn(tcp *net.TCPConn) {
	select {
	case l.refusalSlots <- struct{}{}:
	default:
		_ = tcp.Close()
		return
	}
	l.refusing.Go(func() {
		defer func() { <-l.refusalSlots }()
		c := &conn{TCPConn: tcp, owner: l, cancel: func(error) {}}
		c.lingerOnClose.Store(true)
		client := net.Conn(c)
		if l.tls != nil {
			client = tls.Server(c, l.tls)
		}
		_ = tcp.SetReadDeadline(time.Now().Add(refusalReadTimeout))
		_ = tcp.SetWriteDeadline(time.Now().Add(refusalReadTimeout + lingerTimeout))
		if isLivenessProbe(client) {
			_, _ = client.Write(aliveReply(newRequestID(), l.corsOrigins))
		} else {
			_, _ = client.Write(refusal(newRequestID(), l.limit, l.corsOrigins))
		}
		_ = client.Close()
	})
}

// refusalReadTimeout is how long a refused connection may take to say whether it is a liveness probe, TLS included. On
// a busy machine a handshake takes its time, and a probe that is refused has the server killed.
const refusalReadTimeout = time.Second

// isLivenessProbe reads what every HTTP request has at least.
func isLivenessProbe(client io.Reader) bool {
	const probe = "GET /livez "
	start := make([]byte, len(probe))
	_, err := io.ReadFull(client, start)
	return err == nil && string(start) == probe
}

// aliveReply answers GET /livez.
func aliveReply(id string, allowed corsOrigins) []byte {
	return lastReply("200 OK", "", id, allowed, api.AppendProbe(nil, api.Probe{OK: true}))
}

// refusal is the reply to every other request. Nobody reads its path, so the dialect isn't known.
func refusal(id string, limit int, allowed corsOrigins) []byte {
	err := api.NewError(api.TypeQueueFull, "all %d connections are in use; try again later", limit).After(time.Second)
	return lastReply("503 Service Unavailable", fmt.Sprintf("Retry-After: %d\r\n", err.RetryAfterSeconds()), id, allowed, defaultDialect.AppendError(nil, err, id))
}

// lastReply is a complete HTTP reply with which a connection ends, for those that no HTTP server has seen.
func lastReply(status, headerLines, id string, allowed corsOrigins, body []byte) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sConnection: close\r\n%sX-Request-Id: %s\r\nContent-Length: %d\r\n\r\n%s",
		status, headerLines, allowed.rawHeaderLines(), id, len(body), body)
}

// abortConns closes the open connections that which selects and returns their number.
func (l *listener) abortConns(which func(*conn) bool) int {
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

func isAny(*conn) bool { return true }

// isIdle reports whether a reply was sent over the connection, and no byte of another request has come since.
func isIdle(c *conn) bool { return c.idle.Load() }

func isSilent(c *conn) bool { return !c.hasRead.Load() }

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}
