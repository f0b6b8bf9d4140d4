package inflight

import (
	"slices"
	"time"

	"tandem/proxy/api"
)

// catalog is what an engine can serve, in the forms needed for look-ups.
type catalog struct {
	models    []Model
	lookup    []api.Model // the same, for api.Resolve
	versions  map[modelVersion]bool
	cacheSize int
}

// newCatalog copies what an engine sent. It leaves out names that no request could ask for, since names become metric
// labels.
func newCatalog(c *Catalog) catalog {
	out := catalog{versions: make(map[modelVersion]bool), cacheSize: c.CacheSize}
	for _, m := range c.Models {
		if !api.ValidModelName(m.Name) {
			continue
		}
		m.Versions = slices.DeleteFunc(slices.Clone(m.Versions), func(v Version) bool { return !api.ValidVersion(v.Name) })
		lookup := api.Model{Name: m.Name, Description: m.Description, Domain: m.Domain, DefaultVersion: m.DefaultVersion, Context: m.ContextTokens}
		out.versions[modelVersion{m.Name, api.BaseVersion}] = true
		for _, v := range m.Versions {
			out.versions[modelVersion{m.Name, v.Name}] = true
			lookup.Versions = append(lookup.Versions, v.Name)
		}
		out.models = append(out.models, m)
		out.lookup = append(out.lookup, lookup)
	}
	return out
}

// known reports whether an engine has sent a catalog at all.
func (c *catalog) known() bool { return c.versions != nil }

// find returns the model of that name, or nil.
func (c *catalog) find(name string) *Model {
	i := slices.IndexFunc(c.models, func(m Model) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &c.models[i]
}

// contextTokens is how many tokens the context of a model holds; 0: not known yet.
func (c *catalog) contextTokens(model string) int {
	if m := c.find(model); m != nil {
		return m.ContextTokens
	}
	return 0
}

// resolve returns the full model name and version for what a request asks for.
func (c *catalog) resolve(o Options, model, version string) (string, string, *api.Error) {
	return api.Resolve(c.lookup, c.defaultModel(o), o.DefaultVersion, model, version)
}

// listedID names a version as the list of models does.
func (c *catalog) listedID(mv modelVersion) string {
	i := slices.IndexFunc(c.lookup, func(m api.Model) bool { return m.Name == mv.model })
	if i < 0 {
		return mv.model
	}
	return api.ListedID(&c.lookup[i], mv.version)
}

// listed returns the models with the default versions that they have by the settings. They share no memory with the
// request table.
func (c *catalog) listed(o Options) []Model {
	out := copyModels(c.models)
	for i := range out {
		out[i].DefaultVersion = c.lookup[i].VersionByDefault(o.DefaultVersion)
	}
	return out
}

// defaultModel is the model of a request that names none.
func (c *catalog) defaultModel(o Options) string {
	if o.ChooseDefault == nil {
		return o.DefaultModel
	}
	names := make([]string, len(c.models))
	for i := range c.models {
		names[i] = c.models[i].Name
	}
	return o.ChooseDefault(names)
}

// problem says why a version can't be loaded; empty when nothing is known against it.
func (c *catalog) problem(mv modelVersion) string {
	m := c.find(mv.model)
	if m == nil {
		return ""
	}
	i := slices.IndexFunc(m.Versions, func(v Version) bool { return v.Name == mv.version })
	if i < 0 {
		return ""
	}
	return m.Versions[i].Problem
}

// copyModels returns models that share no memory with the request table.
func copyModels(models []Model) []Model {
	out := slices.Clone(models)
	for i := range out {
		out[i].Versions = slices.Clone(out[i].Versions)
	}
	return out
}

// defaultModelVersion returns what a request gets that names neither model nor version; empty while that isn't known.
func (t *Table) defaultModelVersion() modelVersion {
	if !t.catalog.known() {
		return modelVersion{}
	}
	model, version, err := t.catalog.resolve(t.options, "", "")
	if err != nil {
		return modelVersion{}
	}
	return modelVersion{model, version}
}

// Catalog implements EngineHandler.
func (t *Table) Catalog(conn Engine, c *Catalog) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.engineForFrame(conn)
	if e == nil {
		return
	}
	e.catalog = newCatalog(c)
	e.cacheSize = c.CacheSize
	for mv := range e.catalog.versions {
		t.metrics.RegisterModel(mv.model, mv.version)
	}
	for _, m := range e.catalog.models {
		if m.Domain != "" {
			t.metrics.AllowDomain(m.Domain)
		}
	}
	e.setLoaded(c.Loaded, now)
	t.chooseCatalog()
	t.noteEnginesChanged()
	t.updateEverReady()
	t.noteReadyAfterOutage(now)
	t.resolveWaiting(now)
	t.failOrphans(now)
	t.reportLoadedModels()
	t.advanceDraining()
	t.dispatch(now)
	t.updateGauges()
}

// chooseCatalog puts the catalog of the newest engine in force that has sent one, of those that take new requests where
// there is any. Without an engine the last one stays.
func (t *Table) chooseCatalog() {
	var chosen *engine
	for _, e := range slices.Backward(t.engines) {
		if e.catalog.known() && (chosen == nil || chosen.draining && !e.draining) {
			chosen = e
		}
	}
	if chosen != nil {
		t.catalog = chosen.catalog
		t.metrics.SetCacheSize(chosen.cacheSize)
	}
}

// updateEverReady sets everReady once an engine can serve: its catalog is known and no engine is loading the default
// model.
func (t *Table) updateEverReady() {
	def := t.defaultModelVersion()
	if t.everReady || !t.catalog.known() || slices.ContainsFunc(t.engines, func(e *engine) bool { return e.isLoading(def) }) {
		return
	}
	t.everReady = true
}

// setLoaded takes over the engine's list of what is in its model cache.
func (e *engine) setLoaded(list []Loaded, now time.Time) {
	clear(e.loaded)
	loading := make(map[modelVersion]time.Time)
	for _, l := range list {
		mv := modelVersion{l.Model, l.Version}
		if !e.catalog.versions[mv] {
			continue
		}
		if !l.Loading {
			e.loaded[mv] = l
			delete(e.failed, mv)
			continue
		}
		loading[mv] = now
		if since, ok := e.loading[mv]; ok {
			loading[mv] = since
		}
	}
	e.loading = loading
}

// resolveWaiting gives their model to requests that came before any catalog.
func (t *Table) resolveWaiting(now time.Time) {
	for _, it := range t.queue.RemoveBase("") {
		en := t.entries[it.ID]
		before := en.modelMetrics
		if err := t.resolve(en, now); err != nil {
			t.finish(en, nil, err, now)
			continue
		}
		before.Release()
		en.modelMetrics.Hold()
		t.queue.PushAdmitted(en.item())
	}
}

// failOrphans ends waiting requests whose model no engine has any more. It does nothing while an attached engine hasn't
// sent its catalog, or is about to leave and may come again.
func (t *Table) failOrphans(now time.Time) {
	if len(t.engines) == 0 || slices.ContainsFunc(t.engines, func(e *engine) bool {
		return !e.catalog.known() || e.protocolBroken || e.moving || e.draining && !t.draining
	}) {
		return
	}
	for _, en := range t.entriesByOrder() {
		if en.state.atEngine() || en.model == "" || t.targetEngine(modelVersion{en.model, en.version}) != nil {
			continue
		}
		if en.everAccepted {
			t.finish(en, nil, api.ModelChanged(en.model, en.version), now)
		} else if _, _, err := t.catalog.resolve(t.options, en.model, en.version); err != nil {
			t.finish(en, nil, err, now)
		}
	}
}
