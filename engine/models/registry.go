package models

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// scanInterval is how often MODELS_DIR is looked at.
const scanInterval = time.Second

// Demo is the built-in model as the registry shows it.
type Demo struct {
	Name        string
	Description string
	Files       []Embedded // the weights have no version
}

// RegistryOptions for NewRegistry.
type RegistryOptions struct {
	Dir        string // MODELS_DIR; may be empty or missing
	Inside     bool   // links may not lead out of Dir
	Demo       *Demo  // nil: none
	AlwaysDemo bool   // list it although other models are installed
	Log        *slog.Logger
}

// Registry knows the models on disk and the built-in one.
type Registry struct {
	opts RegistryOptions
	scan *scanner // used by one goroutine: NewRegistry, then Run
	last map[string]found

	mu      sync.Mutex
	current *catalog          // guarded by mu; replaced, never changed
	changed chan struct{}     // guarded by mu; closed when current is replaced
	learned map[string]string // guarded by mu; problems that only a load found, by source.identity or source.baseID
}

// NewRegistry reads the directory once. A directory that can't be read is an error, a missing one is not.
func NewRegistry(o RegistryOptions) (*Registry, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{opts: o, scan: newScanner(o.Dir, o.Inside, o.Log), last: map[string]found{}, changed: make(chan struct{}), learned: map[string]string{}}
	if err := r.refresh(time.Now()); err != nil {
		return nil, err
	}
	return r, nil
}

// Run looks for changes every second until ctx ends.
func (r *Registry) Run(ctx context.Context) {
	tick := time.NewTicker(scanInterval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := r.refresh(time.Now())
		if err != nil && !failing {
			r.opts.Log.Error("models directory can't be read, what was found before stays", "err", err)
		}
		failing = err != nil
	}
}

// Snapshot lists the models by name. The slices are shared and must not be changed.
func (r *Registry) Snapshot() []Model {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current.models
}

// Changes gives a channel that is closed when the next snapshot differs from the present one. Take it before the snapshot.
func (r *Registry) Changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Find gives a model by its name.
func (r *Registry) Find(model string) (Model, bool) {
	list := r.Snapshot()
	i := slices.IndexFunc(list, func(m Model) bool { return m.Name == model })
	if i < 0 {
		return Model{}, false
	}
	return list[i], true
}

func (r *Registry) source(model, version string) *source {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current.lookup(model, version)
}

// packed gives the ids of everything that is kept unpacked.
func (r *Registry) packed() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := map[string]bool{}
	for _, versions := range r.current.sources {
		for _, s := range versions {
			for _, a := range []*artefact{s.base, s.adapter} {
				if a != nil && a.packed {
					ids[a.unpackedName()] = true
				}
			}
		}
	}
	return ids
}

// refresh scans and publishes what is different.
func (r *Registry) refresh(now time.Time) error {
	list, err := r.scan.scan(now)
	if err != nil {
		return err
	}
	settled := map[string]found{}
	for _, m := range list {
		if before, known := r.last[m.name]; !m.settled && known {
			m = before // what was found before counts until the new files rest
		} else if !m.settled {
			continue
		}
		settled[m.name] = m
	}
	r.last = settled
	next := build(settled, r.demoFor(settled))
	for _, m := range next.models {
		if d := m.DefaultVersion; d != "" && next.lookup(m.Name, d) == nil {
			r.scan.warnOnce("default "+m.Name+" "+d, "default_version isn't installed", "model", m.Name, "version", d)
		}
	}
	r.tellProblems(next)
	r.mu.Lock()
	defer r.mu.Unlock()
	next = next.with(r.learned)
	if r.current != nil && same(r.current, next) {
		return nil
	}
	if r.current != nil {
		r.opts.Log.Info("models changed", "models", len(next.models))
	}
	r.publish(next)
	return nil
}

// publish is called with mu held.
func (r *Registry) publish(next *catalog) {
	r.current = next
	close(r.changed)
	r.changed = make(chan struct{})
}

// tellProblems logs what can't be loaded, once: a base for all the versions that fail with it.
func (r *Registry) tellProblems(c *catalog) {
	for _, m := range c.models {
		base := c.lookup(m.Name, BaseVersion)
		for _, v := range m.Versions {
			src := c.lookup(m.Name, v.Name)
			if v.Problem == "" || v.Name != BaseVersion && v.Problem == base.problem {
				continue
			}
			args := []any{"model", m.Name, "version", v.Name, "problem", v.Problem, "directory", src.dir}
			if detail := src.detail(); detail != "" {
				args = append(args, "detail", detail)
			}
			r.scan.once("problem "+m.Name+" "+v.Name+" "+v.Problem, func() { r.opts.Log.Error("model can't be loaded", args...) })
		}
	}
}

// learn notes what a load found out about the files that key stands for, a source's identity or baseID: a reason why they can't be
// loaded, or none when they were. It tells whether that is news.
func (r *Registry) learn(key, problem string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.learned[key] == problem {
		return false
	}
	if len(r.learned) >= maxModels {
		clear(r.learned)
	}
	if r.learned[key] = problem; problem == "" {
		delete(r.learned, key)
	}
	r.publish(r.current.with(r.learned))
	return true
}

