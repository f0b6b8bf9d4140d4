package inflight

import (
	"slices"
	"time"

	"tandem/proxy/api"
)

// grave is what is known of the engine that was lost last, until the next one tells how it died.
type grave struct {
	instance    uint64
	attachedFor time.Duration
	progress    bool
	loaded      map[pair]Loaded // as it had said
	counted     bool            // in the crash loop
	near        []mourner
}

// mourner was at an engine when it died and had got no token there.
type mourner struct {
	en    *entry
	alone bool
}

// inquest reads in a new engine's hello how the one before it died, and holds it against whom it may concern: a model that was being
// loaded, or else the requests that got no token there.
func (d *Table) inquest(h Hello, now time.Time) {
	g := d.graves
	d.graves = grave{}
	if g.instance == 0 || g.instance == h.Instance || !h.LastExit.fault() || !h.LastExit.about(g.attachedFor) {
		return
	}
	if !g.progress && !g.counted {
		d.loop.died(now)
	}
	d.accuse(&g, g.inHand(h.LastExit.Loads), now)
	d.endLoop(now)
}

// accuse holds a death against the loads that were in hand, the requests, or both.
func (d *Table) accuse(g *grave, loads []pair, now time.Time) {
	var atWork []mourner // who waited for a load was not
	struck := false
	for _, m := range g.near {
		if !slices.Contains(loads, pair{m.en.model, m.en.version}) {
			atWork = append(atWork, m)
			struck = struck || m.en.strikes > 0
		}
	}
	// Between a load and a request it is in doubt who did it, unless only the load was suspected before.
	doubt := len(loads) > 0 && len(atWork) > 0 && (struck || !slices.ContainsFunc(loads, d.refused.shy))
	if doubt || len(loads) == 0 {
		for _, m := range atWork {
			d.strike(m, doubt, now)
		}
	}
	d.diedLoading(loads, doubt, now)
}

// presume takes the loss of an engine without progress as a death, when the deaths before it were all but a crash loop: its supervisor
// gives up now, so that no next engine tells.
func (d *Table) presume(e *engine, now time.Time) {
	if e.progress || e.draining || !d.loop.near(now) {
		return
	}
	d.loop.died(now)
	d.graves.counted = true
	d.endLoop(now)
}

// endLoop answers what waits when engines die one after the other.
func (d *Table) endLoop(now time.Time) {
	if d.loop.on(now) {
		d.log.Error("engines die without progress, ending what waits", "deaths", loopDeaths, "window", loopWindow)
		d.endWaiting(now)
	}
}

// strike holds a death against a request that may have caused it. In doubt it may come to go alone, but isn't refused.
func (d *Table) strike(m mourner, doubt bool, now time.Time) {
	en := m.en
	if en.state != waiting && en.state != suspect {
		return
	}
	en.strikes++
	switch {
	case en.strikes >= quarantineAt && m.alone && !doubt:
		d.log.Error("request killed the engine repeatedly and is refused from now on", "request_id", en.req.ID, "deaths", en.strikes, "for", d.o.QuarantineTTL)
		d.refused.refuse(en.model, en.version, en.req.Infer, now.Add(d.o.QuarantineTTL))
		d.m.Quarantined()
		en.replayed = true
		d.finish(en, nil, api.Quarantined(), now)
	case en.strikes >= suspectAt:
		d.queue.Remove(en.id)
		en.move(struck)
		d.queue.Push(en.item())
	}
}

// inHand are the loads that an engine was in when it died: what its supervisor knows of them may be a moment old.
func (g *grave) inHand(said []Load) []pair {
	var loads []pair
	for _, l := range said {
		p := pair{l.Model, l.Version}
		if _, loaded := g.loaded[p]; !loaded {
			loads = append(loads, p)
		}
	}
	return loads
}

// diedLoading holds a death against the models that were being loaded. One alone did it; of several, and in doubt, none is refused for
// it, but each goes alone from now on, so that the next death tells.
func (d *Table) diedLoading(loads []pair, doubt bool, now time.Time) {
	for _, p := range loads {
		failures, refused := d.refused.died(p, len(loads) == 1 && !doubt, now, d.o.QuarantineTTL)
		for range failures {
			d.m.Model(p.model, p.version).LoadFailed("engine_crash")
		}
		if refused {
			d.refuseModel(p, now)
		}
	}
}

// refuseModel answers what waits for a model in whose loads engines died.
func (d *Table) refuseModel(p pair, now time.Time) {
	d.log.Error("engines died loading a model, it is refused from now on", "model", p.model, "version", p.version, "for", d.o.QuarantineTTL)
	for _, en := range d.sorted() {
		if !en.state.atEngine() && en.model == p.model && en.version == p.version {
			d.finish(en, nil, api.ModelLoadFailed(p.model, p.version, "engine_crash").After(d.o.QuarantineTTL), now)
		}
	}
}

// endWaiting answers everything that waits for an engine.
func (d *Table) endWaiting(now time.Time) {
	for _, en := range d.sorted() {
		switch {
		case en.state.atEngine():
		case en.firstSent.IsZero():
			d.finish(en, nil, api.EngineUnavailable(loopWindow), now)
		default:
			d.finish(en, nil, api.EngineCrashed(loopWindow), now)
		}
	}
}

// replayFailure is the value of llm_requests_replayed_total{result} for an error.
func replayFailure(err *api.Error) string {
	switch err.Type {
	case api.TypeModelChanged:
		return "model_changed"
	case api.TypeQuarantined:
		return "quarantined"
	}
	return "failed"
}
