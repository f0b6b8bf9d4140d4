package inflight

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/journal"
	"tandem/proxy/queue"
)

// Admit takes a request in or refuses it, without waiting. It doesn't count refusals.
func (t *Table) Admit(_ context.Context, r Request) (Answer, *api.Error) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.Infer.ChoiceCount() > 1 || len(r.Infer.Inputs) > 0 {
		return t.admitGroup(r, now)
	}
	en := t.newEntry(r, now)
	if err := t.admit(en, now); err != nil {
		return nil, err
	}
	return en, nil
}

// admit takes one entry in, or refuses it.
func (t *Table) admit(en *entry, now time.Time) *api.Error {
	if t.draining && !en.isFurtherChoice() { // a request that was taken in is finished, all of it
		return api.Draining()
	}
	if t.catalog.known() {
		if err := t.resolve(en, now); err != nil {
			return err
		}
	}
	if len(t.engines) == 0 && t.crashLoop.isActive(now) {
		return api.EngineUnavailable(crashLoopWindow)
	}
	en.askedTokens = t.newTokens(en)
	estimate := journal.EstimateBytes(en.req.Infer, en.askedTokens)
	if estimate > t.journal.MaxBytes() {
		t.metrics.AdmissionRefused("memory")
		return api.Invalid("max_new_tokens", "the request may need %d bytes of memory, more than the %d that JOURNAL_MAX_BYTES allows; ask for fewer tokens",
			estimate, t.journal.MaxBytes())
	}
	if en.rec = t.journal.Open(estimate); en.rec == nil {
		t.metrics.AdmissionRefused("memory")
		return api.NewError(api.TypeQueueFull, "the memory for requests in flight is taken; try again later").After(retryMemoryAfter)
	}
	if err := t.checkTime(en, now); err != nil {
		en.rec.Close()
		return err
	}
	t.entries[en.id] = en
	t.unsettled++
	en.modelMetrics.Hold()
	if t.canSendNow(en) {
		t.send(t.targetEngine(modelVersion{en.model, en.version}), en, now)
	} else if result := t.enqueue(en); result != queue.Queued {
		err := t.queueRefusal(en, result, now)
		delete(t.entries, en.id)
		en.rec.Close()
		t.unsettled--
		en.modelMetrics.Release()
		return err
	} else {
		t.dispatch(now)
	}
	t.updateGauges()
	return nil
}

// enqueue has a new entry wait, or says why there is no room for it.
func (t *Table) enqueue(en *entry) queue.PushResult {
	if en.wasTakenIn() {
		t.queue.PushAdmitted(en.item())
		return queue.Queued
	}
	return t.queue.Push(en.item())
}

// canSendNow reports whether a new request can skip the queue: there is credit, and nothing waits that goes before it.
// While a load is suspected everything takes its turn, since that waits until the others have their first tokens.
func (t *Table) canSendNow(en *entry) bool {
	if len(t.quarantine.loads) > 0 && t.queue.Len() > 0 {
		return false
	}
	return !t.queue.Has(queue.Suspect) && !t.queue.HasBase(queue.Fresh, en.model) && t.dispatchVerdict(en.item()) == queue.Dispatch
}

func (t *Table) newEntry(r Request, now time.Time) *entry {
	t.lastID++
	t.lastOrder++
	if r.Received.IsZero() {
		r.Received = now
	}
	en := &entry{
		table: t, id: t.lastID, order: t.lastOrder, req: r, owner: ownerOf(r.Key), domain: r.Domain,
		promptBytes: int64(r.Infer.TextBytes()),
		ready:       make(chan struct{}, 1), waitingSince: now, modelMetrics: t.metrics.Unknown(), work: t.workOf(""),
	}
	if r.Infer.Seed != nil {
		en.seed = *r.Infer.Seed
	} else {
		en.seed = rand.Uint64N(api.MaxSeed + 1)
	}
	if r.Timeout > 0 {
		en.deadline = r.Received.Add(r.Timeout)
	}
	return en
}

// newTokens is the most tokens that the answer can have, as far as is known before an engine has accepted the request.
func (t *Table) newTokens(en *entry) int {
	contextTokens := t.catalog.contextTokens(en.model)
	n, err := en.req.Infer.NewTokens(contextTokens)
	if err != nil { // resolve has refused it
		return contextTokens
	}
	return n
}

// resolve sets the request's model and version, or returns why it can't have them.
func (t *Table) resolve(en *entry, now time.Time) *api.Error {
	r := en.req.Infer
	model, version, err := t.catalog.resolve(t.options, r.Model, r.Version)
	if err != nil {
		return err
	}
	if en.req.Models != nil && !slices.Contains(en.req.Models, model) {
		return api.Forbidden(model)
	}
	m := t.catalog.find(model)
	if _, err := r.NewTokens(m.ContextTokens); err != nil {
		return err
	}
	if left := t.quarantine.modelBlockedFor(modelVersion{model, version}, now); left > 0 {
		return api.ModelLoadFailed(model, version, "engine_crash", left)
	}
	if !en.sharesPrompt() && t.quarantine.blocksRequest(model, version, r, now) { // once for each input
		return api.Quarantined()
	}
	en.model, en.version, en.modelMetrics = model, version, t.metrics.Model(model, version)
	en.modelID = t.catalog.listedID(modelVersion{model, version})
	en.work, en.askedTokens = t.workOf(model), t.newTokens(en)
	if en.domain == "" {
		en.domain = m.Domain
	}
	return nil
}
