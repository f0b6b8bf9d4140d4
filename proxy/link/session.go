package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"tandem/proxy/inflight"
	"tandem/schema"
	"tandem/schema/wire"
)

// session is one connection with an engine. It implements inflight.Engine. Its reader alone calls the handler, so that what the handler hears
// is in the order of the frames, and Lost comes last.
type session struct {
	link *Listener
	conn *wire.Conn
	dec  decoder // the reader's
	work sync.WaitGroup
	raw  net.Conn      // under conn
	over chan struct{} // closed when the reader has ended
	exit chan string   // a place for one: the reason to tell the engine before closing

	heard  atomic.Bool               // a frame came since the last tick
	pinged atomic.Pointer[time.Time] // when the ping under way was sent; nil: none

	mu     sync.Mutex
	reason string // why we closed; empty: we didn't
	calls  map[uint64]chan reply
	lastID uint64
}

var _ inflight.Engine = (*session)(nil)

func newSession(l *Listener, raw net.Conn) *session {
	return &session{link: l, raw: raw, conn: wire.New(raw, l.o.Wire), over: make(chan struct{}), exit: make(chan string, 1), calls: make(map[uint64]chan reply)}
}

// errGoAway ends a session because the engine said so.
var errGoAway = errors.New("the engine ends the connection")

// run greets, serves and ends the session. It is the reader.
func (s *session) run() {
	l := s.link
	hello, err := s.greet()
	if err != nil {
		if !errors.Is(err, io.EOF) {
			l.o.Log.Warn("greeting an engine failed", "error", err)
		}
		flushAndClose(s.conn, clip(err.Error()))
		s.count(0, 0)
		return
	}
	l.o.Handler.Attached(s, hello)
	s.work.Go(s.tick)
	err = s.read()
	close(s.over)
	s.failCalls()
	if errors.Is(err, wire.ErrProtocol) {
		flushAndClose(s.conn, clip(err.Error()))
	} else {
		_ = s.conn.Close() // only wakes what still waits to write
	}
	s.work.Wait()
	l.o.Handler.Lost(s, s.loss(err))
}

// greet reads the engine's hello, takes a place and answers with ours.
func (s *session) greet() (inflight.Hello, error) {
	l := s.link
	var h inflight.Hello
	if err := s.conn.SetReadDeadline(time.Now().Add(l.o.HelloTimeout)); err != nil {
		return h, fmt.Errorf("limit wait for hello: %w", err)
	}
	frame, release, err := s.conn.Read()
	if err != nil {
		return h, err
	}
	err = wire.Guard(func() (err error) {
		h, err = decodeHello(frame)
		return err
	})
	release()
	if err != nil {
		return h, err
	}
	if err := s.conn.SetReadDeadline(time.Time{}); err != nil {
		return h, fmt.Errorf("end wait for hello: %w", err)
	}
	if err := l.seat(s); err != nil {
		return h, err
	}
	return h, s.conn.SendControl(l.hello)
}

func (s *session) read() error {
	for {
		frame, release, err := s.conn.Read()
		if err != nil {
			return err
		}
		s.heard.Store(true)
		err = wire.Guard(func() error { return s.dec.decode(frame) })
		if err != nil {
			release()
			return fmt.Errorf("%w: read frame: %w", wire.ErrProtocol, err)
		}
		err = s.report(&s.dec)
		release()
		if err != nil {
			return err
		}
	}
}

// report passes a decoded frame on. Members that this build doesn't know are for newer proxies.
func (s *session) report(d *decoder) error {
	b := s.link.o.Handler
	switch d.kind {
	case schema.Frame_Which_step:
		b.Step(s, &d.step)
	case schema.Frame_Which_accepted:
		b.Accepted(s, d.id, d.attempt, &d.accepted)
	case schema.Frame_Which_stats:
		b.Stats(s, &d.stats)
	case schema.Frame_Which_event:
		b.Event(s, d.event)
	case schema.Frame_Which_catalog:
		b.Catalog(s, &d.catalog)
	case schema.Frame_Which_pong:
		s.ponged()
		b.Heartbeats(s, d.heartbeats)
	case schema.Frame_Which_draining:
		b.Draining(s, d.grace, d.replacement)
	case schema.Frame_Which_moved:
		b.Moved(s)
	case schema.Frame_Which_reply:
		s.replied(d.id, d.reply)
	case schema.Frame_Which_goAway:
		return fmt.Errorf("%w: %s", errGoAway, clip(d.reason))
	}
	return nil
}

