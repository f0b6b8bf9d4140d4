package inflight

import (
	"context"
	"slices"
	"time"

	"tandem/proxy/api"
)

// Run looks after deadlines until ctx ends and every request is settled. When ctx ends, what isn't done is answered with an error.
func (d *Table) Run(ctx context.Context) {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	stop := ctx.Done()
	for {
		select {
		case <-stop:
			stop = nil
			d.close()
		case <-ticker.C:
			d.tick(time.Now())
		}
		if stop == nil && d.idle() {
			return
		}
	}
}

// close answers everything that isn't done.
func (d *Table) close() {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draining = true
	for _, en := range d.sorted() {
		d.fail(en, api.Draining(), now)
	}
	d.dismiss()
	d.gauges()
}

func (d *Table) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.unsettled == 0
}

// tick looks after everything that depends on time. Series are removed without the lock, under which a token couldn't pass meanwhile.
func (d *Table) tick(now time.Time) {
	if remove := d.overdue(now); remove != nil {
		remove()
	}
}

// overdue ends what waited too long and gives what is left to do without the lock, or nil.
func (d *Table) overdue(now time.Time) (remove func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := waits{now: now, options: &d.o, short: d.short}
	if len(d.engines) == 0 {
		w.awaySince = d.awaySince
	}
	for _, en := range d.entries {
		if err := w.over(en); err != nil {
			d.fail(en, err, now)
		}
	}
	d.refused.sweep(now)
	d.sweepShort(now)
	d.dismiss()
	d.pump(now)
	d.gauges()
	d.showAdapters(now)
	return d.sweepMetrics(now)
}

// sweepMetrics lets the series of models go that no engine has any more. While no engine is there, the last one's models count as there.
// The removal itself is given back.
func (d *Table) sweepMetrics(now time.Time) (remove func()) {
	if !d.names.known() || now.Sub(d.sweptAt) < sweepEvery {
		return nil
	}
	d.sweptAt = now
	return d.m.Sweep(func(model, version string) bool {
		p := pair{model, version}
		return d.names.pairs[p] || slices.ContainsFunc(d.engines, func(e *engine) bool { return e.names.pairs[p] })
	}, now)
}

// waits decides whether a request has waited too long.
type waits struct {
	now       time.Time
	awaySince time.Time // zero while an engine is connected
	short     map[pair]shortage
	options   *Options
}

// over gives the error that ends the request now, or nil.
func (w waits) over(en *entry) *api.Error {
	if err := w.outOfMemory(en); err != nil {
		return err
	}
	switch {
	case !en.deadline.IsZero() && !w.now.Before(en.deadline):
		return en.late(w.now)
	case en.state == queued && !w.awaySince.IsZero() && w.since(later(en.waitingSince, w.awaySince)) >= w.options.EngineWait:
		return api.EngineUnavailable(retryEngineAfter)
	case (en.state == waiting || en.state == suspect) && en.again() && w.since(en.waitingSince) >= w.options.ReplayWait:
		return api.EngineCrashed(retryEngineAfter)
	case en.state == sent && w.loadOver(en):
		return api.ModelLoadFailed(en.model, en.version, "timeout").After(retryEngineAfter)
	}
	return nil
}

// loadOver tells whether a request has waited too long for its model's load.
func (w waits) loadOver(en *entry) bool {
	_, loading := en.at.loading[pair{en.model, en.version}]
	return loading && w.since(en.sentAt) >= w.options.ModelLoadWait
}

func (w waits) since(t time.Time) time.Duration { return w.now.Sub(t) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
