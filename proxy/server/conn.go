package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// errClientGone ends the context of a connection whose client has disconnected.
var errClientGone = errors.New("the client closed the connection")

const (
	// sendBufferBytes bounds what a slow reader lets the kernel hold before writes block.
	sendBufferBytes = 64 << 10
	// lingerTimeout and lingerBytes bound how long a rejected upload is still read, so that the client sees the error
	// and not a reset.
	lingerTimeout = 500 * time.Millisecond
	lingerBytes   = 64 << 20
)

// conn is an accepted connection whose context ends as soon as its client is gone, also while nobody reads from it. A
// client that closes only its sending side counts as gone, as it does for net/http.
type conn struct {
	*net.TCPConn
	ctx           context.Context
	cancel        context.CancelCauseFunc
	id            uint64 // in disconnectWatcher; never reused
	owner         *listener
	hasRead       atomic.Bool  // something was read
	requestSince  atomic.Int64 // ns, by bodyArrivals.now: when the last request's first byte had come
	idle          atomic.Bool  // between two requests
	lingerOnClose atomic.Bool  // keep reading for a moment before closing
	noMore        atomic.Bool  // further requests aren't read
	closed        atomic.Bool
}

// Read remembers that the client has sent something.
func (c *conn) Read(p []byte) (int, error) {
	if c.noMore.Load() {
		return 0, io.EOF
	}
	n, err := c.TCPConn.Read(p)
	if n > 0 && !c.hasRead.Load() {
		c.hasRead.Store(true)
	}
	return n, err
}

// readNoMore makes fasthttp close the connection when the reply in hand is written. A request that is under way already
// is discarded unread, since a reset could take the end of the reply from the client.
func (c *conn) readNoMore() {
	c.lingerOnClose.Store(true)
	c.noMore.Store(true)
}

// Close closes once; fasthttp and abort may both call it.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	if c.lingerOnClose.Load() {
		c.lingerRead()
	}
	c.owner.unregister(c)
	c.cancel(net.ErrClosed)
	return c.TCPConn.Close()
}

// lingerRead closes the sending side and discards what the client still sends.
func (c *conn) lingerRead() {
	if c.CloseWrite() != nil {
		return
	}
	if c.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
		_, _ = io.CopyN(io.Discard, c.TCPConn, lingerBytes)
	}
}

// onDisconnect is called by the disconnectWatcher.
func (c *conn) onDisconnect() { c.cancel(errClientGone) }

// abort closes at once, without a TLS or HTTP message.
func (c *conn) abort() {
	c.lingerOnClose.Store(false)
	_ = c.Close()
}

// unwrap returns the conn behind a connection of fasthttp; nil for connections of other listeners.
func unwrap(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	own, _ := c.(*conn)
	return own
}

// connState is called by fasthttp: notes whether the connection waits for a request, and when the last one's first byte
// came.
func (s *Server) connState(nc net.Conn, state fasthttp.ConnState) {
	c := unwrap(nc)
	if c == nil {
		return
	}
	c.idle.Store(state == fasthttp.StateIdle)
	if state == fasthttp.StateActive {
		c.requestSince.Store(int64(s.arrivals.now()))
	}
}
