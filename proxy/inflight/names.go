package inflight

import (
	"slices"
	"strings"

	"tandem/proxy/api"
)

// catalog is what an engine can serve, in the forms in which it is looked up.
type catalog struct {
	models    []Model
	lookup    []api.Model // the same for api.Resolve
	pairs     map[pair]bool
	cacheSize int
}

// newCatalog copies what an engine said. Names that no request could ask for are left out, since names become metric labels.
func newCatalog(c *Catalog) catalog {
	out := catalog{pairs: make(map[pair]bool), cacheSize: c.CacheSize}
	for _, m := range c.Models {
		if !api.ValidModelName(m.Name) {
			continue
		}
		m.Versions = slices.DeleteFunc(slices.Clone(m.Versions), func(v Version) bool { return !api.ValidVersion(v.Name) })
		lookup := api.Model{Name: m.Name, Description: m.Description, Domain: m.Domain, DefaultVersion: m.DefaultVersion, Context: m.ContextTokens}
		out.pairs[pair{m.Name, api.BaseVersion}] = true
		for _, v := range m.Versions {
			out.pairs[pair{m.Name, v.Name}] = true
			lookup.Versions = append(lookup.Versions, v.Name)
		}
		out.models = append(out.models, m)
		out.lookup = append(out.lookup, lookup)
	}
	return out
}

// known tells whether any engine has said what it can serve.
func (c *catalog) known() bool { return c.pairs != nil }

func (c *catalog) find(name string) *Model {
	i := slices.IndexFunc(c.models, func(m Model) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &c.models[i]
}

// resolve gives the names of what a request asks for.
func (c *catalog) resolve(o Options, model, version string) (string, string, *api.Error) {
	return api.Resolve(c.lookup, c.defaultModel(o), o.DefaultVersion, model, version)
}

// defaultModel is the one that a request gets that names none.
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

// problem of a version, empty when none is known.
func (c *catalog) problem(p pair) string {
	m := c.find(p.model)
	if m == nil {
		return ""
	}
	i := slices.IndexFunc(m.Versions, func(v Version) bool { return v.Name == p.version })
	if i < 0 {
		return ""
	}
	return m.Versions[i].Problem
}

// copyModels gives models that share nothing with the request table.
func copyModels(models []Model) []Model {
	out := slices.Clone(models)
	for i := range out {
		out[i].Versions = slices.Clone(out[i].Versions)
	}
	return out
}

// join makes one string of names, to see whether they changed.
func join(lists ...[]string) string {
	var b strings.Builder
	for _, list := range lists {
		b.WriteString(strings.Join(list, ","))
		b.WriteByte('|')
	}
	return b.String()
}
