package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"tandem/engine/models"
	"tandem/schema"
	"tandem/schema/wire"
)

// session is one connection after both hellos. It is the sink of all its requests at the executor.
type session struct {
	link *Link
	conn *wire.Conn
	ctx  context.Context // of everything done for this connection
	end  context.CancelCauseFunc
	work sync.WaitGroup // preparations, calls and the goroutines that report
	news chan struct{}  // a place for one: the catalog's list of loaded entries changed

	mu        sync.Mutex
	requests  map[key]*request
	early     ring // cancels that came before their request, which control frames may do
	choices   int  // requests of another choice than the first
	moving    bool
	movedSent bool
	calls     int
}

const maxCalls = 64

var errGoAway = errors.New("the proxy ends the connection")

func newSession(l *Link, conn *wire.Conn) *session {
	s := &session{link: l, conn: conn, news: make(chan struct{}, 1), requests: make(map[key]*request)}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	return s
}

// run serves until the connection is lost, then ends everything that was done for it.
func (s *session) run(ctx context.Context) error {
	s.work.Go(s.reportStats)
	s.work.Go(s.reportCatalog)
	err := s.read()
	s.lose()
	if errors.Is(err, io.EOF) {
		s.link.o.Log.Info("the proxy closed the connection")
		return nil
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// lose cancels what is in hand. Preparations under way end first, so that none is submitted afterwards.
func (s *session) lose() {
	s.end(errLost)
	s.link.o.Executor.CancelSink(s)
	s.conn.Close()
	s.work.Wait()
	s.link.o.Executor.CancelSink(s)
}

func (s *session) read() error {
	for {
		frame, release, err := s.conn.Read()
		if err != nil {
			return err
		}
		err = s.dispatch(frame)
		release()
		if err != nil {
			if !errors.Is(err, errGoAway) {
				sayGoodbye(s.conn, clip(err.Error()))
			}
			return err
		}
	}
}

// dispatch takes what it needs out of a frame and hands it on; it never waits. Unknown members are for newer engines and ignored.
func (s *session) dispatch(f schema.Frame) error {
	switch f.Which() {
	case schema.Frame_Which_infer:
		var k key
		var in inference
		err := wire.Guard(func() (err error) {
			k, in, err = decode(f)
			return err
		})
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		return s.admit(k, in)
	case schema.Frame_Which_cancel:
		s.cancel(key{f.Id(), f.Attempt()})
	case schema.Frame_Which_call:
		var c call
		err := wire.Guard(func() (err error) {
			c, err = decodeCall(f)
			return err
		})
		if err != nil {
			return fmt.Errorf("read call: %w", err)
		}
		s.answer(c)
	case schema.Frame_Which_ping:
		return s.pong()
	case schema.Frame_Which_drained:
		s.link.drained()
	case schema.Frame_Which_move:
		s.move()
	case schema.Frame_Which_goAway:
		reason, _ := f.GoAway() // only for people
		return fmt.Errorf("%w: %s", errGoAway, clip(reason))
	}
	return nil
}

// admit enters a request and starts its preparation.
func (s *session) admit(k key, in inference) error {
	r := &request{key: k, in: in, arrived: time.Now()}
	r.ctx, r.stop = context.WithCancelCause(s.ctx)
	r.expire = func() {}
	if in.timeout > 0 {
		r.ctx, r.expire = context.WithTimeoutCause(r.ctx, in.timeout, errDeadline)
	}
	s.mu.Lock()
	if s.requests[k] != nil {
		s.mu.Unlock()
		r.free()
		return fmt.Errorf("%w: request %d attempt %d came twice", wire.ErrProtocol, k.id, k.attempt)
	}
	var refusal error
	switch {
	case s.early.take(k):
		refusal = errCancelled
	case s.moving:
		refusal = errMoved
	case len(s.requests) >= s.link.o.MaxRequests:
		refusal = fmt.Errorf("%w: %d", errFull, len(s.requests))
	}
	if refusal == nil {
		s.requests[k] = r
		if in.sampling.choice != 0 {
			s.choices++
		}
	}
	s.mu.Unlock()
	if refusal != nil {
		r.free()
		s.sendEnding(r, endingOf(refusal))
		s.record(r)
		return nil
	}
	s.work.Go(func() { s.prepare(r) })
	return nil
}

// cancel ends a request wherever it is. Unknown ones are over, or not there yet.
func (s *session) cancel(k key) {
	s.mu.Lock()
	r := s.requests[k]
	if r == nil {
		s.early.add(k)
		s.mu.Unlock()
		return
	}
	r.cancelled = true
	submitted := r.submitted
	s.mu.Unlock()
	r.stop(errCancelled)
	if submitted {
		s.link.o.Executor.Cancel(k.id, k.attempt)
	}
}

// move hands every request back; each ends with a summary that says so.
func (s *session) move() {
	s.mu.Lock()
	s.moving = true
	var submitted []key
	for k, r := range s.requests {
		r.moved, r.cancelled = true, true
		r.stop(errMoved)
		if r.submitted {
			submitted = append(submitted, k)
		}
	}
	s.mu.Unlock()
	for _, k := range submitted {
		s.link.o.Executor.Cancel(k.id, k.attempt)
	}
	s.maybeMoved()
}

// maybeMoved tells the proxy when the last request was handed back.
func (s *session) maybeMoved() {
	s.mu.Lock()
	tell := s.moving && len(s.requests) == 0 && !s.movedSent
	s.movedSent = s.movedSent || tell
	s.mu.Unlock()
	if !tell {
		return
	}
	_ = s.conn.Send(func(f schema.Frame) error { f.SetMoved(); return nil }) // a lost connection is the reader's business
	s.link.drained()
}

// forget removes a request whose summary was sent.
func (s *session) forget(r *request) {
	s.mu.Lock()
	delete(s.requests, r.key)
	if r.in.sampling.choice != 0 {
		s.choices--
	}
	moving := s.moving
	s.mu.Unlock()
	s.record(r)
	r.free()
	if moving {
		s.maybeMoved()
	}
}

func (r *request) free() {
	r.expire()
	r.stop(nil)
	if r.lease != nil {
		r.lease.Release()
	}
}

func (s *session) event(e models.Event) {
	_ = s.conn.Send(func(f schema.Frame) error { return writeEvent(f, &e) }) // a lost connection is the reader's business
	if e.Kind != models.EventProgress {
		select {
		case s.news <- struct{}{}:
		default:
		}
	}
}

func (s *session) sendDraining(d *drain) {
	_ = s.conn.Send(func(f schema.Frame) error {
		to, err := f.NewDraining()
		if err != nil {
			return err
		}
		to.SetGraceNs(nanos(d.grace))
		to.SetReplacement(d.replacement)
		return nil
	})
}

// ring remembers the last keys that were added; it is small because a cancel overtakes its request by moments.
type ring struct {
	keys [256]key
	next int
	used map[key]int
}

func (r *ring) add(k key) {
	if r.used == nil {
		r.used = make(map[key]int, len(r.keys))
	}
	if _, ok := r.used[k]; ok {
		return
	}
	if old := r.keys[r.next]; r.used[old] == r.next {
		delete(r.used, old)
	}
	r.keys[r.next], r.used[k] = k, r.next
	r.next = (r.next + 1) % len(r.keys)
}

func (r *ring) take(k key) bool {
	i, ok := r.used[k]
	if ok {
		delete(r.used, k)
		r.keys[i] = key{}
	}
	return ok
}
