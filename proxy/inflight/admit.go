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

// Admit takes a request in or refuses it, without waiting. A refusal is not counted here.
func (d *Table) Admit(_ context.Context, r Request) (Answer, *api.Error) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.draining {
		return nil, api.Draining()
	}
	en := d.newEntry(r, now)
	if d.names.known() {
		if err := d.resolve(en, now); err != nil {
			return nil, err
		}
	}
	if len(d.engines) == 0 && d.loop.on(now) {
		return nil, api.EngineUnavailable(loopWindow)
	}
	need := journal.Need(r.Infer, en.newTokens())
	if need > d.journal.Max() {
		return nil, api.NewError(api.TypeQueueFull, "the request may need %d bytes of memory, more than the %d that JOURNAL_MAX_BYTES allows; ask for fewer tokens", need, d.journal.Max())
	}
	if en.rec = d.journal.Open(need); en.rec == nil {
		return nil, api.NewError(api.TypeQueueFull, "the memory for requests in flight is taken; try again later").After(retryFullAfter)
	}
	d.entries[en.id] = en
	if d.canGo(en) {
		d.send(d.target(pair{en.model, en.version}), en, now)
	} else if d.queue.Push(en.item()) != queue.Taken {
		delete(d.entries, en.id)
		en.rec.Close()
		return nil, api.QueueFull(d.o.QueueCapacity, retryFullAfter)
	}
	d.unsettled++
	en.mm.Hold()
	d.gauges()
	return en, nil
}

// canGo tells whether a new request needs no place in the queue: there is credit, and nobody waits who goes first.
func (d *Table) canGo(en *entry) bool {
	return !d.queue.Has(queue.Suspect) && !d.queue.HasBase(queue.Fresh, en.model) && d.verdict(en.item()) == queue.Go
}

func (d *Table) newEntry(r Request, now time.Time) *entry {
	d.lastID++
	d.lastOrder++
	if r.Received.IsZero() {
		r.Received = now
	}
	en := &entry{
		table: d, id: d.lastID, order: d.lastOrder, req: r, owner: ownerOf(r.Key), domain: r.Domain,
		bytes: int64(len(r.Infer.Prompt) + len(r.Infer.System) + len(r.Infer.JSONSchema)),
		ready: make(chan struct{}, 1), waitingSince: now, mm: d.m.Unknown(),
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

// newTokens is the most that the answer can have as far as is known before the engine said so.
func (en *entry) newTokens() int {
	if en.req.Infer.MaxNewTokens != nil {
		return *en.req.Infer.MaxNewTokens
	}
	return api.DefaultNewTokens
}

// resolve gives the request its model, or says why it can't be had.
func (d *Table) resolve(en *entry, now time.Time) *api.Error {
	r := en.req.Infer
	model, version, err := d.names.resolve(d.o, r.Model, r.Version)
	if err != nil {
		return err
	}
	if en.req.Models != nil && !slices.Contains(en.req.Models, model) {
		return api.Forbidden(model)
	}
	m := d.names.find(model)
	if _, err := r.NewTokens(m.ContextTokens); err != nil {
		return err
	}
	if left := d.refused.load(pair{model, version}, now); left > 0 {
		return api.ModelLoadFailed(model, version, "engine_crash").After(left)
	}
	if d.refused.request(model, version, r, now) {
		return api.Quarantined()
	}
	en.model, en.version, en.mm = model, version, d.m.Model(model, version)
	if en.domain == "" {
		en.domain = m.Domain
	}
	return nil
}

// Drain implements Server: nothing new is admitted, what was admitted goes on.
func (d *Table) Drain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draining = true
	d.m.SetDraining(true)
	d.dismiss()
	d.pump(time.Now()) // to an engine that leaves as well
}

// EngineMetrics fetches the newest engine's own metrics; there are none while no engine is attached, which is no error.
func (d *Table) EngineMetrics(ctx context.Context) ([]byte, error) {
	d.mu.Lock()
	e := d.newest()
	d.mu.Unlock()
	if e == nil {
		return nil, nil
	}
	return e.link.Metrics(ctx)
}
