package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
)

const (
	wordBytes = 8
	// This build writes one segment a frame; other writers may use a few more.
	maxSegments     = 64
	keepBufferBytes = 1 << 20 // a body buffer up to this is kept for the next frame
	// bodyPartBytes: bodies are read in parts of this size, so that a header with a large size allocates little
	bodyPartBytes = 1 << 20
	messageDepth  = 32
)

// Read waits for the next frame. Only one goroutine may call it. The frame and everything reached from it are valid
// until release is called or the next Read; what must live longer is copied. io.EOF means that the peer closed between
// two frames; any error is the end.
func (c *Conn) Read() (frame schema.Frame, release func(), err error) {
	c.release()
	if _, err := c.reader.buffered.Peek(1); err != nil {
		if !errors.Is(err, io.EOF) {
			err = fmt.Errorf("await frame: %w", err)
		}
		return schema.Frame{}, nil, c.readFailed(err)
	}
	if err := c.readFrame(); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return schema.Frame{}, nil, c.readFailed(fmt.Errorf("read frame: %w", err))
	}
	if frame, err = c.openFrame(); err != nil {
		return schema.Frame{}, nil, c.readFailed(fmt.Errorf("%w: open frame: %w", ErrProtocol, err))
	}
	return frame, c.reader.release, nil
}

// SetReadDeadline limits how long Read may wait for a frame to begin; zero: for ever, which is the default.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readDeadline = t
	return c.conn.SetReadDeadline(earlier(t, c.readCutoff))
}

// cutOffReads ends reading at t, whatever deadline is set afterwards.
func (c *Conn) cutOffReads(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readCutoff = t
	_ = c.conn.SetReadDeadline(earlier(c.readDeadline, t)) // fails on a closed connection, where no read waits
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// readFailed ends the connection with the error. If it had failed before, the first error is reported too, so that a
// reader that only sees a closed connection reports the cause.
func (c *Conn) readFailed(err error) error {
	first := c.fail(err)
	if first != err && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", first, err)
	}
	return err
}

// readFrame reads header and body. The frame's deadline starts only when a part of it has to be waited for, so that
// frames which came as a whole need no system call for it.
func (c *Conn) readFrame() error {
	r := &c.reader
	total, err := c.readHeader()
	if err == nil {
		err = c.readBody(total)
	}
	if r.deadlineRunning {
		r.deadlineRunning = false
		c.setFrameDeadline(time.Time{})
	}
	return err
}

// startFrameDeadline starts the frame's deadline unless n bytes are buffered.
func (c *Conn) startFrameDeadline(n int) {
	r := &c.reader
	if !r.deadlineRunning && r.buffered.Buffered() < n {
		r.deadlineRunning = true
		c.setFrameDeadline(time.Now().Add(c.options.FrameTimeout))
	}
}

// setFrameDeadline sets the deadline of the frame that is being read; zero goes back to that of SetReadDeadline. It
// fails only on a closed connection, which the read itself reports.
func (c *Conn) setFrameDeadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() {
		t = c.readDeadline
	}
	_ = c.conn.SetReadDeadline(earlier(t, c.readCutoff))
}

// readHeader stores the segment sizes in r.sizes and returns their sum in bytes, checked against the limits.
func (c *Conn) readHeader() (total int, err error) {
	r := &c.reader
	b, err := c.peekWithDeadline(wordBytes)
	if err != nil {
		return 0, err
	}
	segments := uint64(binary.LittleEndian.Uint32(b)) + 1
	if segments > maxSegments {
		return 0, fmt.Errorf("%w: frame of %d segments, %d are allowed", ErrProtocol, segments, maxSegments)
	}
	header := (4*(int(segments)+1) + wordBytes - 1) &^ (wordBytes - 1)
	if b, err = c.peekWithDeadline(header); err != nil {
		return 0, err
	}
	r.sizes = r.sizes[:0]
	sum := uint64(header)
	for i := range int(segments) {
		size := uint64(binary.LittleEndian.Uint32(b[4+4*i:])) * wordBytes
		sum += size
		r.sizes = append(r.sizes, int(size))
	}
	if sum > uint64(c.options.MaxFrameBytes) {
		return 0, fmt.Errorf("%w: frame of %d bytes, %d are allowed", ErrProtocol, sum, c.options.MaxFrameBytes)
	}
	c.bytesIn.Add(sum)
	_, err = r.buffered.Discard(header)
	return int(sum) - header, err
}

func (c *Conn) peekWithDeadline(n int) ([]byte, error) {
	c.startFrameDeadline(n)
	return c.reader.buffered.Peek(n)
}

func (c *Conn) readBody(total int) error {
	r := &c.reader
	c.startFrameDeadline(total)
	r.body = r.body[:0]
	for len(r.body) < total {
		part := min(total-len(r.body), bodyPartBytes)
		r.body = slices.Grow(r.body, part)
		n := len(r.body)
		r.body = r.body[:n+part]
		if _, err := io.ReadFull(r.buffered, r.body[n:]); err != nil {
			return err
		}
	}
	return nil
}

// openFrame makes a message of the body. One segment, which is what this build writes, costs no allocation.
func (c *Conn) openFrame() (schema.Frame, error) {
	r := &c.reader
	r.msg.TraverseLimit = c.options.TraverseBytes
	r.msg.DepthLimit = messageDepth
	var arena capnp.Arena = &r.arena
	if len(r.sizes) == 1 {
		r.arena.ReplaceData(r.body)
	} else {
		parts, rest := make([][]byte, len(r.sizes)), r.body
		for i, n := range r.sizes {
			parts[i], rest = rest[:n:n], rest[n:]
		}
		arena = capnp.MultiSegment(parts)
	}
	r.inUse = true
	if _, err := r.msg.Reset(arena); err != nil {
		return schema.Frame{}, err
	}
	return schema.ReadRootFrame(&r.msg)
}

func (c *Conn) release() {
	r := &c.reader
	if !r.inUse {
		return
	}
	r.inUse = false
	r.msg.Release()
	if cap(r.body) > keepBufferBytes {
		r.body = nil
	}
}
