package metrics

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/schema/catalogue"
)

// labelAllowlist is the second line of defence against unbounded label values: whatever a caller passes, only known
// values become labels.
type labelAllowlist struct {
	mu        sync.Mutex // serialises writers of the sets below
	models    stringSet
	versions  stringSet
	endpoints stringSet
	domains   stringSet
}

// stringSet is a set of strings that changes rarely and is read often.
type stringSet struct {
	p atomic.Pointer[map[string]bool]
}

func (s *stringSet) has(value string) bool { return (*s.p.Load())[value] }

// add must be called by one goroutine at a time.
func (s *stringSet) add(value string) {
	next := make(map[string]bool)
	if old := s.p.Load(); old != nil {
		for v := range *old {
			next[v] = true
		}
	}
	next[value] = true
	s.p.Store(&next)
}

// keep must be called by one goroutine at a time. The reserved names stay.
func (s *stringSet) keep(wanted map[string]bool) {
	next := map[string]bool{catalogue.None: true, catalogue.Unknown: true, catalogue.Other: true}
	for v := range *s.p.Load() {
		if wanted[v] {
			next[v] = true
		}
	}
	s.p.Store(&next)
}

func (s *stringSet) size() int { return len(*s.p.Load()) }

func (a *labelAllowlist) init(o Options) {
	for _, s := range []*stringSet{&a.models, &a.versions} {
		s.add(catalogue.None)
		s.add(catalogue.Unknown)
		s.add(catalogue.Other)
	}
	a.endpoints.add(catalogue.Other)
	a.domains.add(catalogue.General)
	a.domains.add(catalogue.Other)
	for _, d := range o.Domains {
		a.addDomain(d)
	}
}

func (a *labelAllowlist) addPair(model, version string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.models.add(model)
	a.versions.add(version)
}

// keep removes all models and versions but these.
func (a *labelAllowlist) keep(models, versions map[string]bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.models.keep(models)
	a.versions.keep(versions)
}

func (a *labelAllowlist) addEndpoint(route string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endpoints.add(route)
}

// addDomain reports whether there was room.
func (a *labelAllowlist) addDomain(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if name == "" || a.domains.has(name) {
		return true
	}
	if a.domains.size() >= catalogue.MaxDomains {
		return false
	}
	a.domains.add(name)
	return true
}

func (a *labelAllowlist) domain(name string) string {
	if name == "" {
		return catalogue.General
	}
	if a.domains.has(name) {
		return name
	}
	return catalogue.Other
}

// constrain adds a constraint to every label that has a known set of values.
func (a *labelAllowlist) constrain(labels []catalogue.Label) prometheus.ConstrainedLabels {
	out := make(prometheus.ConstrainedLabels, len(labels))
	for i, l := range labels {
		out[i] = prometheus.ConstrainedLabel{Name: l.Name, Constraint: a.constraint(l)}
	}
	return out
}

func (a *labelAllowlist) constraint(l catalogue.Label) prometheus.LabelConstraint {
	switch {
	case l.Values != nil:
		return func(v string) string {
			if slices.Contains(l.Values, v) {
				return v
			}
			return l.Fallback
		}
	case l.Name == "model":
		return foldTo(&a.models, catalogue.Unknown)
	case l.Name == "version":
		return foldTo(&a.versions, catalogue.Unknown)
	case l.Name == "endpoint":
		return foldTo(&a.endpoints, catalogue.Other)
	case l.Name == "domain":
		return a.domain
	}
	return nil
}

func foldTo(s *stringSet, fallback string) prometheus.LabelConstraint {
	return func(v string) string {
		if s.has(v) {
			return v
		}
		return fallback
	}
}
