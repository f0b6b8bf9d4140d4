// Package wire carries frames of the schema over one stream socket: framing, size limits, deadlines and a bounded queue
// to send from. It doesn't know what the frames mean. Handshake, reconnecting and the loss of a connection are handled
// by proxy/link and engine/link.
package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
)

// Errors with which a Conn ends or refuses a call.
var (
	// ErrClosed: Close was called, or an earlier error ended the connection.
	ErrClosed = errors.New("connection is closed")
	// ErrBacklogFull: the peer reads frames more slowly than they are sent; the connection is closed.
	ErrBacklogFull = errors.New("send backlog is full")
	// ErrNoRoom: too much waits to be written for a frame that its sender can do without. The connection goes on.
	ErrNoRoom = errors.New("no room in the send backlog")
	// ErrTooLarge: a frame to send exceeds Options.MaxFrameBytes. The connection goes on.
	ErrTooLarge = errors.New("frame is too large")
	// ErrProtocol: the received bytes aren't a frame that this end accepts.
	ErrProtocol = errors.New("protocol violation")
)

// Options of a connection; a zero field means the default.
type Options struct {
	MaxFrameBytes int           // of one frame, both ways, its header included; 16 MiB
	TraverseBytes uint64        // that the accessors of one received frame may walk over; 64 MiB
	BacklogBytes  int           // of data frames that wait to be written; 64 MiB
	WriteTimeout  time.Duration // for each write of at most 256 KiB; 3 s
	FrameTimeout  time.Duration // from a frame's first byte to its last; 10 s
}

const (
	defaultMaxFrameBytes = 16 << 20
	defaultTraverseBytes = 64 << 20
	defaultBacklogBytes  = 64 << 20
	defaultWriteTimeout  = 3 * time.Second
	defaultFrameTimeout  = 10 * time.Second

	controlBacklogBytes = 1 << 20
	maxWriteBytes       = 256 << 10 // of one write call: each has the whole WriteTimeout
	gatherBytes         = 64 << 10  // small frames are gathered up to this before they are written
	readBufferBytes     = 64 << 10
)

func (o Options) withDefaults() Options {
	if o.MaxFrameBytes <= 0 {
		o.MaxFrameBytes = defaultMaxFrameBytes
	}
	if o.TraverseBytes == 0 {
		o.TraverseBytes = defaultTraverseBytes
	}
	if o.BacklogBytes <= 0 {
		o.BacklogBytes = defaultBacklogBytes
	}
	if o.WriteTimeout <= 0 {
		o.WriteTimeout = defaultWriteTimeout
	}
	if o.FrameTimeout <= 0 {
		o.FrameTimeout = defaultFrameTimeout
	}
	return o
}

// Conn is one connection. Sends may come from any goroutine and never block. Read belongs to one goroutine, and only
// its error means that the connection is lost: after a failed write nothing more is written, but what the peer has sent
// is still read.
type Conn struct {
	conn    net.Conn
	options Options
	flushed chan struct{} // closed when the flusher has ended
	done    chan struct{}

	bytesIn, bytesOut atomic.Uint64

	mu           sync.Mutex
	flusherWake  sync.Cond // signals the flusher
	control      []byte    // framed, written before data
	data         []queuedFrame
	backlog      int       // bytes of data that aren't written yet
	err          error     // first failure; nil while the connection works
	closing      bool      // CloseAfterFlush was called: no more sends, end when all is written
	readDeadline time.Time // set by SetReadDeadline
	readCutoff   time.Time // set after a failed write: reading ends then, whatever readDeadline is

	reader reader
}

// reader is the state of the goroutine that calls Read.
type reader struct {
	buffered        *bufio.Reader
	body            []byte
	sizes           []int // of the segments in body
	deadlineRunning bool  // the frame that is being read has a deadline
	msg             capnp.Message
	arena           capnp.ReadOnlySingleSegment
	inUse           bool
	release         func()
}

// New makes a connection over c, which it owns from now on, and starts the flusher. Close must be called.
func New(c net.Conn, o Options) *Conn {
	w := &Conn{conn: c, options: o.withDefaults(), flushed: make(chan struct{}), done: make(chan struct{})}
	w.flusherWake.L = &w.mu
	w.reader.buffered = bufio.NewReaderSize(c, readBufferBytes)
	w.reader.release = w.release
	go w.flush()
	return w
}

// Close ends the connection at once, drops what isn't written and waits for the flusher. It may be called repeatedly
// and from any goroutine.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	err := c.conn.Close()
	<-c.flushed
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// CloseAfterFlush refuses further sends, waits until everything is written, the connection fails or ctx ends, and
// closes.
func (c *Conn) CloseAfterFlush(ctx context.Context) error {
	c.mu.Lock()
	c.closing = true
	c.flusherWake.Signal()
	c.mu.Unlock()
	var err error
	select {
	case <-c.flushed:
		err = c.failure()
	case <-ctx.Done():
		err = fmt.Errorf("flush connection: %w", ctx.Err())
	}
	return errors.Join(err, c.Close())
}

// Done is closed when nothing more can be sent. It says nothing about what can still be read.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection ended: the first failure, ErrClosed after Close, nil while it works.
func (c *Conn) Err() error { return c.failure() }

// BytesIn is how many bytes of frames were received, headers included.
func (c *Conn) BytesIn() uint64 { return c.bytesIn.Load() }

// BytesOut is how many bytes were written.
func (c *Conn) BytesOut() uint64 { return c.bytesOut.Load() }

// Backlog is how many bytes of data frames wait to be written.
func (c *Conn) Backlog() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.backlog
}

func (c *Conn) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail notes the first error, after which sends are refused and the flusher ends; it returns what Err returns.
func (c *Conn) fail(err error) error {
	c.mu.Lock()
	if c.err != nil {
		err = c.err
		c.mu.Unlock()
		return err
	}
	c.err = err
	dropped := c.data
	c.data, c.control, c.backlog = nil, nil, 0
	close(c.done)
	c.flusherWake.Signal()
	c.mu.Unlock()
	for _, e := range dropped {
		e.release()
	}
	return err
}

// Guard runs decode and turns a panic of it into ErrProtocol. Accessors of a union panic when another member is set; a
// caller checks Which first, and this is the second line of defence. Nothing but decoding belongs inside.
func Guard(decode func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: decode: %v", ErrProtocol, p)
		}
	}()
	return decode()
}

// Versions of the protocol that this build speaks, for Hello.
const (
	Protocol    uint16 = 1
	MinProtocol uint16 = 1
)

// Agree returns the protocol version that both ends speak, from this build's range and the range in the peer's Hello.
func Agree(h schema.Hello) (uint16, error) {
	version := min(Protocol, h.Protocol())
	if version < MinProtocol || version < h.MinProtocol() {
		return 0, fmt.Errorf("%w: peer speaks protocol %d to %d, this build %d to %d",
			ErrProtocol, h.MinProtocol(), h.Protocol(), MinProtocol, Protocol)
	}
	return version, nil
}
