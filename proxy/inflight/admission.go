package inflight

import (
	"fmt"
	"time"

	"tandem/proxy/admission"
	"tandem/proxy/api"
	"tandem/proxy/queue"
)

// Admission by time: what a base's requests cost and how fast engines are, fed from the frames and asked at admission.

// baseWork is what is known of the work of one base.
type baseWork struct {
	admission.Estimator
	promises  admission.Promises // to those who were refused
	sequences int                // that the base had when it was loaded last
}

// workOf returns what is known of a base's work. "" stands for requests whose base isn't known yet.
func (t *Table) workOf(base string) *baseWork {
	w := t.work[base]
	if w == nil {
		w = &baseWork{}
		t.work[base] = w
	}
	return w
}

// estimatedSize is what an engine will have to do for the request from now on.
func (en *entry) estimatedSize() admission.Size {
	have := float64(len(en.rec.Generated))
	size := admission.Size{PromptTokens: have, NewTokens: max(en.work.NewTokens(en.askedTokens)-have, 1)}
	if n := len(en.rec.PromptTokens); n > 0 {
		size.PromptTokens += float64(n)
	} else if n := len(en.req.Infer.PromptTokens); n > 0 {
		size.PromptTokens += float64(n)
	} else if !en.sharesPrompt() {
		size.PromptTokens += en.work.PromptTokens(en.promptBytes)
	}
	return size
}

// estimatedWork is the work that an engine will have with the request from now on.
func (en *entry) estimatedWork() float64 { return en.estimatedSize().Work() }

// ExpectedTokens is how many tokens a request probably takes, of its prompt and of all its answers.
func (t *Table) ExpectedTokens(r *api.Request) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	model := ""
	if t.catalog.known() {
		if name, _, err := t.catalog.resolve(t.options, r.Model, r.Version); err == nil {
			model = name
		}
	}
	w := t.work[model]
	if w == nil {
		w = &baseWork{}
	}
	asked, err := r.NewTokens(t.catalog.contextTokens(model))
	if err != nil {
		return 0 // it is refused
	}
	prompt := float64(len(r.PromptTokens))
	if prompt == 0 {
		prompt = w.PromptTokens(int64(r.TextBytes()))
	}
	return int(prompt + float64(r.ChoiceCount())*w.NewTokens(asked))
}

// estimate says how long a request takes that has so much work ahead of it, in a share of the engine's speed.
func (t *Table) estimate(w *baseWork, mv modelVersion, ahead, share float64, size admission.Size) admission.Estimate {
	load := admission.Load{Sequences: w.sequences, Ahead: ahead, Share: share}
	if e := t.targetEngine(mv); e != nil {
		base := e.bases[mv.model]
		load.AtEngine = base.outstanding
		if base.sequences > 0 {
			load.Sequences = base.sequences
		}
	}
	return w.Estimate(load, size)
}

// estimateNew says how long a request takes that comes now.
func (t *Table) estimateNew(en *entry) admission.Estimate {
	key := t.queue.Account(en.model, en.owner, en.req.Weight)
	ahead := float64(key.QueuedWork() + t.queue.ReplayWork(en.model))
	return t.estimate(en.work, modelVersion{en.model, en.version}, ahead, key.Share(), en.estimatedSize())
}

// checkTime refuses a new request that can't be answered in the time it has. A further choice of one that was taken in
// isn't new.
func (t *Table) checkTime(en *entry, now time.Time) *api.Error {
	if en.deadline.IsZero() || en.wasTakenIn() {
		return nil
	}
	e := t.estimateNew(en)
	d := e.Decide(en.deadline.Sub(now))
	if d.Admit {
		if e.Start > 0 {
			en.admittedAt, en.predicted = now, e.Total()
		}
		return nil
	}
	t.metrics.AdmissionRefused("deadline")
	return api.NoTimeLeft(e.Start, en.req.Timeout, t.retryAfter(en, d.Wait, now))
}

// retryAfter says when the client of a refused request should come back, and promises it room then: wait is after how
// long it would be let in if nobody else came.
func (t *Table) retryAfter(en *entry, wait time.Duration, now time.Time) time.Duration {
	share := t.queue.Account(en.model, en.owner, en.req.Weight).Share()
	return en.work.promises.Next(en.owner, wait, en.work.TimeFor(en.requestWork(), share), now)
}

