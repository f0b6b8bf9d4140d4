package inflight

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"tandem/proxy/admission"
	"tandem/proxy/api"
)

// entryForFrame returns the request that a frame is about, or nil when the frame must be dropped because it is of an
// older attempt or from another engine. Exactly-once delivery of tokens rests on this check.
func (t *Table) entryForFrame(e *engine, id uint64, attempt uint32) *entry {
	en := t.entries[id]
	switch {
	case en == nil:
		t.metrics.FrameDropped("unknown_request")
	case en.attempt != attempt:
		t.metrics.FrameDropped("stale_attempt")
	case en.engine != e:
		t.metrics.FrameDropped("stale_connection")
	default:
		return en
	}
	return nil
}

// Accepted implements EngineHandler.
func (t *Table) Accepted(conn Engine, id uint64, attempt uint32, a *Accepted) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.engineForFrame(conn)
	if e == nil {
		return
	}
	en := t.entryForFrame(e, id, attempt)
	if en == nil {
		return
	}
	if en.state != sent {
		t.protocolViolation(e, id, fmt.Sprintf("request %d was accepted twice", id), now)
		return
	}
	en.apply(accepted)
	en.everAccepted, en.acceptedAt = true, now
	en.memoryError, en.memoryErrorSince = nil, time.Time{}
	// A refusal that came late may have noted a shortage after the load.
	delete(t.memoryShortages, modelVersion{en.model, en.version})
	switch {
	case en.cacheLookupCounted || a.Lookup == LookupUncounted || en.isFurtherChoice():
	case a.Lookup == LookupHit:
		en.cacheLookupCounted = true
		en.modelMetrics.CacheHit()
	default:
		en.cacheLookupCounted = true
		en.modelMetrics.CacheMiss()
	}
	if len(en.rec.Generated) > 0 { // replays keep what the first engine rendered
		t.dispatch(now)
		return
	}
	form := a.Rendered // what it points to is the frame's
	form.PromptTokens, form.Triggers = slices.Clone(form.PromptTokens), slices.Clone(form.Triggers)
	form.Stops, form.ParserState = slices.Clone(form.Stops), slices.Clone(form.ParserState)
	en.promptLogprobs = nil // maybe of other files: they come anew
	en.rec.SetRendered(form, slices.Clone(a.Revision), a.MaxNewTokens)
	s := a.Sampling
	en.sampling = &s
	en.endPause(now) // from here on its prefill is its own
	t.dispatch(now)
	t.updateGauges()
}

// endPause ends the pause of a request whose engine was lost.
func (en *entry) endPause(now time.Time) {
	if !en.pausedAt.IsZero() {
		en.pausedFor += now.Sub(en.pausedAt)
		en.pausedAt = time.Time{}
	}
}

// Step implements EngineHandler. It runs for every decode step of the engine, so it takes the lock only once and
// allocates nothing itself.
func (t *Table) Step(conn Engine, s *Step) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.engineForFrame(conn)
	if e == nil {
		return
	}
	for i := range s.Prompts {
		t.addPromptLogprobs(e, &s.Prompts[i])
	}
	hasRoom := false
	for i := range s.Tokens {
		first, problem := t.addToken(e, &s.Tokens[i], now)
		if problem != "" && t.protocolViolation(e, s.Tokens[i].ID, problem, now) {
			return
		}
		hasRoom = hasRoom || first
	}
	for i := range s.Done {
		if problem := t.handleSummary(e, &s.Done[i], now); problem != "" && t.protocolViolation(e, s.Done[i].ID, problem, now) {
			return
		}
	}
	if hasRoom || len(s.Done) > 0 {
		t.dispatch(now)
		t.updateGauges()
	}
	if len(s.Done) > 0 {
		t.advanceDraining()
	}
}

// addToken records one token, counts it and passes its text on. first is true for the request's first token at this
// engine, which may make room for other requests. A problem means that the engine violated the protocol.
func (t *Table) addToken(e *engine, tok *Token, now time.Time) (first bool, problem string) {
	en := t.entryForFrame(e, tok.ID, tok.Attempt)
	if en == nil {
		return false, ""
	}
	text, problem := en.checkToken(tok)
	if problem != "" {
		return false, problem
	}
	if len(en.rec.Generated) == 0 {
		en.timing.prefill, en.timing.queue = tok.SinceLast, max(0, now.Sub(en.acceptedAt)-tok.SinceLast)
		en.timing.firstAttempt = en.attempt
	} else {
		en.timing.decode += tok.SinceLast
	}
	en.countPace(tok.SinceLast)
	en.rec.AddToken(tok.Token, len(text))
	en.pendingText = append(en.pendingText, text...)
	en.pendingTokens++
	en.pendingTook += tok.SinceLast
	if en.req.Infer.Logprobs {
		en.pendingLogprobs = append(en.pendingLogprobs, tok.logprobs())
	}
	en.modelMetrics.Token(tok.SinceLast)
	en.countWork(admission.Generated(1))
	if !en.req.Infer.Stream {
		en.recordTokenLatency(1, now)
	}
	if !en.hasTokenHere {
		first = true
		en.countStart(len(en.rec.Generated) - 1)
		t.noteFirstToken(en)
		t.noteProgress(en, e, len(en.rec.Generated)-1, now)
	}
	if tok.Margin < MarginBound {
		t.closeCall(en, tok, len(text))
	}
	if en.req.Infer.Stream { // others are taken at their end
		en.notify()
	}
	return first, ""
}

