package models

import (
	"cmp"
	"maps"
	"slices"
)

// catalog is one state of the registry; immutable.
type catalog struct {
	models  []Model // by name
	sources map[string]map[string]*source
}

func (c *catalog) lookup(model, version string) *source { return c.sources[model][version] }

// buildCatalog makes a catalog of the models that a scan found.
func buildCatalog(list map[string]foundModel, demo *Demo) *catalog {
	c := &catalog{sources: map[string]map[string]*source{}}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		f := list[name]
		c.add(f.model(), f.sources())
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

// withLoadProblems returns the catalog with the problems that only loads found, by source.identity or source.baseID.
func (c *catalog) withLoadProblems(loadProblems map[string]string) *catalog {
	next := &catalog{models: slices.Clone(c.models), sources: c.sources}
	for i := range next.models {
		m := &next.models[i]
		m.Versions = slices.Clone(m.Versions)
		for j := range m.Versions {
			src := c.lookup(m.Name, m.Versions[j].Name)
			m.Versions[j].Problem = firstNonEmpty(src.problem, loadProblems[src.baseID], loadProblems[src.identity])
		}
	}
	return next
}

func (c *catalog) add(m Model, sources []*source) {
	byVersion := map[string]*source{}
	for _, s := range sources {
		s.model, s.template, s.pooling, s.attention, s.defaults = m.Name, m.Template, m.Pooling, m.Attention, m.Defaults
		s.setIdentity()
		byVersion[s.version] = s
		m.Versions = append(m.Versions, Version{Name: s.version, Adapter: s.adapter != nil, Problem: s.problem})
	}
	c.models = append(c.models, m)
	c.sources[m.Name] = byVersion
}

func (f foundModel) model() Model {
	template, _ := f.file.template() // checked when the file was read
	pooling, _ := parsePooling(f.file.Pooling)
	m := Model{
		Name: f.name, Description: f.file.Description, Domain: f.file.Domain, DefaultVersion: f.file.DefaultVersion,
		Template: template, Pooling: pooling, Attention: f.file.attention(), Defaults: f.file.Defaults, TrainContext: f.base.header.TrainContext,
		Bytes: f.base.bytes, Architecture: f.base.header.Architecture, Quantization: f.base.header.Quantization,
	}
	if f.base.headerRead && f.base.problem == "" {
		m.Description = cmp.Or(m.Description, f.base.header.Architecture+" model")
		abilities := f.base.header.abilities(template, pooling)
		m.Abilities = &abilities
	}
	return m
}

// sources returns the base first, then the other versions in ascending order.
func (f foundModel) sources() []*source {
	base := &source{version: BaseVersion, dir: f.dir, base: f.base, problem: firstNonEmpty(f.problem, f.base.problem, f.adapterInPlaceOfWeights(f.base))}
	list := []*source{base}
	for _, v := range slices.Sorted(maps.Keys(f.versions())) {
		s := &source{version: v, dir: f.dir}
		if full := f.full[v]; full != nil {
			s.base = full
			s.problem = firstNonEmpty(f.problem, full.problem, f.adapterInPlaceOfWeights(full))
		} else {
			s.base, s.adapter = f.base, f.adapters[v]
			s.problem = firstNonEmpty(base.problem, s.adapter.problem)
		}
		list = append(list, s)
	}
	return list
}

func (f foundModel) versions() map[string]bool {
	all := map[string]bool{}
	for v := range f.adapters {
		all[v] = true
	}
	for v := range f.full {
		all[v] = true
	}
	return all
}

// adapterInPlaceOfWeights is the problem of weights that are an adapter; empty: they aren't.
func (f foundModel) adapterInPlaceOfWeights(a *weightsFile) string {
	if a.headerRead && a.problem == "" && a.header.Type == "adapter" {
		return a.name() + " is an adapter, it belongs into versions/"
	}
	return ""
}

func firstNonEmpty(problems ...string) string {
	for _, p := range problems {
		if p != "" {
			return p
		}
	}
	return ""
}

func (d *Demo) model() (Model, []*source) {
	m := Model{
		Name: d.Name, Description: d.Description, Demo: true, TrainContext: d.Known.TrainContext,
		Architecture: d.Known.Architecture, Quantization: d.Known.Quantization, Abilities: d.Known.Abilities,
	}
	var base *weightsFile
	var list []*source
	for i := range d.Files {
		f := &d.Files[i]
		a := &weightsFile{embedded: f, isPacked: true, bytes: f.Bytes}
		if f.Version == "" {
			base = a
			m.Bytes = f.Bytes
			list = append(list, &source{version: BaseVersion, base: a})
		} else {
			list = append(list, &source{version: f.Version, base: base, adapter: a})
		}
	}
	return m, list
}

// sameCatalog reports whether two catalogs list the same models, with files in the same state and under the same names.
func sameCatalog(a, b *catalog) bool {
	if len(a.models) != len(b.models) {
		return false
	}
	for i := range a.models {
		x, y := &a.models[i], &b.models[i]
		if x.Name != y.Name || x.Description != y.Description || x.Domain != y.Domain || x.DefaultVersion != y.DefaultVersion ||
			x.Template != y.Template || x.Pooling != y.Pooling || x.Attention != y.Attention || x.Bytes != y.Bytes || x.Demo != y.Demo || x.TrainContext != y.TrainContext || !x.Defaults.equal(&y.Defaults) || !slices.Equal(x.Versions, y.Versions) {
			return false
		}
		for _, v := range x.Versions {
			if !a.lookup(x.Name, v.Name).sameFiles(b.lookup(x.Name, v.Name)) {
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
