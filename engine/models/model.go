package models

import (
	"crypto/sha256"
	"fmt"
	"slices"
)

// Model is one model of the registry.
type Model struct {
	Name           string
	Description    string
	Domain         string
	DefaultVersion string // empty: the model has no wish
	Template       TemplateMode
	Defaults       Defaults
	TrainContext   int       // tokens that the model was trained for; 0: not known before the first load
	Versions       []Version // base first, the others in ascending order
	Demo           bool      // built in
}

// Version of a model.
type Version struct {
	Name    string
	Adapter bool   // a LoRA on the base; otherwise a full model
	Problem string // why it can't be loaded; empty when it can
}

// Find gives a version by its name.
func (m *Model) Find(version string) (Version, bool) {
	i := slices.IndexFunc(m.Versions, func(v Version) bool { return v.Name == version })
	if i < 0 {
		return Version{}, false
	}
	return m.Versions[i], true
}

// Resolve gives the version that an unnamed one means: the model's own default, else fallback where the model has it, else base.
func (m *Model) Resolve(fallback string) string {
	if m.DefaultVersion != "" {
		return m.DefaultVersion
	}
	if _, ok := m.Find(fallback); ok {
		return fallback
	}
	return BaseVersion
}

// source is what loading one (model, version) needs.
type source struct {
	model    string
	version  string
	dir      string // of the model; empty: built in
	base     *artefact
	adapter  *artefact // nil: the base alone, or a full model
	template TemplateMode
	defaults Defaults
	problem  string
	state    [sha256.Size]byte // of the files of base and adapter
	baseID   string            // equal for versions that share loaded weights
	identity string            // of everything that is loaded
}

func (s *source) seal() {
	h := sha256.New()
	for _, a := range []*artefact{s.base, s.adapter} {
		if a != nil {
			sum := a.hash()
			h.Write(sum[:])
		}
	}
	copy(s.state[:], h.Sum(nil))
	s.baseID = fmt.Sprintf("%s/%s/%d", s.model, s.base.id(), s.template)
	s.identity = fmt.Sprintf("%x/%d", s.state, s.template)
}

// brokenKey is what a broken load is remembered by: files that aren't there have no state, and a problem may go without a change of state.
func (s *source) brokenKey() string {
	return s.model + "@" + s.version + " " + s.identity + " " + s.problem
}

// detail of the problem for the log, as far as there is more to say than clients are told.
func (s *source) detail() string {
	for _, a := range []*artefact{s.adapter, s.base} {
		if a != nil && a.problem != "" && a.detail != "" {
			return a.detail
		}
	}
	return ""
}

// catalog is one state of the registry; immutable.
type catalog struct {
	models  []Model // by name
	sources map[string]map[string]*source
}

func (c *catalog) lookup(model, version string) *source { return c.sources[model][version] }

// content gives the sha256 over the checksums of base and adapter, or nil when one isn't known.
func (s *source) content(sum func(*artefact) []byte) []byte {
	h := sha256.New()
	for _, a := range []*artefact{s.base, s.adapter} {
		if a == nil {
			continue
		}
		b := sum(a)
		if b == nil {
			return nil
		}
		h.Write(b)
	}
	return h.Sum(nil)
}
