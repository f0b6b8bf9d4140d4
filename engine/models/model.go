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
	DefaultVersion string // empty: the model says none
	Template       TemplateMode
	Pooling        Pooling
	Attention      Attention // as far as the model sets it
	Defaults       Defaults
	TrainContext   int        // tokens that the model was trained for; 0: not known before the first load
	Bytes          int64      // of the base's files, unpacked; 0: not known
	Architecture   string     // of the base; empty: not known before the first load
	Quantization   string     // of the base, in the library's words; empty: not known before the first load
	Abilities      *Abilities // of the base; nil: not known before the first load
	Versions       []Version  // base first, the others in ascending order
	Demo           bool       // built in
}

// Version of a model.
type Version struct {
	Name    string
	Adapter bool   // a LoRA on the base; otherwise a full model
	Problem string // why it can't be loaded; empty when it can
}

// Find returns a version by its name.
func (m *Model) Find(version string) (Version, bool) {
	i := slices.IndexFunc(m.Versions, func(v Version) bool { return v.Name == version })
	if i < 0 {
		return Version{}, false
	}
	return m.Versions[i], true
}

// Resolve returns the version of requests that name none: the model's own default, else fallback where the model has
// it, else base.
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
	model     string
	version   string
	dir       string // of the model; empty: built in
	base      *weightsFile
	adapter   *weightsFile // nil: the base alone, or a full model
	template  TemplateMode
	pooling   Pooling
	attention Attention // as far as the model sets it
	defaults  Defaults
	problem   string
	filesHash [sha256.Size]byte // of the files' state of base and adapter
	baseID    string            // equal for versions that share loaded weights
	identity  string            // equal for equal states of everything that is loaded, and equal checksums to verify
}

// setIdentity sets filesHash, baseID and identity.
func (s *source) setIdentity() {
	h := sha256.New()
	for _, a := range []*weightsFile{s.base, s.adapter} {
		if a != nil {
			sum := a.stateHash()
			h.Write(sum[:])
		}
	}
	copy(s.filesHash[:], h.Sum(nil))
	want := s.base.wantChecksums
	s.baseID = fmt.Sprintf("%s/%s/%d/%d/%v/%v", s.model, s.base.stateID(), s.template, s.pooling, s.attention, want)
	s.identity = fmt.Sprintf("%x/%d/%d/%v/%v", s.filesHash, s.template, s.pooling, s.attention, want)
	if s.adapter != nil {
		s.identity += fmt.Sprintf("/%v", s.adapter.wantChecksums)
	}
}

// sameFiles reports whether two sources load the same files, in the same state and under the same names.
func (s *source) sameFiles(o *source) bool {
	return s.identity == o.identity && slices.Equal(s.openPaths(), o.openPaths())
}

func (s *source) openPaths() (list []string) {
	for _, a := range []*weightsFile{s.base, s.adapter} {
		if a == nil {
			continue
		}
		for _, p := range a.parts {
			list = append(list, p.openPath)
		}
	}
	return list
}

// brokenKey is the key of Cache.brokenLoads: files that don't exist have no state, and a problem may be solved without
// a change of the files' state.
func (s *source) brokenKey() string {
	return s.model + "@" + s.version + " " + s.identity + " " + s.problem
}

// addUnpackedNames adds the names in CACHE_DIR of the source's unpacked files.
func (s *source) addUnpackedNames(names map[string]bool) {
	for _, a := range []*weightsFile{s.base, s.adapter} {
		if a != nil && a.isPacked {
			names[a.unpackedName()] = true
		}
	}
}

// problemDetail is what the log gets about the problem beyond the text for clients; empty: nothing.
func (s *source) problemDetail() string {
	for _, a := range []*weightsFile{s.adapter, s.base} {
		if a != nil && a.problem != "" && a.problemDetail != "" {
			return a.problemDetail
		}
	}
	return ""
}

// contentHash returns the sha256 over the checksums of base and adapter, or nil when one isn't known.
func (s *source) contentHash(sum func(*weightsFile) []byte) []byte {
	h := sha256.New()
	for _, a := range []*weightsFile{s.base, s.adapter} {
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
