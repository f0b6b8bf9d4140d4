package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/schema"
	"tandem/schema/wire"
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

// sender queues a frame.
type sender func(build func(schema.Frame) error) error

// callForClient is call for a client's call. It is refused where it would fill the connection: that would end with too
// much in it, and interrupt all requests.
func (s *session) callForClient(ctx context.Context, method string, fill func(schema.Call) error) (reply, error) {
	r, err := s.call(ctx, s.conn.SendIfRoom, method, fill)
	switch {
	case errors.Is(err, wire.ErrNoRoom):
		return r, &inflight.EngineFailure{Code: string(api.TypeQueueFull), Text: "the engine has too many calls to read; try again later"}
	case errors.Is(err, wire.ErrTooLarge):
		return r, tooLarge()
	case errors.Is(err, errUnsupported):
		return r, &inflight.EngineFailure{Code: string(api.TypeEngineUnavailable), Text: "the engine is of a version that doesn't know this call; try again later"}
	}
	return r, err
}

// tooLarge is the refusal of what doesn't fit into a frame.
func tooLarge() *inflight.EngineFailure {
	return &inflight.EngineFailure{Code: string(api.TypeInvalidRequest), Text: "the request is larger than what the engine takes; shorten it"}
}

// call sends a call to the engine and waits for its reply, ctx or the end of the connection.
func (s *session) call(ctx context.Context, send sender, method string, fill func(schema.Call) error) (reply, error) {
	started := time.Now()
	id, answer := s.addCall()
	defer s.removeCall(id)
	err := send(func(f schema.Frame) error {
		f.SetId(id)
		c, err := f.NewCall()
		if err != nil {
			return err
		}
		return fill(c)
	})
	var r reply
	switch {
	case err == nil:
		r, err = awaitReply(ctx, answer)
	case !errors.Is(err, wire.ErrNoRoom) && !errors.Is(err, wire.ErrTooLarge):
		err = fmt.Errorf("%w: %w", errDisconnected, err)
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