// requestWork is the work with all choices of the entry's request.
func (en *entry) requestWork() float64 {
	if en.group == nil {
		return en.estimatedWork()
	}
	first, r := en, en.group.req.Infer
	if len(en.group.entries) > 0 {
		first = en.group.first()
	}
	size := first.estimatedSize()
	size.PromptTokens *= float64(max(len(r.Inputs), 1))
	size.NewTokens *= float64(r.ChoiceCount())
	return size.Work()
}

// mayStillBeRefused reports whether a waiting request may be refused although it was let in. Those that an engine has
// taken, or that belong to an answer of which it has, never are.
func (en *entry) mayStillBeRefused() bool {
	return en.state == queued && !en.everAccepted && !en.deadline.IsZero() && !en.isFurtherChoice()
}

// refuseHopeless refuses a waiting request whose turn has come, but too late for it: its time would be over before its
// answer is complete, and others wait that can still be answered in time.
func (t *Table) refuseHopeless(en *entry, now time.Time) bool {
	if !en.mayStillBeRefused() || !t.queue.HasBase(queue.Fresh, en.model) {
		return false
	}
	e := t.estimate(en.work, modelVersion{en.model, en.version}, 0, 1, en.estimatedSize())
	if !e.Late(en.deadline.Sub(now)) {
		return false
	}
	t.refuseLate(en, e, t.estimateNew(en), now)
	return true
}

// refuseLate refuses a request that was let in and turned out to have no time left. again is how long it would take if
// it came back now.
func (t *Table) refuseLate(en *entry, e, again admission.Estimate, now time.Time) {
	t.metrics.AdmissionRefused("deadline")
	wait := again.Decide(en.req.Timeout).Wait
	t.finish(en, nil, api.NoTimeLeft(now.Sub(en.req.Received)+e.Start, en.req.Timeout, t.retryAfter(en, wait, now)), now)
}

// refuseOverdue refuses those waiting requests that won't be answered in time. There are some where more was let in
// than could be known to be too much: before the speed was known, and while no engine was there.
func (t *Table) refuseOverdue(now time.Time) {
	for base, w := range t.work {
		if w.Speed() == 0 || !t.queue.HasBase(queue.Fresh, base) {
			continue
		}
		ahead, share, last := int64(0), 1.0, (*queue.Account)(nil)
		for _, it := range t.queue.Waiting(queue.Fresh, base) { // those of a key together
			en := t.entries[it.ID]
			if key := t.queue.Account(base, it.Key, it.Weight); key != last {
				ahead, share, last = t.queue.ReplayWork(base), key.Share(), key
			}
			e := t.estimate(w, modelVersion{it.Base, it.Version}, float64(ahead), share, en.estimatedSize())
			if en.mayStillBeRefused() && e.Late(en.deadline.Sub(now)) {
				t.refuseLate(en, e, e, now)
				continue
			}
			ahead += it.Work
		}
	}
}

// queueRefusal is the error of a request for which the queue has no room.
func (t *Table) queueRefusal(en *entry, r queue.PushResult, now time.Time) *api.Error {
	reason, err := "requests", api.QueueFull(t.options.QueueCapacity, t.retryAfter(en, 0, now))
	own := fmt.Sprintf("%.0f%%", 100*t.options.QueueKeyShare)
	switch r {
	case queue.KeyTooManyItems, queue.KeyTooManyBytes, queue.KeyTooMuchWork:
		reason = "key"
		err.Message = "this key's requests take " + own + " of the queue, as many as one may while others need it (QUEUE_KEY_SHARE); try again later"
	case queue.TooManyBytes:
		reason = "bytes"
		err.Message = fmt.Sprintf("waiting prompts take all of the %d bytes for them (QUEUE_MAX_BYTES); try again later", t.options.QueueMaxBytes)
	case queue.TooMuchWork:
		reason = "tokens"
		err.Message = fmt.Sprintf("waiting requests have all of the %d tokens for them (QUEUE_MAX_TOKENS); try again later", t.options.QueueMaxTokens)
	}
	t.metrics.AdmissionRefused(reason)
	return err
}

