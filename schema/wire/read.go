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
	// This build writes one segment a frame; a few more are allowed to writers that don't.
	maxSegments  = 64
	keepBytes    = 1 << 20 // a body buffer up to this is kept for the next frame
	growBytes    = 1 << 20 // bodies are read in parts, so that an announced size alone costs nothing
	messageDepth = 32
)

// Read waits for the next frame. Only one goroutine may call it. The frame and everything reached from it are valid until release is
// called or the next Read; what must live on is copied. io.EOF means that the peer closed between two frames; any error is the end.
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
	if frame, err = c.open(); err != nil {
		return schema.Frame{}, nil, c.readFailed(fmt.Errorf("%w: open frame: %w", ErrProtocol, err))
	}
	return frame, c.reader.release, nil
}

// SetReadDeadline limits how long Read may wait for a frame to begin; zero: for ever, which is the default.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readTill = t
	return c.conn.SetReadDeadline(earlier(t, c.readEnd))
}

// limitReads ends reading at t, whatever deadline is set afterwards.
func (c *Conn) limitReads(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readEnd = t
	_ = c.conn.SetReadDeadline(earlier(c.readTill, t)) // fails on a closed connection, where no read waits
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// readFailed notes the error as the connection's end; what Err names first wins, so that a reader that only notices the closing
// reports its cause.
func (c *Conn) readFailed(err error) error {
	first := c.fail(err)
	if first != err && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", first, err)
	}
	return err
}

// readFrame reads header and body. The deadline of the frame starts when a part of it isn't there yet, so that frames which came
// whole cost no system call for it.
func (c *Conn) readFrame() error {
	r := &c.reader
	total, err := c.readHeader()
	if err == nil {
		err = c.readBody(total)
	}
	if r.hurried {
		r.hurried = false
		c.setDeadline(time.Time{})
	}
	return err
}

// hurry starts the frame's deadline unless n bytes are there.
func (c *Conn) hurry(n int) {
	r := &c.reader
	if !r.hurried && r.buffered.Buffered() < n {
		r.hurried = true
		c.setDeadline(time.Now().Add(c.options.FrameTimeout))
	}
}

// setDeadline of the frame under way; zero goes back to what SetReadDeadline asked for. It fails only on a closed connection, which
// the read itself reports.
func (c *Conn) setDeadline(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() {
		t = c.readTill
	}
	_ = c.conn.SetReadDeadline(earlier(t, c.readEnd))
}

// readHeader leaves the segment sizes in r.sizes and gives their sum in bytes, checked against the limits.
func (c *Conn) readHeader() (total int, err error) {
	r := &c.reader
	b, err := c.peek(wordBytes)
	if err != nil {
		return 0, err
	}
	segments := uint64(binary.LittleEndian.Uint32(b)) + 1
	if segments > maxSegments {
		return 0, fmt.Errorf("%w: frame of %d segments, %d are allowed", ErrProtocol, segments, maxSegments)
	}
	header := (4*(int(segments)+1) + wordBytes - 1) &^ (wordBytes - 1)
	if b, err = c.peek(header); err != nil {
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

func (c *Conn) peek(n int) ([]byte, error) {
	c.hurry(n)
	return c.reader.buffered.Peek(n)
}

func (c *Conn) readBody(total int) error {
	r := &c.reader
	c.hurry(total)
	r.body = r.body[:0]
	for len(r.body) < total {
		part := min(total-len(r.body), growBytes)
		r.body = slices.Grow(r.body, part)
		n := len(r.body)
		r.body = r.body[:n+part]
		if _, err := io.ReadFull(r.buffered, r.body[n:]); err != nil {
			return err
		}
	}
	return nil
}

// open makes a message of the body. One segment, which is what this build writes, costs no allocation.
func (c *Conn) open() (schema.Frame, error) {
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
	r.lent = true
	if _, err := r.msg.Reset(arena); err != nil {
		return schema.Frame{}, err
	}
	return schema.ReadRootFrame(&r.msg)
}

func (c *Conn) release() {
	r := &c.reader
	if !r.lent {
		return
	}
	r.lent = false
	r.msg.Release()
	if cap(r.body) > keepBytes {
		r.body = nil
	}
}
