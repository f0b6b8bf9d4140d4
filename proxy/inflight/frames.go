package inflight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"tandem/proxy/api"
)

// fence finds the request that a frame is about, or tells why the frame must be dropped: exactly-once delivery rests on this.
func (d *Table) fence(e *engine, id uint64, attempt uint32) *entry {
	en := d.entries[id]
	switch {
	case en == nil:
		d.m.FrameDropped("unknown_request")
	case en.attempt != attempt:
		d.m.FrameDropped("stale_attempt")
	case en.at != e:
		d.m.FrameDropped("stale_connection")
	default:
		return en
	}
	return nil
}

// Accepted implements EngineHandler.
func (d *Table) Accepted(link Engine, id uint64, attempt uint32, a *Accepted) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.live(link)
	if e == nil {
		return
	}
	en := d.fence(e, id, attempt)
	if en == nil {
		return
	}
	if en.state != sent {
		d.breach(e, id, fmt.Sprintf("request %d was accepted twice", id), now)
		return
	}
	en.move(accepted)
	en.accepted = true
	en.refusal, en.refusedAt = nil, time.Time{}
	delete(d.short, pair{en.model, en.version}) // which a late refusal may have noted after the load
	d.delivered(en)
	switch {
	case en.looked || a.Lookup == LookupUncounted:
	case a.Lookup == LookupHit:
		en.looked = true
		en.mm.CacheHit()
	default:
		en.looked = true
		en.mm.CacheMiss()
	}
	if len(en.rec.Generated) > 0 { // what was rendered before stays what is replayed
		d.pump(now)
		return
	}
	r := &a.Rendered
	en.rec.Rendered(slices.Clone(r.PromptTokens), r.Grammar, slices.Clone(r.Stops), slices.Clone(r.ParserState), slices.Clone(a.Revision), a.MaxNewTokens)
	s := a.Sampling
	en.sampling = &s
	d.resumed(en, now) // from here on its prefill is its own
	d.pump(now)
	d.gauges()
}

// resumed ends the pause of a request whose engine was lost.
func (d *Table) resumed(en *entry, now time.Time) {
	if !en.pausedAt.IsZero() {
		en.paused += now.Sub(en.pausedAt)
		en.pausedAt = time.Time{}
	}
}

// Step implements EngineHandler. It runs for every decode step of the engine, so it takes the lock once and allocates nothing of its own.
func (d *Table) Step(link Engine, s *Step) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.live(link)
	if e == nil {
		return
	}
	if !e.progress {
		e.progress = true
		d.loop.progressed()
	}
	if !d.outage.since.IsZero() {
		d.recovered(now)
	}
	room := false
	for i := range s.Tokens {
		first, problem := d.token(e, &s.Tokens[i], now)
		if problem != "" && d.breach(e, s.Tokens[i].ID, problem, now) {
			return
		}
		room = room || first
	}
	for i := range s.Done {
		if problem := d.finished(e, &s.Done[i], now); problem != "" && d.breach(e, s.Done[i].ID, problem, now) {
			return
		}
	}
	if room || len(s.Done) > 0 {
		d.pump(now)
		d.gauges()
	}
	if len(s.Done) > 0 {
		d.dismiss()
	}
}

// token enters one token, counts it and passes its text on. first: the first one at this engine, which may make room for others.
// A problem is a breach of protocol.
func (d *Table) token(e *engine, t *Token, now time.Time) (first bool, problem string) {
	en := d.fence(e, t.ID, t.Attempt)
	if en == nil {
		return false, ""
	}
	text, problem := en.accept(t)
	if problem != "" {
		return false, problem
	}
	if len(en.rec.Generated) == 0 {
		en.times.prefill = t.SinceLast
	} else {
		en.times.decode += t.SinceLast
	}
	en.rec.Token(t.Token, len(text))
	en.text = append(en.text, text...)
	en.fresh++
	en.mm.Token(t.SinceLast)
	if !en.req.Infer.Stream {
		en.passed(1, now)
	}
	if !en.gainedHere {
		first = true
		d.gained(en)
		d.comeback(en, e, len(en.rec.Generated)-1, now)
	}
	if t.Margin < MarginBound {
		d.closeCall(en, t, len(text))
	}
	if en.req.Infer.Stream || first && en.attempt > 0 { // an answer in one piece is fetched at its end; a new attempt is noted in its trace
		en.notify()
	}
	return first, ""
}

// closeCall notes a token that another engine of the same numerics id might draw differently after a replay.
func (d *Table) closeCall(en *entry, t *Token, fresh int) {
	if d.log.Enabled(context.Background(), slog.LevelDebug) {
		d.log.Debug("close call", "request_id", en.req.ID, "index", t.Index, "margin", t.Margin, "from", en.rec.TextBytes-fresh, "to", en.rec.TextBytes)
	}
}

// comeback is the first sign of life of a request at an engine, after so many tokens from earlier ones.
func (d *Table) comeback(en *entry, e *engine, tokensBefore int, now time.Time) {
	en.strikes = 0
	d.resumed(en, now)
	switch {
	case tokensBefore == 0:
		d.replayEnded(en, "restarted")
	case en.rec.Numerics != e.hello.Numerics:
		d.replayEnded(en, "other_numerics")
	default:
		d.replayEnded(en, "resumed")
	}
	en.rec.Numerics = e.hello.Numerics
}

