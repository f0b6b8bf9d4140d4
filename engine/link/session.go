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
	link          *Link
	conn          *wire.Conn
	ctx           context.Context // of everything done for this connection
	cancel        context.CancelCauseFunc
	work          sync.WaitGroup // preparations, calls, and the goroutines that send reports
	loadedChanged chan struct{}  // a place for one: what is loaded changed, so the catalog is sent again
	// reportMu is held while an event or the catalog is written and queued, so that none overtakes a newer one.
	reportMu sync.Mutex

	mu           sync.Mutex
	requests     map[attemptKey]*inFlightRequest
	earlyCancels recentKeys // cancels that came before their request, since control frames overtake others
	otherChoices int        // requests with a choice other than 0
	splitting    int        // requests whose answer is a part stream, at the executor
	handingBack  bool
	movedSent    bool
	callsRunning int

	split splitScratch // of the executor's goroutine
}

const maxCalls = 64

var errGoAway = errors.New("the proxy ends the connection")

func newSession(l *Link, conn *wire.Conn) *session {
	s := &session{link: l, conn: conn, loadedChanged: make(chan struct{}, 1), requests: make(map[attemptKey]*inFlightRequest)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// run serves until the connection is lost, then ends everything that was done for it.
func (s *session) run(ctx context.Context) error {
	s.work.Go(s.reportStats)
	s.work.Go(s.reportCatalog)
	err := s.read()
	s.endWork()
	if errors.Is(err, io.EOF) {
		s.link.o.Log.Info("the proxy closed the connection")
		return nil
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// endWork cancels all requests and waits for the session's goroutines. A preparation may submit meanwhile, so it
// cancels again.
func (s *session) endWork() {
	s.cancel(errLost)
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
		err = s.handleFrame(frame)
		release()
		if err != nil {
			if !errors.Is(err, errGoAway) {
				sayGoodbye(s.conn, shorten(err.Error()))
			}
			return err
		}
	}
}

// handleFrame copies what it needs out of a frame and starts the work; it never waits. Unknown members are for newer
// engines and ignored.
func (s *session) handleFrame(f schema.Frame) error {
	switch f.Which() {
	case schema.Frame_Which_infer:
		var k attemptKey
		var in inferRequest
		err := wire.Guard(func() (err error) {
			k, in, err = decodeInfer(f)
			return err
		})
		if err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		return s.admit(k, in)
	case schema.Frame_Which_cancel:
		s.cancelRequest(attemptKey{f.Id(), f.Attempt()})
	case schema.Frame_Which_call:
		var c call
		err := wire.Guard(func() (err error) {
			c, err = decodeCall(f)
			return err
		})
		if err != nil {
			return fmt.Errorf("read call: %w", err)
		}
		s.startCall(c)
	case schema.Frame_Which_ping:
		return s.sendPong()
	case schema.Frame_Which_drained:
		s.link.drainEnded()
	case schema.Frame_Which_move:
		s.handBackAll()
	case schema.Frame_Which_goAway:
		reason, _ := f.GoAway() // only for people
		return fmt.Errorf("%w: %s", errGoAway, shorten(reason))
	}
	return nil
}

// admit adds a request and starts its preparation.
func (s *session) admit(k attemptKey, in inferRequest) error {
	r := &inFlightRequest{attemptKey: k, in: in, arrived: time.Now()}
	r.ctx, r.cancel = context.WithCancelCause(s.ctx)
	r.stopTimer = func() {}
	if in.timeout > 0 {
		r.ctx, r.stopTimer = context.WithTimeoutCause(r.ctx, in.timeout, errDeadline)
	}
	s.mu.Lock()
	if s.requests[k] != nil {
		s.mu.Unlock()
		r.releaseResources()
		return fmt.Errorf("%w: request %d attempt %d came twice", wire.ErrProtocol, k.id, k.attempt)
	}
	var refusal error
	switch {
	case s.earlyCancels.take(k):
		refusal = errCancelled
	case s.handingBack:
		refusal = errMoved
	case len(s.requests) >= s.link.o.MaxRequests:
		refusal = fmt.Errorf("%w: %d", errTooManyRequests, len(s.requests))
	}
	if refusal == nil {
		s.requests[k] = r
		if in.sampling.choice != 0 {
			s.otherChoices++
		}
	}
	s.mu.Unlock()
	if refusal != nil {
		r.releaseResources()
		s.sendEnding(r, endingFor(refusal))
		s.recordAttempt(r)
		return nil
	}
	s.work.Go(func() { s.prepareRequest(r) })
	return nil
}

// cancelRequest ends a request, in preparation or in the executor. An unknown one has ended, or hasn't come yet.
func (s *session) cancelRequest(k attemptKey) {
	s.mu.Lock()
	r := s.requests[k]
	if r == nil {
		s.earlyCancels.add(k)
		s.mu.Unlock()
		return
	}
	r.cancelled = true
	submitted := r.submitted
	s.mu.Unlock()
	r.cancel(errCancelled)
	if submitted {
		s.link.o.Executor.Cancel(k.id, k.attempt)
	}
}

// handBackAll hands every request back to the proxy; each ends with a summary with the reason movedAway.
func (s *session) handBackAll() {
	s.mu.Lock()
	s.handingBack = true
	var submitted []attemptKey
	for k, r := range s.requests {
		r.handedBack, r.cancelled = true, true
		r.cancel(errMoved)
		if r.submitted {
			submitted = append(submitted, k)
		}
	}
	s.mu.Unlock()
	for _, k := range submitted {
		s.link.o.Executor.Cancel(k.id, k.attempt)
	}
	s.sendMovedWhenEmpty()
}

// sendMovedWhenEmpty tells the proxy when the last request was handed back.
func (s *session) sendMovedWhenEmpty() {
	s.mu.Lock()
	send := s.handingBack && len(s.requests) == 0 && !s.movedSent
	s.movedSent = s.movedSent || send
	s.mu.Unlock()
	if !send {
		return
	}
	_ = s.conn.Send(func(f schema.Frame) error { f.SetMoved(); return nil }) // the reader notices a lost connection
	s.link.drainEnded()
}

// removeRequest removes a request whose summary was sent.
func (s *session) removeRequest(r *inFlightRequest) {
	s.mu.Lock()
	delete(s.requests, r.attemptKey)
	if r.in.sampling.choice != 0 {
		s.otherChoices--
	}
	if r.stream != nil || r.parsing != nil {
		s.splitting--
	}
	moving := s.handingBack
	s.mu.Unlock()
	s.recordAttempt(r)
	r.releaseResources()
	if moving {
		s.sendMovedWhenEmpty()
	}
}

func (r *inFlightRequest) releaseResources() {
	r.stopTimer()
	r.cancel(nil)
	if r.lease != nil {
		r.lease.Release()
	}
}

func (s *session) sendEvent(e models.Event) {
	s.reportMu.Lock()
	_ = s.conn.Send(func(f schema.Frame) error { return writeEvent(f, &e) }) // the reader notices a lost connection
	s.reportMu.Unlock()
	switch e.Kind {
	case models.EventProgress:
	case models.EventLoadFailed: // the list says what is wrong with the files; who waited for the load is told next
		_ = s.sendCatalog()
	default:
		select {
		case s.loadedChanged <- struct{}{}:
		default:
		}
	}
}

func (s *session) sendDraining(d *drainState) {
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