// tick pings, counts bytes and judges silence by its own ticks: a proxy that was itself stopped for a while has not ticked, and the
// reader has drained the socket long before enough ticks came.
func (s *session) tick() {
	t := time.NewTicker(pingEvery)
	defer t.Stop()
	silent := 0
	allowed := max(1, int(s.link.o.StallTimeout/pingEvery))
	var in, out uint64
	s.ping()
	for {
		select {
		case <-s.over:
			s.count(in, out)
			return
		case text := <-s.exit:
			flushAndClose(s.conn, text)
			continue
		case <-t.C:
		}
		in, out = s.count(in, out)
		if s.heard.Swap(false) {
			silent = 0
		} else if silent++; silent >= allowed {
			s.leave("stall", "no answer to pings")
		}
		s.ping()
	}
}

// count tells the meter what was carried since the last time.
func (s *session) count(in, out uint64) (nowIn, nowOut uint64) {
	nowIn, nowOut = s.conn.BytesIn(), s.conn.BytesOut()
	s.link.o.Meter.IPCReceived(int(nowIn - in))
	s.link.o.Meter.IPCSent(int(nowOut - out))
	return nowIn, nowOut
}

func (s *session) ping() {
	if now := time.Now(); s.pinged.CompareAndSwap(nil, &now) {
		s.control(func(f schema.Frame) error { f.SetPing(); return nil })
	}
}

func (s *session) ponged() {
	if sent := s.pinged.Swap(nil); sent != nil {
		s.link.o.Meter.IPCCall("ping", time.Since(*sent), "")
	}
}

// leave closes the connection for a reason of ours, once, without waiting for it: the reader then declares the loss.
func (s *session) leave(reason, text string) {
	s.mu.Lock()
	first := s.reason == ""
	if first {
		s.reason = reason
	}
	s.mu.Unlock()
	if first {
		s.exit <- text
	}
}

// loss says in one word of a closed set what ended the reader. The error of a connection that we closed says nothing.
func (s *session) loss(err error) inflight.Loss {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.reason != "":
		return inflight.Loss{Reason: s.reason}
	case errors.Is(err, errGoAway):
		return inflight.Loss{Reason: "goaway", Err: err}
	case errors.Is(err, wire.ErrProtocol):
		return inflight.Loss{Reason: "protocol", Err: err}
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET): // the other end closed; reset: with a frame of ours unread
		return inflight.Loss{Reason: "eof"}
	}
	return inflight.Loss{Reason: "error", Err: err}
}

// Infer implements inflight.Engine. The frame is built when its turn to be written has come.
func (s *session) Infer(sub *inflight.Submission) bool {
	frame := (*inferFrame)(sub)
	if !s.conn.Fits(frame.Size()) {
		return false // it would end the connection, and the next one, for everybody
	}
	_ = s.conn.SendLater(frame) // a lost connection is the reader's business
	return true
}

// Cancel implements inflight.Engine. It may overtake its request; engines remember such cancels.
func (s *session) Cancel(id uint64, attempt uint32) {
	s.control(func(f schema.Frame) error {
		f.SetId(id)
		f.SetAttempt(attempt)
		f.SetCancel()
		return nil
	})
}

// Drained implements inflight.Engine.
func (s *session) Drained() {
	_ = s.conn.Send(func(f schema.Frame) error { f.SetDrained(); return nil }) // a lost connection is the reader's business
}

// Move implements inflight.Engine.
func (s *session) Move() {
	_ = s.conn.Send(func(f schema.Frame) error { f.SetMove(); return nil }) // a lost connection is the reader's business
}

// Hangup implements inflight.Engine.
func (s *session) Hangup(reason string) { s.leave("protocol", clip(reason)) }

func (s *session) control(build func(schema.Frame) error) {
	_ = s.conn.SendControl(build) // a lost connection is the reader's business
}

// Metrics implements inflight.Engine.
func (s *session) Metrics(ctx context.Context) ([]byte, error) {
	r, err := s.call(ctx, "metrics", func(c schema.Call) error { c.SetMetrics(); return nil })
	return r.metrics, err
}

// Load implements inflight.Engine.
func (s *session) Load(ctx context.Context, model, version string) error {
	_, err := s.call(ctx, "load", func(c schema.Call) error {
		ref, err := c.NewLoad()
		if err != nil {
			return err
		}
		if err := ref.SetModel(model); err != nil {
			return err
		}
		return ref.SetVersion(version)
	})
	return err
}

// clip shortens text for frames and logs.
func clip(s string) string {
	const most = 200
	return s[:min(len(s), most)]
}
