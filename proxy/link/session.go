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

// session is one connection with an engine. It implements inflight.Engine. Only its reader calls the handler, so that
// the calls come in the order of the frames, and Lost is the last one.
type session struct {
	listener   *Listener
	conn       *wire.Conn
	dec        decoder // the reader's
	goroutines sync.WaitGroup
	rawConn    net.Conn      // under conn
	readerDone chan struct{} // closed when the reader has ended
	goAway     chan string   // holds one: the reason to send to the engine before closing

	gotFrame   atomic.Bool               // since the last tick of pingLoop
	pingSentAt atomic.Pointer[time.Time] // of the ping that isn't answered yet; nil: none

	mu          sync.Mutex
	closeReason string // why we closed the connection; empty: we didn't
	calls       map[uint64]chan reply
	lastID      uint64
}

var _ inflight.Engine = (*session)(nil)

func newSession(l *Listener, raw net.Conn) *session {
	return &session{
		listener: l, rawConn: raw, conn: wire.New(raw, l.options.Wire),
		readerDone: make(chan struct{}), goAway: make(chan string, 1), calls: make(map[uint64]chan reply),
	}
}

// errGoAway ends a session because the engine sent goAway.
var errGoAway = errors.New("the engine ends the connection")

// run is the session from the hellos to its end. Its goroutine is the reader.
func (s *session) run() {
	l := s.listener
	hello, err := s.handshake()
	if err != nil {
		if !errors.Is(err, io.EOF) {
			l.options.Log.Warn("greeting an engine failed", "error", err)
		}
		flushAndClose(s.conn, truncate(err.Error()))
		s.meterBytes(0, 0)
		return
	}
	l.options.Handler.Attached(s, hello)
	s.goroutines.Go(s.pingLoop)
	err = s.readFrames()
	close(s.readerDone)
	s.failCalls()
	if errors.Is(err, wire.ErrProtocol) {
		flushAndClose(s.conn, truncate(err.Error()))
	} else {
		_ = s.conn.Close() // only wakes goroutines that still wait to write
	}
	s.goroutines.Wait()
	l.options.Handler.Lost(s, s.lossFor(err))
}

// handshake reads the engine's hello, registers the session and answers with our hello.
func (s *session) handshake() (inflight.Hello, error) {
	l := s.listener
	var h inflight.Hello
	if err := s.conn.SetReadDeadline(time.Now().Add(l.options.HelloTimeout)); err != nil {
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
	if err := l.register(s); err != nil {
		return h, err
	}
	return h, s.conn.SendControl(l.writeHello)
}

// readFrames reads and handles frames until the connection ends.
func (s *session) readFrames() error {
	for {
		frame, release, err := s.conn.Read()
		if err != nil {
			return err
		}
		s.gotFrame.Store(true)
		err = wire.Guard(func() error { return s.dec.decode(frame) })
		if err != nil {
			release()
			return fmt.Errorf("%w: read frame: %w", wire.ErrProtocol, err)
		}
		err = s.handle(&s.dec)
		release()
		if err != nil {
			return err
		}
	}
}

// handle passes a decoded frame to the handler. Frames of a kind that this build doesn't know are ignored: they are for
// newer proxies.
func (s *session) handle(d *decoder) error {
	h := s.listener.options.Handler
	switch d.kind {
	case schema.Frame_Which_step:
		h.Step(s, &d.step)
	case schema.Frame_Which_accepted:
		h.Accepted(s, d.id, d.attempt, &d.accepted)
	case schema.Frame_Which_stats:
		h.Stats(s, &d.stats)
	case schema.Frame_Which_event:
		h.Event(s, d.event)
	case schema.Frame_Which_catalog:
		h.Catalog(s, &d.catalog)
	case schema.Frame_Which_pong:
		s.recordPong()
		h.Heartbeats(s, d.heartbeats)
	case schema.Frame_Which_draining:
		h.Draining(s, d.grace, d.replacement)
	case schema.Frame_Which_moved:
		h.Moved(s)
	case schema.Frame_Which_reply:
		s.deliverReply(d.id, d.reply)
	case schema.Frame_Which_goAway:
		return fmt.Errorf("%w: %s", errGoAway, truncate(d.reason))
	}
	return nil
}

// pingLoop sends pings, counts bytes and closes the connection after too long a silence. It measures silence by its own
// ticks: a proxy that was itself stopped for a while hasn't ticked, and its reader empties the socket long before there
// were enough ticks.
func (s *session) pingLoop() {
	t := time.NewTicker(pingInterval)
	defer t.Stop()
	silent := 0
	allowed := max(1, int(s.listener.options.StallTimeout/pingInterval))
	var in, out uint64
	s.ping()
	for {
		select {
		case <-s.readerDone:
			s.meterBytes(in, out)
			return
		case text := <-s.goAway:
			flushAndClose(s.conn, text)
			continue
		case <-t.C:
		}
		in, out = s.meterBytes(in, out)
		if s.gotFrame.Swap(false) {
			silent = 0
		} else if silent++; silent >= allowed {
			s.closeFor("stall", "no answer to pings")
		}
		s.ping()
	}
}

// meterBytes passes the bytes sent and received since the last call to the meter.
func (s *session) meterBytes(in, out uint64) (nowIn, nowOut uint64) {
	nowIn, nowOut = s.conn.BytesIn(), s.conn.BytesOut()
	s.listener.options.Meter.IPCReceived(int(nowIn - in))
	s.listener.options.Meter.IPCSent(int(nowOut - out))
	return nowIn, nowOut
}

func (s *session) ping() {
	if now := time.Now(); s.pingSentAt.CompareAndSwap(nil, &now) {
		s.sendControl(func(f schema.Frame) error { f.SetPing(); return nil })
	}
}

func (s *session) recordPong() {
	if sent := s.pingSentAt.Swap(nil); sent != nil {
		s.listener.options.Meter.IPCCall("ping", time.Since(*sent), "")
	}
}

// closeFor closes the connection for a reason of ours, once, without waiting for it. The reader then calls Lost.
func (s *session) closeFor(reason, text string) {
	s.mu.Lock()
	first := s.closeReason == ""
	if first {
		s.closeReason = reason
	}
	s.mu.Unlock()
	if first {
		s.goAway <- text
	}
}

// lossFor says why the reader ended, with a reason of a closed set. For a connection that we closed, the reader's error
// doesn't matter.
func (s *session) lossFor(err error) inflight.Loss {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closeReason != "":
		return inflight.Loss{Reason: s.closeReason}
	case errors.Is(err, errGoAway):
		return inflight.Loss{Reason: "goaway", Err: err}
	case errors.Is(err, wire.ErrProtocol):
		return inflight.Loss{Reason: "protocol", Err: err}
	// the other end closed; reset: with a frame of ours unread
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return inflight.Loss{Reason: "eof"}
	}
	return inflight.Loss{Reason: "error", Err: err}
}

