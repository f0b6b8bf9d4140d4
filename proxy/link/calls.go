package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tandem/proxy/inflight"
	"tandem/schema"
)

// reply is an engine's answer to a call.
type reply struct {
	metrics     []byte
	text        []byte
	tokens      []int32
	failure     *inflight.EngineFailure // nil: success
	unsupported bool                    // the engine doesn't know the call
}

// Errors of a call.
var (
	errDisconnected = errors.New("engine is disconnected")
	errUnsupported  = errors.New("engine doesn't know the call")
	errRefused      = errors.New("engine refused")
)

// codeUnimplemented is the failure code of an engine that doesn't know a call.
const codeUnimplemented = "unimplemented"

// call sends a call to the engine and waits for its reply, ctx or the end of the connection.
func (s *session) call(ctx context.Context, method string, fill func(schema.Call) error) (reply, error) {
	started := time.Now()
	id, answer := s.addCall()
	defer s.removeCall(id)
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
		r, err = awaitReply(ctx, answer)
	}
	s.listener.options.Meter.IPCCall(method, time.Since(started), callErrorCode(err))
	if err != nil {
		return r, fmt.Errorf("call %s: %w", method, err)
	}
	return r, nil
}

// awaitReply waits for the reply to a call, or until ctx or the connection ends.
func awaitReply(ctx context.Context, answer <-chan reply) (reply, error) {
	select {
	case r, ok := <-answer:
		switch {
		case !ok:
			return r, errDisconnected
		case r.unsupported:
			return r, errUnsupported
		case r.failure != nil:
			return r, fmt.Errorf("%w: %w", errRefused, r.failure)
		}
		return r, nil
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}

// callErrorCode is the value of llm_ipc_errors_total{code}.
func callErrorCode(err error) string {
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

// addCall registers a call. Its channel has room for the reply and is closed when the connection is lost.
func (s *session) addCall() (uint64, <-chan reply) {
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

func (s *session) removeCall(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, id)
}

// deliverReply passes a reply to the goroutine that waits for it. After a deadline none waits any more.
func (s *session) deliverReply(id uint64, r reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer, ok := s.calls[id]; ok {
		delete(s.calls, id)
		answer <- r
	}
}

// failCalls ends every pending call, and those that are made later.
func (s *session) failCalls() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, answer := range s.calls {
		close(answer)
	}
	s.calls = nil
}
