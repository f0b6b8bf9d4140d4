package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tandem/schema"
)

// reply of an engine to a call.
type reply struct {
	metrics []byte
	failure string // code and text; empty: it went well
	unknown bool   // the engine doesn't know the call
}

// Errors of a call.
var (
	errDisconnected = errors.New("engine is disconnected")
	errUnsupported  = errors.New("engine doesn't know the call")
	errRefused      = errors.New("engine refused")
)

// unimplemented is the failure code of an engine that doesn't know a call.
const unimplemented = "unimplemented"

// call asks the engine and waits for its answer, ctx or the end of the connection.
func (s *session) call(ctx context.Context, method string, fill func(schema.Call) error) (reply, error) {
	started := time.Now()
	id, answer := s.openCall()
	defer s.closeCall(id)
	err := s.conn.Send(func(f schema.Frame) error {
		f.SetId(id)
		c, err := f.NewCall()
		if err != nil {
			return err
		}
		return fill(c)
	})
	var r reply
	if err != nil {
		err = fmt.Errorf("%w: %w", errDisconnected, err)
	} else {
		r, err = await(ctx, answer)
	}
	s.link.o.Meter.IPCCall(method, time.Since(started), callCode(err))
	if err != nil {
		return r, fmt.Errorf("call %s: %w", method, err)
	}
	return r, nil
}

func await(ctx context.Context, answer <-chan reply) (reply, error) {
	select {
	case r, ok := <-answer:
		switch {
		case !ok:
			return r, errDisconnected
		case r.unknown:
			return r, errUnsupported
		case r.failure != "":
			return r, fmt.Errorf("%w: %s", errRefused, r.failure)
		}
		return r, nil
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}

// callCode is the value of llm_ipc_errors_total{code}.
func callCode(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, errDisconnected):
		return "disconnected"
	case errors.Is(err, errUnsupported):
		return "unsupported"
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	}
	return "failed"
}

// openCall enters a call. Its channel has room for the answer and is closed when the connection is lost.
func (s *session) openCall() (uint64, <-chan reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	answer := make(chan reply, 1)
	if s.calls == nil {
		close(answer)
	} else {
		s.calls[s.lastID] = answer
	}
	return s.lastID, answer
}

func (s *session) closeCall(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, id)
}

// replied hands an answer to whoever waits for it; nobody may, after a deadline.
func (s *session) replied(id uint64, r reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer, ok := s.calls[id]; ok {
		delete(s.calls, id)
		answer <- r
	}
}

// failCalls ends every call under way, and those to come.
func (s *session) failCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, answer := range s.calls {
		close(answer)
	}
	s.calls = nil
}
