package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// errClientGone ends the context of a connection whose client left.
var errClientGone = errors.New("the client closed the connection")

const (
	// sendBufferBytes bounds what a slow reader lets the kernel hold before writes block.
	sendBufferBytes = 64 << 10
	// lingerTimeout and lingerBytes bound how long a refused upload is read on, so that the client sees the refusal and not a reset.
	lingerTimeout = 500 * time.Millisecond
	lingerBytes   = 64 << 20
)

// conn is an accepted connection whose context ends as soon as its client is gone, also while nobody reads from it. A client that
// closes only its sending side counts as gone, as it does for net/http.
type conn struct {
	*net.TCPConn
	ctx    context.Context
	cancel context.CancelCauseFunc
	id     uint64 // of the watcher; never reused
	owner  *listener
	used   atomic.Bool // something was read
	linger atomic.Bool // read on for a moment before closing
	closed atomic.Bool
}

// Read remembers that the client has begun to talk.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	if n > 0 && !c.used.Load() {
		c.used.Store(true)
	}
	return n, err
}

// Close closes once; fasthttp and abort may both call it.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	if c.linger.Load() {
		c.drainInput()
	}
	c.owner.forget(c)
	c.cancel(net.ErrClosed)
	return c.TCPConn.Close()
}

// drainInput tells the client that nothing more comes and swallows what it still sends.
func (c *conn) drainInput() {
	if c.CloseWrite() != nil {
		return
	}
	if c.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
		_, _ = io.CopyN(io.Discard, c.TCPConn, lingerBytes)
	}
}

// gone is called by the watcher.
func (c *conn) gone() { c.cancel(errClientGone) }

// abort closes at once, without a word of TLS or HTTP.
func (c *conn) abort() {
	c.linger.Store(false)
	_ = c.Close()
}

// unwrap finds the conn behind what fasthttp serves; nil for connections of other listeners.
func unwrap(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	own, _ := c.(*conn)
	return own
}