// logprobs copies what is known about the token out of its frame.
func (tok *Token) logprobs() api.TokenLogprob {
	l := api.TokenLogprob{Token: tok.Token, Bytes: bytes.Clone(tok.Piece), Logprob: tok.Logprob, Top: slices.Clone(tok.Top)}
	for i := range l.Top {
		l.Top[i].Bytes = bytes.Clone(l.Top[i].Bytes)
	}
	return l
}

// addPromptLogprobs takes the log-probabilities of the part of a prompt that hasn't come before. An engine that
// computes the prompt again sends all of them again.
func (t *Table) addPromptLogprobs(e *engine, p *PromptPart) {
	en := t.entryForFrame(e, p.ID, p.Attempt)
	if en == nil || !en.req.Infer.PromptLogprobs {
		return
	}
	have := len(en.promptLogprobs)
	if p.From > have || p.From+len(p.Tokens) <= have {
		return
	}
	for _, l := range p.Tokens[have-p.From:] {
		l.Bytes, l.Top = bytes.Clone(l.Bytes), slices.Clone(l.Top)
		for i := range l.Top {
			l.Top[i].Bytes = bytes.Clone(l.Top[i].Bytes)
		}
		en.promptLogprobs = append(en.promptLogprobs, l)
	}
}

// closeCall logs a token that, after a replay, another engine with the same numerics id might draw differently.
func (t *Table) closeCall(en *entry, tok *Token, fresh int) {
	if t.log.Enabled(context.Background(), slog.LevelDebug) {
		t.log.Debug("close call", "request_id", en.req.ID, "index", tok.Index, "margin", tok.Margin, "from", en.rec.TextBytes-fresh, "to", en.rec.TextBytes)
	}
}

// noteProgress handles the first token (or the end) of a request at an engine: it is no longer suspected, its pause
// ends, and if it was sent again, that is counted. A refusal isn't progress: engines in a crash loop may still refuse
// requests. tokensBefore is the number of tokens from earlier engines.
func (t *Table) noteProgress(en *entry, e *engine, tokensBefore int, now time.Time) {
	if !e.madeProgress {
		e.madeProgress = true
		t.crashLoop.reset()
	}
	if !t.outage.since.IsZero() {
		t.endOutage(now)
	}
	en.strikes = 0
	en.endPause(now)
	switch {
	case tokensBefore == 0:
		t.countReplay(en, "restarted")
	case en.rec.Numerics != e.hello.Numerics:
		t.countReplay(en, "other_numerics")
	default:
		t.countReplay(en, "resumed")
	}
	en.rec.Numerics = e.hello.Numerics
}

// protocolViolation handles a frame that the protocol doesn't allow: it closes the connection, since nothing on it can
// be trusted. A request at which this happens again and again is ended instead, so that the others don't lose one
// connection after the other. closed is true when the connection was closed.
func (t *Table) protocolViolation(e *engine, id uint64, problem string, now time.Time) (closed bool) {
	if en := t.entries[id]; en != nil {
		if en.protocolViolations++; en.protocolViolations >= maxProtocolViolations {
			t.log.Error("engine broke the protocol at the same request again, ending it", "reason", problem, "request_id", en.req.ID)
			t.fail(en, api.Internal(errors.New(problem)), now)
			return false
		}
	}
	t.hangup(e, problem)
	return true
}

// checkToken checks that a token is the next one and returns the part of its text that hasn't come before.
func (en *entry) checkToken(tok *Token) (text []byte, problem string) {
	switch have := en.rec.TextBytes; {
	case en.state != streaming:
		return nil, fmt.Sprintf("token of request %d before it was accepted", tok.ID)
	case tok.Index != len(en.rec.Generated):
		return nil, fmt.Sprintf("token %d of request %d came, %d was next", tok.Index, tok.ID, len(en.rec.Generated))
	case tok.Index >= cmp.Or(en.rec.MaxNewTokens, api.MaxNewTokens):
		return nil, fmt.Sprintf("request %d got more than its %d tokens", tok.ID, en.rec.MaxNewTokens)
	case tok.TextEnd > (tok.Index+1)*maxTokenText: // of all: a token may release what was held back for many
		return nil, fmt.Sprintf("%d tokens of request %d have %d bytes of text", tok.Index+1, tok.ID, tok.TextEnd)
	case tok.TextEnd-len(tok.Text) > have || tok.TextEnd < have:
		return nil, fmt.Sprintf("text of request %d ends at byte %d after %d more, %d were there", tok.ID, tok.TextEnd, len(tok.Text), have)
	default:
		return tok.Text[len(tok.Text)-(tok.TextEnd-have):], ""
	}
}

