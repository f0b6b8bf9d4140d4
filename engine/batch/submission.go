package batch

import (
	"fmt"
)

// Submit takes a request over; it never waits for a step. The Sink must be comparable, a pointer for example. After an
// error the request is still the caller's and Release isn't called.
func (e *Executor) Submit(r *Request) error {
	b, err := e.findBase(r)
	if err != nil {
		return err
	}
	if err := validate(r, b.limits); err != nil {
		return err
	}
	// Text and sampler are built here and not on the executor's goroutine: a long prompt takes some time. A grammar may
	// take longer, so a worker builds that.
	q := newSequence(r)
	q.replayEnd, _ = q.replayGenerated(b.runner, b.limits)
	if q.replayEnd == 0 && r.Sampling.Grammar == "" {
		q.sampler, err = b.runner.NewSampler(r.Sampling, r.Prompt, r.Generated)
		if err != nil {
			return fmt.Errorf("build sampler: %w", err)
		}
	}
	if err := e.enqueue(b, q); err != nil {
		if q.sampler != nil {
			q.sampler.Close()
		}
		return err
	}
	e.signal()
	return nil
}

// Check returns the error that Submit would return for what the request asks for.
func (e *Executor) Check(r *Request) error {
	b, err := e.findBase(r)
	if err != nil {
		return err
	}
	return validate(r, b.limits)
}

// findBase returns the base of a request, or why the request is refused. enqueue checks again.
func (e *Executor) findBase(r *Request) (*base, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.bases[r.Base]
	switch {
	case e.closed:
		return nil, ErrClosed
	case b == nil || b.detaching != nil:
		return nil, fmt.Errorf("%w: %q", ErrUnknownBase, r.Base)
	case len(e.requests) >= e.opts.MaxRequests:
		return nil, fmt.Errorf("%w: %d in hand", ErrTooMany, len(e.requests))
	case e.requests[requestKey{r.ID, r.Attempt}] != nil:
		return nil, fmt.Errorf("%w: id %d attempt %d", ErrDuplicate, r.ID, r.Attempt)
	}
	return b, nil
}

// enqueue puts a checked sequence into the inbox, unless it has to be refused since findBase looked.
func (e *Executor) enqueue(b *base, q *sequence) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return ErrClosed
	case b.detaching != nil || b.detached:
		return fmt.Errorf("%w: %q", ErrUnknownBase, b.key)
	case len(e.requests) >= e.opts.MaxRequests:
		return fmt.Errorf("%w: %d in hand", ErrTooMany, len(e.requests))
	case e.requests[q.key()] != nil:
		return fmt.Errorf("%w: id %d attempt %d", ErrDuplicate, q.req.ID, q.req.Attempt)
	}
	q.arrival = e.arrivals
	e.arrivals++
	q.submittedAt = e.now()
	if q.req.Timeout > 0 {
		q.deadline = q.submittedAt + q.req.Timeout
	}
	q.job.base = b
	b.inboxCount++
	e.requests[q.key()] = q
	e.inbox = append(e.inbox, message{kind: messageSubmit, seq: q, base: b})
	return nil
}

// Cancel ends a request with FinishCancelled, between steps. Unknown and finished ones are ignored.
func (e *Executor) Cancel(id uint64, attempt uint32) {
	e.mu.Lock()
	q := e.requests[requestKey{id, attempt}]
	if q == nil || q.cancelled {
		e.mu.Unlock()
		return
	}
	q.cancelled = true
	e.inbox = append(e.inbox, message{kind: messageCancel, seq: q})
	e.mu.Unlock()
	e.signal()
}

// CancelSink ends all requests of a sink without Summaries, between steps; Release is called for each.
func (e *Executor) CancelSink(s Sink) {
	e.mu.Lock()
	if e.closed { // Close ends them
		e.mu.Unlock()
		return
	}
	e.inbox = append(e.inbox, message{kind: messageSinkGone, sink: s})
	e.mu.Unlock()
	e.signal()
}
