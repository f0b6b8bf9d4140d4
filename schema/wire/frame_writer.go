package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
)

// Later is a frame that the flusher builds just before it is written, so that the sender doesn't encode it.
type Later interface {
	Size() int // in bytes, in the backlog until it is written
	Build(schema.Frame) error
	Release() // called exactly once, after Build or instead of it, from any goroutine; must not call the Conn
}

// queuedFrame is one frame in the data queue: encoded, or to be built later.
type queuedFrame struct {
	frame []byte
	later Later
	size  int
}

func (e *queuedFrame) release() {
	if e.later != nil {
		e.later.Release()
		e.later = nil
	}
}

// Send builds a frame and queues it behind all earlier ones. It never blocks. Errors: ErrTooLarge, ErrBacklogFull,
// ErrClosed, or what build returned.
func (c *Conn) Send(build func(schema.Frame) error) error {
	frame, err := c.encode(nil, build)
	if err != nil {
		return err
	}
	return c.enqueue(queuedFrame{frame: frame, size: len(frame)}, false)
}

// SendIfRoom is Send for a frame that its sender can do without: behind others it may fill a quarter of BacklogBytes.
// Beyond that it gets ErrNoRoom, and the connection goes on.
func (c *Conn) SendIfRoom(build func(schema.Frame) error) error {
	frame, err := c.encode(nil, build)
	if err != nil {
		return err
	}
	return c.enqueue(queuedFrame{frame: frame, size: len(frame)}, true)
}

// Fits reports whether a frame of that size, its header included, may be sent.
func (c *Conn) Fits(size int) bool { return size <= c.options.MaxFrameBytes }

// SendLater queues a frame that is built when it is written. l belongs to the connection from now on, even after an
// error.
func (c *Conn) SendLater(l Later) error {
	return c.enqueue(queuedFrame{later: l, size: l.Size()}, false)
}

// SendControl is Send for frames that go out before all queued data: cancel, ping, pong, goAway, hello.
func (c *Conn) SendControl(build func(schema.Frame) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.sendRefusal(); err != nil {
		return err
	}
	framed, err := c.encode(c.control, build)
	if err != nil {
		return err
	}
	if len(framed) > controlBacklogBytes {
		// A frame that doesn't fit ends the connection, and fail takes the lock itself.
		c.mu.Unlock()
		err = c.failBacklogFull()
		c.mu.Lock()
		return err
	}
	c.control = framed
	c.flusherWake.Signal()
	return nil
}

// enqueue queues a data frame. One that needn't go out is refused where another would end the connection, and earlier.
func (c *Conn) enqueue(e queuedFrame, optional bool) error {
	c.mu.Lock()
	if err := c.sendRefusal(); err != nil {
		c.mu.Unlock()
		e.release()
		return err
	}
	if optional && c.backlog > 0 && c.backlog+e.size > c.options.BacklogBytes/4 {
		c.mu.Unlock()
		return fmt.Errorf("%w: %d bytes", ErrNoRoom, e.size)
	}
	if c.backlog+e.size > c.options.BacklogBytes {
		c.mu.Unlock()
		e.release()
		return c.failBacklogFull()
	}
	c.backlog += e.size
	c.data = append(c.data, e)
	c.flusherWake.Signal()
	c.mu.Unlock()
	return nil
}

// sendRefusal is the error when nothing more can be sent. The caller holds mu.
func (c *Conn) sendRefusal() error {
	switch {
	case errors.Is(c.err, ErrClosed), c.err == nil && c.closing:
		return ErrClosed
	case c.err != nil:
		return fmt.Errorf("%w: %w", ErrClosed, c.err)
	}
	return nil
}

func (c *Conn) failBacklogFull() error {
	c.fail(ErrBacklogFull)
	_ = c.conn.Close() // Read returns the loss
	return ErrBacklogFull
}