// countStart counts what an engine computed of a request before its first new token there: the prompt, and tokens that
// an engine before it generated.
func (en *entry) countStart(before int) {
	n := len(en.rec.PromptTokens)
	if en.sharesPrompt() {
		n = 0
	}
	if en.wasRequeued() { // computing it once more isn't the key's fault
		en.work.Add(admission.Prompt(n + before))
		return
	}
	en.countWork(admission.Prompt(n))
}

// countPace learns how long a token took, before it is counted: of the first one with its prompt. What an engine takes
// up from another one isn't typical, and a prompt that another choice shares says nothing.
func (en *entry) countPace(took time.Duration) {
	switch {
	case en.hasTokenHere:
		en.work.Decoded(took)
	case len(en.rec.Generated) == 0 && !en.sharesPrompt():
		en.work.Prefilled(len(en.rec.PromptTokens), took)
	}
}

// countWork counts work that an engine did for the request.
func (en *entry) countWork(work float64) {
	en.work.Add(work)
	en.charge.Use(work)
}

// chargeKey charges the request's key with the work that is expected of it at its engine.
func (en *entry) chargeKey() {
	work := en.estimatedWork()
	if en.wasRequeued() {
		work = admission.Generated(1) * max(en.work.NewTokens(en.askedTokens)-float64(len(en.rec.Generated)), 1)
	}
	en.charge = en.table.queue.Account(en.model, en.owner, en.req.Weight).Charge(work)
}

// countOutOfTime learns from a request whose time was over before its answer was complete.
func (en *entry) countOutOfTime(now time.Time) {
	if len(en.rec.Generated) > 0 {
		en.work.AnsweredInPart(en.askedTokens, len(en.rec.Generated))
	}
	if !en.wasRequeued() {
		en.work.Took(en.predicted, now.Sub(en.admittedAt), true)
	}
}

// countAnswer learns from a complete answer.
func (en *entry) countAnswer(now time.Time) {
	if !en.wasRequeued() {
		en.work.Took(en.predicted, now.Sub(en.admittedAt), false)
	}
	prompt := en.promptTokens()
	if en.sharesPrompt() {
		prompt = 0
	}
	bytes := en.promptBytes
	if len(en.req.Infer.PromptTokens) > 0 {
		bytes = 0 // its size says nothing about texts
	}
	en.work.Answered(bytes, prompt, en.askedTokens, len(en.rec.Generated))
}

// sampleWork measures how fast engines are, reports how long new requests wait, and refuses what won't make it.
func (t *Table) sampleWork(now time.Time) {
	t.queue.Sample(now)
	var longest admission.Estimate
	speed := 0.0
	for base, w := range t.work {
		saturated := false
		for _, e := range t.engines {
			b := e.bases[base]
			if b.sequences > 0 {
				w.sequences = b.sequences
			}
			saturated = saturated || b.isFull(t.queue.Work(base) > 0)
		}
		w.Sample(now, saturated)
		e := t.estimate(w, modelVersion{base, t.anyVersionOf(base)}, float64(t.queue.Work(base)), 1, admission.Size{})
		if e.Start > longest.Start || speed == 0 {
			longest, speed = e, w.Speed()
		}
	}
	t.metrics.SetAdmission(longest.Start, speed)
	if now.Sub(t.overdueCheckedAt) >= overdueCheckInterval {
		t.overdueCheckedAt = now
		t.refuseOverdue(now)
	}
}

// anyVersionOf is a version of an installed base.
func (t *Table) anyVersionOf(base string) string {
	if m := t.catalog.find(base); m != nil && len(m.Versions) > 0 {
		return m.Versions[0].Name
	}
	return ""
}

// sweepWork forgets what is known of models that no engine has any more.
func (t *Table) sweepWork() {
	for base := range t.work {
		if base != "" && t.catalog.find(base) == nil && t.queue.Work(base) == 0 {
			delete(t.work, base)
			t.queue.ForgetBase(base)
		}
	}
}

// forgetSpeeds is called when an engine attaches that computes otherwise than the one before.
func (t *Table) forgetSpeeds() {
	for _, w := range t.work {
		w.ForgetSpeed()
	}
}
