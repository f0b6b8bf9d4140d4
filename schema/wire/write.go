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

// Later is a frame that the flusher builds when its turn has come, so that the sender only hands over what it has.
type Later interface {
	Size() int // bytes that it counts for in the backlog until it is written
	Build(schema.Frame) error
	Release() // called exactly once, after Build or instead of it, from any goroutine; must not call the Conn
}

// entry is one frame in the data queue: framed bytes, or one to build later.
type entry struct {
	frame []byte
	later Later
	size  int
}

func (e *entry) drop() {
	if e.later != nil {
		e.later.Release()
		e.later = nil
	}
}

// Send builds a frame and queues it behind all earlier ones. It never blocks. Errors: ErrTooLarge, ErrBacklogFull, ErrClosed, or what
// build returned.
func (c *Conn) Send(build func(schema.Frame) error) error {
	frame, err := c.encode(nil, build)
	if err != nil {
		return err
	}
	return c.queue(entry{frame: frame, size: len(frame)})
}

// Fits tells whether a frame of that size, its header included, may be sent.
func (c *Conn) Fits(size int) bool { return size <= c.options.MaxFrameBytes }

// SendLater queues a frame that is built when it is written. l is the connection's from now on, whatever is returned.
func (c *Conn) SendLater(l Later) error {
	return c.queue(entry{later: l, size: l.Size()})
}

// SendControl is Send for frames that go out before all queued data: cancel, ping, pong, goAway, hello.
func (c *Conn) SendControl(build func(schema.Frame) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.refusal(); err != nil {
		return err
	}
	framed, err := c.encode(c.control, build)
	if err != nil {
		return err
	}
	if len(framed) > controlBacklogBytes {
		// A frame that doesn't fit is the end, and fail takes the lock itself.
		c.mu.Unlock()
		err = c.overflow()
		c.mu.Lock()
		return err
	}
	c.control = framed
	c.work.Signal()
	return nil
}

func (c *Conn) queue(e entry) error {
	c.mu.Lock()
	if err := c.refusal(); err != nil {
		c.mu.Unlock()
		e.drop()
		return err
	}
	if c.backlog+e.size > c.options.BacklogBytes {
		c.mu.Unlock()
		e.drop()
		return c.overflow()
	}
	c.backlog += e.size
	c.data = append(c.data, e)
	c.work.Signal()
	c.mu.Unlock()
	return nil
}

// refusal says why nothing more can be sent. The caller holds mu.
func (c *Conn) refusal() error {
	switch {
	case errors.Is(c.err, ErrClosed), c.err == nil && c.flushing:
		return ErrClosed
	case c.err != nil:
		return fmt.Errorf("%w: %w", ErrClosed, c.err)
	}
	return nil
}

func (c *Conn) overflow() error {
	c.fail(ErrBacklogFull)
	_ = c.conn.Close() // the reader sees it and declares the loss
	return ErrBacklogFull
}

// flush is the flusher: it alone writes, and ends with the first error or when the connection is closed.
func (c *Conn) flush() {
	defer close(c.flushed)
	w := writer{conn: c}
	var batch []entry
	for {
		var ok bool
		if batch, ok = c.take(batch[:0]); !ok {
			return
		}
		err := w.write(batch)
		for i := range batch {
			batch[i].drop()
		}
		clear(batch)
		if err != nil {
			c.fail(err)
			c.limitReads(time.Now().Add(c.options.WriteTimeout))
			return
		}
	}
}

// take waits for something to write and gives the queued data in exchange for an empty slice; control frames stay until the writer
// asks for them. False: the connection ended.
func (c *Conn) take(empty []entry) ([]entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && len(c.data) == 0 && len(c.control) == 0 {
		if c.flushing {
			return nil, false
		}
		c.work.Wait()
	}
	if c.err != nil {
		return nil, false
	}
	batch := c.data
	c.data = empty
	return batch, true
}

// takeControl moves the queued control frames to the end of out and takes written bytes off the backlog.
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

// writer gathers frames; it is the flusher's alone.
type writer struct {
	conn    *Conn
	out     []byte
	pending int // backlog bytes of the data frames in out
}

func (w *writer) write(batch []entry) error {
	w.out = w.conn.takeControl(w.out[:0], 0)
	for i := range batch {
		if err := w.add(&batch[i]); err != nil {
			return err
		}
		if len(w.out) >= gatherBytes {
			if err := w.send(); err != nil {
				return err
			}
		}
	}
	for len(w.out) > 0 {
		if err := w.send(); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) add(e *entry) error {
	w.pending += e.size
	if e.later == nil {
		w.out = append(w.out, e.frame...)
		return nil
	}
	framed, err := w.conn.encode(w.out, e.later.Build)
	e.drop()
	if err != nil {
		return fmt.Errorf("build frame: %w", err)
	}
	w.out = framed
	return nil
}

// send writes what was gathered and begins the next gathering with the control frames that came meanwhile.
func (w *writer) send() error {
	for rest := w.out; len(rest) > 0; {
		part := rest[:min(len(rest), writeBytes)]
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
	if cap(w.out) > 4*writeBytes {
		w.out = nil // one large prompt need not stay in memory
	}
	w.out = w.conn.takeControl(w.out[:0], w.pending)
	w.pending = 0
	return nil
}

var messages = sync.Pool{New: func() any { return new(capnp.Message) }}

// encode appends one framed message to out. The arena is of the library's pool, and one segment keeps the header at one word.
func (c *Conn) encode(out []byte, build func(schema.Frame) error) ([]byte, error) {
	msg := messages.Get().(*capnp.Message)
	defer func() {
		msg.Release()
		messages.Put(msg)
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
