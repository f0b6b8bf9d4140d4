package inflight

import (
	"context"
	"errors"
	"slices"
	"time"

	"tandem/proxy/api"
)

// Calls that use a model's vocabulary and chat template and compute nothing. They don't wait in the queue and aren't
// journalled: one that is interrupted by the end of an engine is made again at the next one.

// ModelCall names the model of a call.
type ModelCall struct {
	Model, Version string   // as requested; empty: the default
	Models         []string // that the key may use; nil: all
}

// Tokenize returns the tokens of a text in which nothing becomes a control token; addSpecial adds those that the model
// has around every text.
func (t *Table) Tokenize(ctx context.Context, c ModelCall, text string, addSpecial bool) (tokens []int32, err *api.Error) {
	err = t.callModel(ctx, c, nil, func(e Engine, mv modelVersion) (failure error) {
		tokens, failure = e.Tokenize(ctx, mv.model, mv.version, text, addSpecial)
		return failure
	})
	return tokens, err
}

// Detokenize returns the text of tokens.
func (t *Table) Detokenize(ctx context.Context, c ModelCall, tokens []int32) (text []byte, err *api.Error) {
	err = t.callModel(ctx, c, nil, func(e Engine, mv modelVersion) (failure error) {
		text, failure = e.Detokenize(ctx, mv.model, mv.version, tokens)
		return failure
	})
	return text, err
}

// Render returns the prompt of a request as the model would read it.
func (t *Table) Render(ctx context.Context, c ModelCall, r *api.Request) (rendered RenderedText, err *api.Error) {
	err = t.callModel(ctx, c, r, func(e Engine, mv modelVersion) (failure error) {
		s := newSubmission(r)
		s.Model, s.Version = mv.model, mv.version
		rendered, failure = e.Render(ctx, s)
		return failure
	})
	return rendered, err
}

// maxCallAttempts is at how many engines a call is made. One that ends two of them may be the reason; a request that
// isn't known to be innocent is quarantined, but nobody remembers calls.
const maxCallAttempts = 2

// callModel makes a call at the engine that has the model, and again at the next engine if that one is lost meanwhile.
// It waits for each engine for EngineWait. r is the request of the call, if it has one.
func (t *Table) callModel(ctx context.Context, c ModelCall, r *api.Request, call func(Engine, modelVersion) error) *api.Error {
	wait := time.NewTimer(t.options.EngineWait)
	defer wait.Stop()
	var lost *engine // where the call was made last
	for attempts := 0; ; {
		e, mv, changed, err := t.beginCall(c, lost)
		if err != nil {
			return err
		}
		if e != nil {
			failure := call(e.conn, mv)
			t.endCall(e)
			if failure == nil {
				return nil
			}
			if err := callError(ctx, failure, r, t.contextTokens(mv.model)); err != nil {
				return err
			}
			lost = e
			wait.Reset(t.options.EngineWait) // the call itself may have taken longer
			if attempts++; attempts == maxCallAttempts {
				return api.EngineUnavailable(retryEngineAfter)
			}
		}
		select { // no engine, one that is gone, or one that tries a suspect
		case <-changed:
		case <-wait.C:
			return api.EngineUnavailable(retryEngineAfter)
		case <-ctx.Done():
			return contextError(ctx)
		}
	}
}

// beginCall finds the model and the engine that has it, and counts a call there; nil while there is none but lost, or
// while it has a suspect alone, so that the next crash shows whether that did it. changed is closed when that may be
// different.
func (t *Table) beginCall(c ModelCall, lost *engine) (e *engine, mv modelVersion, changed <-chan struct{}, err *api.Error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.draining && len(t.engines) == 0 {
		return nil, mv, nil, api.Draining()
	}
	if !t.catalog.known() {
		return nil, mv, t.enginesChanged, nil
	}
	if mv.model, mv.version, err = t.catalog.resolve(t.options, c.Model, c.Version); err != nil {
		return nil, mv, nil, err
	}
	if c.Models != nil && !slices.Contains(c.Models, mv.model) {
		return nil, mv, nil, api.Forbidden(mv.model)
	}
	if left := t.quarantine.modelBlockedFor(mv, time.Now()); left > 0 {
		return nil, mv, nil, api.ModelLoadFailed(mv.model, mv.version, "engine_crash", left)
	}
	e = t.targetEngine(mv)
	if e == nil || e == lost || e.suspect != nil && e.suspect.sentAlone {
		return nil, mv, t.enginesChanged, nil
	}
	e.calls++
	return e, mv, t.enginesChanged, nil
}

// endCall is called when a call has its answer, or its engine is lost.
func (t *Table) endCall(e *engine) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.calls--
	t.advanceDraining()
}

// noteEnginesChanged wakes the calls that wait for an engine. The caller holds mu.
func (t *Table) noteEnginesChanged() {
	close(t.enginesChanged)
	t.enginesChanged = make(chan struct{})
}

func (t *Table) contextTokens(model string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.catalog.contextTokens(model)
}

// callError is the client's error for a failed call; nil: the engine is gone, and another one may answer.
func callError(ctx context.Context, failure error, r *api.Request, contextTokens int) *api.Error {
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	refused, ok := errors.AsType[*EngineFailure](failure)
	if !ok {
		return nil
	}
	err := failureError((*Failure)(refused), r)
	if err.Type == api.TypeContextExceeded {
		err.ContextTokens = contextTokens
	}
	return err
}

func contextError(ctx context.Context) *api.Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return api.NewError(api.TypeDeadlineExceeded, "the call did not end in time; try again later")
	}
	return api.Cancelled()
}