// breach deals with a frame that can't be: the connection ends, since nothing on it can be trusted. A request at which this happens
// again and again is ended instead, so that it doesn't cost the others one connection after the other. True: the connection ended.
func (d *Table) breach(e *engine, id uint64, problem string, now time.Time) bool {
	if en := d.entries[id]; en != nil {
		if en.breaches++; en.breaches >= maxBreaches {
			d.log.Error("engine broke the protocol at the same request again, ending it", "reason", problem, "request_id", en.req.ID)
			d.fail(en, api.Internal(errors.New(problem)), now)
			return false
		}
	}
	d.hangup(e, problem)
	return true
}

// accept checks that a token is the next one and gives the part of its text that isn't known yet.
func (en *entry) accept(t *Token) (text []byte, problem string) {
	switch have := en.rec.TextBytes; {
	case en.state != streaming:
		return nil, fmt.Sprintf("token of request %d before it was accepted", t.ID)
	case t.Index != len(en.rec.Generated):
		return nil, fmt.Sprintf("token %d of request %d came, %d was next", t.Index, t.ID, len(en.rec.Generated))
	case t.Index >= cmp.Or(en.rec.MaxNewTokens, api.MaxNewTokens):
		return nil, fmt.Sprintf("request %d got more than its %d tokens", t.ID, en.rec.MaxNewTokens)
	case len(t.Text) > maxTokenText:
		return nil, fmt.Sprintf("token of request %d has %d bytes of text", t.ID, len(t.Text))
	case t.TextEnd-len(t.Text) > have || t.TextEnd < have:
		return nil, fmt.Sprintf("text of request %d ends at byte %d after %d more, %d were there", t.ID, t.TextEnd, len(t.Text), have)
	default:
		return t.Text[len(t.Text)-(t.TextEnd-have):], ""
	}
}

// finished ends a request at its engine.
func (d *Table) finished(e *engine, s *Summary, now time.Time) (problem string) {
	en := d.fence(e, s.ID, s.Attempt)
	if en == nil {
		return ""
	}
	switch s.Reason {
	case FinishMoved:
		e.moving = true // asked or not, it takes nothing more
		d.requeue(en, now)
		return ""
	case FinishStop, FinishLength:
		if en.state != streaming {
			return fmt.Sprintf("request %d was finished before it was accepted", s.ID)
		}
		if s.OutputTokens != len(en.rec.Generated) {
			return fmt.Sprintf("request %d was finished with %d tokens, %d came", s.ID, s.OutputTokens, len(en.rec.Generated))
		}
		en.summary = *s
		d.complete(en, e, s, now)
		return ""
	}
	en.summary = *s
	if s.Failure.Code == string(api.TypeModelChanged) && len(en.rec.Generated) == 0 {
		en.rec.Forget()
		d.requeue(en, now)
		return ""
	}
	if d.holdBack(en, e, s, now) {
		return ""
	}
	d.finish(en, nil, en.failure(s, now), now)
	return ""
}

// complete ends a request with its whole answer.
func (d *Table) complete(en *entry, e *engine, s *Summary, now time.Time) {
	if !en.gainedHere {
		d.comeback(en, e, len(en.rec.Generated), now)
	}
	result := &Result{
		FinishReason: string(api.FinishStop), PromptTokens: s.PromptTokens, OutputTokens: len(en.rec.Generated),
		Seed: en.seed, GenerationTime: en.times.prefill + en.times.decode,
	}
	if s.Reason == FinishLength {
		result.FinishReason = string(api.FinishLength)
	}
	d.finish(en, result, nil, now)
}

// failure is what a client is told of an engine's failure.
func (en *entry) failure(s *Summary, now time.Time) *api.Error {
	switch t := api.Type(s.Failure.Code); {
	case s.Reason == FinishDeadline:
		return en.late(now)
	case s.Reason != FinishError:
		return api.Internal(fmt.Errorf("engine finished request with reason %d", s.Reason))
	case t == api.TypeModelChanged:
		return api.ModelChanged(en.model, en.version)
	case t == api.TypeGrammarTooComplex:
		return api.GrammarTooComplex()
	case t == api.TypeInternal || !t.Known():
		return api.Internal(fmt.Errorf("engine failure %q: %s", s.Failure.Code, s.Failure.Text))
	default:
		err := api.NewError(t, "%s", s.Failure.Text)
		err.Param = s.Failure.Param
		if err.Status() == 503 && s.Failure.Retryable { // files that are broken don't get well by waiting
			err.RetryAfter = retryEngineAfter
		}
		return err
	}
}

// late is the error of a request whose deadline passed.
func (en *entry) late(now time.Time) *api.Error {
	if en.firstSent.IsZero() {
		return api.QueueTimeout(now.Sub(en.req.Received))
	}
	return api.DeadlineExceeded(en.req.Timeout)
}