// flush is the flusher's goroutine, the only one that writes. It ends with the first error or when the connection is
// closed.
func (c *Conn) flush() {
	defer close(c.flushed)
	w := writer{conn: c}
	var batch []queuedFrame
	for {
		var ok bool
		if batch, ok = c.takeData(batch[:0]); !ok {
			return
		}
		err := w.writeBatch(batch)
		for i := range batch {
			batch[i].release()
		}
		clear(batch)
		if err != nil {
			c.fail(err)
			c.cutOffReads(time.Now().Add(c.options.WriteTimeout))
			return
		}
	}
}

// takeData waits for something to write and returns the queued data in exchange for an empty slice; control frames stay
// until takeControl. False: the connection ended.
func (c *Conn) takeData(empty []queuedFrame) ([]queuedFrame, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && len(c.data) == 0 && len(c.control) == 0 {
		if c.closing {
			return nil, false
		}
		c.flusherWake.Wait()
	}
	if c.err != nil {
		return nil, false
	}
	batch := c.data
	c.data = empty
	return batch, true
}

// takeControl appends the queued control frames to out and subtracts written bytes from the backlog.
func (c *Conn) takeControl(out []byte, written int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.backlog -= written
	}
	out = append(out, c.control...)
	c.control = c.control[:0]
	return out
}

// writer gathers frames into large writes. Only the flusher uses it.
type writer struct {
	conn    *Conn
	out     []byte
	pending int // backlog bytes of the data frames in out
}

func (w *writer) writeBatch(batch []queuedFrame) error {
	w.out = w.conn.takeControl(w.out[:0], 0)
	for i := range batch {
		if err := w.addFrame(&batch[i]); err != nil {
			return err
		}
		if len(w.out) >= gatherBytes {
			if err := w.writeOut(); err != nil {
				return err
			}
		}
	}
	for len(w.out) > 0 {
		if err := w.writeOut(); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) addFrame(e *queuedFrame) error {
	w.pending += e.size
	if e.later == nil {
		w.out = append(w.out, e.frame...)
		return nil
	}
	framed, err := w.conn.encode(w.out, e.later.Build)
	e.release()
	if err != nil {
		return fmt.Errorf("build frame: %w", err)
	}
	w.out = framed
	return nil
}

// writeOut writes what was gathered and starts the next gathering with the control frames that came meanwhile.
func (w *writer) writeOut() error {
	for rest := w.out; len(rest) > 0; {
		part := rest[:min(len(rest), maxWriteBytes)]
		if err := w.conn.conn.SetWriteDeadline(time.Now().Add(w.conn.options.WriteTimeout)); err != nil {
			return fmt.Errorf("set write deadline: %w", err)
		}
		n, err := w.conn.conn.Write(part)
		w.conn.bytesOut.Add(uint64(n))
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		rest = rest[n:]
	}
	if cap(w.out) > 4*maxWriteBytes {
		w.out = nil // a large buffer isn't kept
	}
	w.out = w.conn.takeControl(w.out[:0], w.pending)
	w.pending = 0
	return nil
}

var messagePool = sync.Pool{New: func() any { return new(capnp.Message) }}

// encode appends one framed message to out. The arena is of the library's pool, and one segment keeps the header at one
// word.
func (c *Conn) encode(out []byte, build func(schema.Frame) error) ([]byte, error) {
	msg := messagePool.Get().(*capnp.Message)
	defer func() {
		msg.Release()
		messagePool.Put(msg)
	}()
	segment, err := msg.Reset(capnp.SingleSegment(nil))
	if err != nil {
		return out, fmt.Errorf("start frame: %w", err)
	}
	frame, err := schema.NewRootFrame(segment)
	if err != nil {
		return out, fmt.Errorf("start frame: %w", err)
	}
	if err := build(frame); err != nil {
		return out, err
	}
	data := segment.Data()
	if len(data)+wordBytes > c.options.MaxFrameBytes {
		return out, fmt.Errorf("%w: %d bytes, %d are allowed", ErrTooLarge, len(data)+wordBytes, c.options.MaxFrameBytes)
	}
	var header [wordBytes]byte
	binary.LittleEndian.PutUint32(header[4:], uint32(len(data)/wordBytes))
	return append(append(out, header[:]...), data...), nil
}