// handleSummary ends a request at its engine, or has it sent again.
func (t *Table) handleSummary(e *engine, s *Summary, now time.Time) (problem string) {
	en := t.entryForFrame(e, s.ID, s.Attempt)
	if en == nil {
		return ""
	}
	switch s.Reason {
	case FinishMoved:
		e.moving = true // whether it was asked to move or not, it gets no more requests
		t.requeue(en, now)
		return ""
	case FinishStop, FinishLength:
		if en.state != streaming {
			return fmt.Sprintf("request %d was finished before it was accepted", s.ID)
		}
		if s.OutputTokens != len(en.rec.Generated) {
			return fmt.Sprintf("request %d was finished with %d tokens, %d came", s.ID, s.OutputTokens, len(en.rec.Generated))
		}
		en.summary = *s
		t.complete(en, e, s, now)
		return ""
	}
	en.summary = *s
	if s.Failure.Code == string(api.TypeModelChanged) && len(en.rec.Generated) == 0 {
		en.rec.Reset()
		t.requeue(en, now)
		return ""
	}
	if t.waitForMemory(en, e, s, now) {
		return ""
	}
	if s.Reason == FinishDeadline { // the engine is usually before our own tick
		en.countOutOfTime(now)
	}
	t.finish(en, nil, en.clientError(s, now), now)
	return ""
}

// complete ends a request whose answer is complete.
func (t *Table) complete(en *entry, e *engine, s *Summary, now time.Time) {
	if !en.hasTokenHere {
		en.countStart(len(en.rec.Generated))
		t.noteProgress(en, e, len(en.rec.Generated), now)
	}
	en.countAnswer(now)
	result := &Result{
		FinishReason: string(api.FinishStop), PromptTokens: s.PromptTokens, CachedTokens: s.CachedTokens, OutputTokens: len(en.rec.Generated),
		Seed: en.seed, GenerationTime: en.timing.prefill + en.timing.decode,
		Queue: en.queueTime(), Prefill: en.timing.prefill, Decode: en.timing.decode,
		ReasoningTokens: s.Reasoning, Stop: s.Stop, Embedding: slices.Clone(s.Embedding), PromptLogprobs: en.promptLogprobs,
	}
	if s.Reason == FinishLength {
		result.FinishReason = string(api.FinishLength)
	}
	t.finish(en, result, nil, now)
}

// clientError returns the client's error for a failure that an engine reported.
func (en *entry) clientError(s *Summary, now time.Time) *api.Error {
	switch {
	case s.Reason == FinishDeadline:
		return en.deadlineError(now)
	case s.Reason != FinishError:
		return api.Internal(fmt.Errorf("engine finished request with reason %d", s.Reason))
	case api.Type(s.Failure.Code) == api.TypeModelChanged:
		return api.ModelChanged(en.model, en.version)
	}
	failure := s.Failure
	if failure.Param == "" { // a step's failure names no field
		failure.Param = paramOfStep(api.Type(failure.Code), en.req.Infer)
	}
	err := failureError(&failure, en.req.Infer)
	if err.Type == api.TypeContextExceeded {
		err.ContextTokens = en.table.catalog.contextTokens(en.model)
	}
	return err
}

// paramOfStep is the field to blame for a failure of a step; empty: none.
func paramOfStep(t api.Type, r *api.Request) string {
	if t == api.TypeGrammarTooComplex {
		return r.GrammarField()
	}
	return ""
}

// failureError returns the client's error for what an engine says of a request or call. It blames the field that the
// client sent; r is nil for a call without a request.
func failureError(f *Failure, r *api.Request) *api.Error {
	err := errorOfFailure(f)
	if r != nil && r.SchemaField != "" {
		err.RenameField("json_schema", r.SchemaField)
	}
	return err
}

func errorOfFailure(f *Failure) *api.Error {
	t := api.Type(f.Code)
	switch {
	case t == api.TypeGrammarTooComplex:
		return api.GrammarTooComplex(f.Param)
	case t == api.TypeInternal || !t.Known():
		return api.Internal(fmt.Errorf("engine failure %q: %s", f.Code, f.Text))
	case t == api.TypeModelLoadFailed && !f.Retryable: // waiting doesn't repair files
		t = api.TypeModelBroken
	}
	err := api.NewError(t, "%s", f.Text)
	err.Param, err.PromptTokens = f.Param, f.PromptTokens
	if err.Status() == 503 {
		return err.After(retryEngineAfter)
	}
	return err
}

// deadlineError returns the error of a request whose deadline has passed.
func (en *entry) deadlineError(now time.Time) *api.Error {
	if en.firstSentAt.IsZero() {
		return api.QueueTimeout(now.Sub(en.req.Received))
	}
	return api.DeadlineExceeded(en.req.Timeout)
}