func (r *Registry) demoFor(installed map[string]found) *Demo {
	d := r.opts.Demo
	if d == nil {
		return nil
	}
	if _, taken := installed[d.Name]; taken || len(installed) > 0 && !r.opts.AlwaysDemo {
		return nil
	}
	return d
}

// build makes a catalog of what was found.
func build(list map[string]found, demo *Demo) *catalog {
	c := &catalog{sources: map[string]map[string]*source{}}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		f := list[name]
		c.add(f.describe(), f.sources())
	}
	if demo != nil {
		m, sources := demo.model()
		c.add(m, sources)
	}
	slices.SortFunc(c.models, func(a, b Model) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return c
}

// with gives the catalog with problems that only loads found, by source.identity or source.baseID.
func (c *catalog) with(learned map[string]string) *catalog {
	next := &catalog{models: slices.Clone(c.models), sources: c.sources}
	for i := range next.models {
		m := &next.models[i]
		m.Versions = slices.Clone(m.Versions)
		for j := range m.Versions {
			src := c.lookup(m.Name, m.Versions[j].Name)
			m.Versions[j].Problem = firstOf(src.problem, learned[src.baseID], learned[src.identity])
		}
	}
	return next
}

func (c *catalog) add(m Model, sources []*source) {
	byVersion := map[string]*source{}
	for _, s := range sources {
		s.model, s.template, s.defaults = m.Name, m.Template, m.Defaults
		s.seal()
		byVersion[s.version] = s
		m.Versions = append(m.Versions, Version{Name: s.version, Adapter: s.adapter != nil, Problem: s.problem})
	}
	c.models = append(c.models, m)
	c.sources[m.Name] = byVersion
}

func (f found) describe() Model {
	template, _ := f.file.template() // checked when the file was read
	m := Model{
		Name: f.name, Description: f.file.Description, Domain: f.file.Domain, DefaultVersion: f.file.DefaultVersion,
		Template: template, Defaults: f.file.Defaults, TrainContext: f.base.header.TrainContext,
	}
	if m.Description == "" && f.base.checked {
		m.Description = f.base.header.Architecture + " model"
	}
	return m
}

// sources gives base first, then the other versions in ascending order.
func (f found) sources() []*source {
	base := &source{version: BaseVersion, dir: f.dir, base: f.base, problem: firstOf(f.problem, f.base.problem, f.notWeights(f.base))}
	list := []*source{base}
	for _, v := range slices.Sorted(maps.Keys(f.versions())) {
		s := &source{version: v, dir: f.dir}
		if full := f.full[v]; full != nil {
			s.base = full
			s.problem = firstOf(f.problem, full.problem, f.notWeights(full))
		} else {
			s.base, s.adapter = f.base, f.adapters[v]
			s.problem = firstOf(base.problem, s.adapter.problem)
		}
		list = append(list, s)
	}
	return list
}

func (f found) versions() map[string]bool {
	all := map[string]bool{}
	for v := range f.adapters {
		all[v] = true
	}
	for v := range f.full {
		all[v] = true
	}
	return all
}

func (f found) notWeights(a *artefact) string {
	if a.checked && a.problem == "" && a.header.Type == "adapter" {
		return a.name() + " is an adapter, it belongs into versions/"
	}
	return ""
}

func firstOf(problems ...string) string {
	for _, p := range problems {
		if p != "" {
			return p
		}
	}
	return ""
}

func (d *Demo) model() (Model, []*source) {
	m := Model{Name: d.Name, Description: d.Description, Demo: true}
	var base *artefact
	var list []*source
	for i := range d.Files {
		f := &d.Files[i]
		a := &artefact{embedded: f, packed: true, bytes: f.Bytes}
		if f.Version == "" {
			base = a
			list = append(list, &source{version: BaseVersion, base: a})
		} else {
			list = append(list, &source{version: f.Version, base: base, adapter: a})
		}
	}
	return m, list
}

// same tells whether two catalogs list the same in the same state.
func same(a, b *catalog) bool {
	if len(a.models) != len(b.models) {
		return false
	}
	for i := range a.models {
		x, y := &a.models[i], &b.models[i]
		if x.Name != y.Name || x.Description != y.Description || x.Domain != y.Domain || x.DefaultVersion != y.DefaultVersion ||
			x.Template != y.Template || x.Demo != y.Demo || x.TrainContext != y.TrainContext || !x.Defaults.equal(&y.Defaults) || !slices.Equal(x.Versions, y.Versions) {
			return false
		}
		for _, v := range x.Versions {
			if a.lookup(x.Name, v.Name).state != b.lookup(x.Name, v.Name).state {
				return false
			}
		}
	}
	return true
}

func (d *Defaults) equal(o *Defaults) bool {
	return samePtr(d.Temperature, o.Temperature) && samePtr(d.TopP, o.TopP) && samePtr(d.TopK, o.TopK) && samePtr(d.MinP, o.MinP) &&
		samePtr(d.RepeatPenalty, o.RepeatPenalty) && samePtr(d.PresencePenalty, o.PresencePenalty) && samePtr(d.FrequencyPenalty, o.FrequencyPenalty) &&
		samePtr(d.PenaltyWindow, o.PenaltyWindow) && samePtr(d.MaxNewTokens, o.MaxNewTokens)
}

func samePtr[T comparable](a, b *T) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}