// Infer implements inflight.Engine. The frame is built when its turn to be written has come.
func (s *session) Infer(sub *inflight.Submission) bool {
	frame := newInferFrame(sub)
	if !s.conn.Fits(frame.Size()) {
		return false // it would end this connection and the next one, for all requests
	}
	_ = s.conn.SendLater(frame) // a lost connection is the reader's business
	return true
}

// Backlog implements inflight.Engine.
func (s *session) Backlog() int { return s.conn.Backlog() }

// Cancel implements inflight.Engine. A cancel may overtake its request; engines remember such cancels.
func (s *session) Cancel(id uint64, attempt uint32) {
	s.sendControl(func(f schema.Frame) error {
		f.SetId(id)
		f.SetAttempt(attempt)
		f.SetCancel()
		return nil
	})
}

// Drained implements inflight.Engine.
func (s *session) Drained() {
	// a lost connection is the reader's business
	_ = s.conn.Send(func(f schema.Frame) error { f.SetDrained(); return nil })
}

// Move implements inflight.Engine.
func (s *session) Move() {
	// a lost connection is the reader's business
	_ = s.conn.Send(func(f schema.Frame) error { f.SetMove(); return nil })
}

// Hangup implements inflight.Engine.
func (s *session) Hangup(reason string) { s.closeFor("protocol", truncate(reason)) }

func (s *session) sendControl(build func(schema.Frame) error) {
	_ = s.conn.SendControl(build) // a lost connection is the reader's business
}

// Metrics implements inflight.Engine.
func (s *session) Metrics(ctx context.Context) ([]byte, error) {
	r, err := s.call(ctx, s.conn.Send, "metrics", func(c schema.Call) error { c.SetMetrics(); return nil })
	return r.metrics, err
}

// Load implements inflight.Engine.
func (s *session) Load(ctx context.Context, model, version string) error {
	_, err := s.call(ctx, s.conn.Send, "load", func(c schema.Call) error {
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

// Tokenize implements inflight.Engine.
func (s *session) Tokenize(ctx context.Context, model, version, text string, addSpecial bool) ([]int32, error) {
	r, err := s.callForClient(ctx, "tokenize", func(c schema.Call) error {
		in, err := c.NewTokenize()
		if err != nil {
			return err
		}
		in.SetRaw(true)
		in.SetAddSpecial(addSpecial)
		w := fieldWriter{}
		w.text(in.SetModel, model)
		w.text(in.SetVersion, version)
		w.data(in.SetText, []byte(text))
		return w.err
	})
	return r.tokens, err
}

// Detokenize implements inflight.Engine.
func (s *session) Detokenize(ctx context.Context, model, version string, tokens []int32) ([]byte, error) {
	r, err := s.callForClient(ctx, "detokenize", func(c schema.Call) error {
		in, err := c.NewDetokenize()
		if err != nil {
			return err
		}
		w := fieldWriter{}
		w.text(in.SetModel, model)
		w.text(in.SetVersion, version)
		if w.err != nil {
			return w.err
		}
		return writeIDs(in.NewTokens, tokens)
	})
	return r.text, err
}

// Render implements inflight.Engine.
func (s *session) Render(ctx context.Context, sub *inflight.Submission) (inflight.RenderedText, error) {
	frame := newInferFrame(sub)
	if !s.conn.Fits(frame.Size()) {
		return inflight.RenderedText{}, tooLarge()
	}
	r, err := s.callForClient(ctx, "render", func(c schema.Call) error {
		in, err := c.NewRender()
		if err != nil {
			return err
		}
		return frame.write(in)
	})
	return inflight.RenderedText{Text: r.text, Tokens: r.tokens}, err
}

// truncate shortens text for frames and logs.
func truncate(s string) string {
	const maxBytes = 200
	return s[:min(len(s), maxBytes)]
}
