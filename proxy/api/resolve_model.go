package api

import (
	"fmt"
	"slices"
	"strings"
)

// Model is an installed base model with its versions, as GET /models lists it and Resolve looks it up.
type Model struct {
	Name           string
	Description    string
	Domain         string   // "" for none configured
	DefaultVersion string   // "" for none configured
	Versions       []string // with BaseVersion, which every model has
	ChatTemplate   bool
	Context        int // tokens; 0 until it was loaded once
	Problems       []Problem

	Bytes        uint64               // of its files; 0: not known
	Quantization string               // "": not known
	Architecture string               // "": not known
	Capabilities []string             // nil: not known, none of its versions is loaded
	States       map[string]LoadState // of its versions; those that aren't here aren't loaded
}

// LoadState says whether a version is in memory.
type LoadState string

// Load states.
const (
	StateLoaded    LoadState = "loaded"
	StateLoading   LoadState = "loading"
	StateNotLoaded LoadState = "not_loaded"
)

// Capabilities of a model, in the words of GET /v1/models.
const (
	CapabilityChat       = "chat" // it has a chat template
	CapabilityCompletion = "completion"
	CapabilityTools      = "tools"     // its chat template has a form of its own for them
	CapabilityReasoning  = "reasoning" // its chat template has a form for it
	CapabilityEmbeddings = "embeddings"
	CapabilityRerank     = "rerank"
)

// Problem is why a version can't be loaded.
type Problem struct{ Version, Text string }

// BaseVersion is the model without adapter.
const BaseVersion = "base"

// maxListedBytes bounds the list of what is installed in the message of a 404.
const maxListedBytes = 400

// ValidModelName reports whether s can name a model: name or org/name, each [A-Za-z0-9][A-Za-z0-9._-]*, and none of the
// words that metrics use for other things.
func ValidModelName(s string) bool {
	if len(s) > MaxNameBytes || isReservedName(s) {
		return false
	}
	org, name, two := strings.Cut(s, "/")
	if !two {
		return isValidNamePart(org)
	}
	return isValidNamePart(org) && isValidNamePart(name)
}

// ValidVersion reports whether s can name a version.
func ValidVersion(s string) bool {
	return len(s) <= MaxNameBytes && !isReservedName(s) && isValidNamePart(s)
}

func isReservedName(s string) bool { return s == NameNone || s == NameUnknown || s == NameOther }

func isValidNamePart(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return s != ""
}

// Resolve finds the model and version that a request asks for among the installed ones. base "" means defaultModel;
// version "" means the model's own default version, else defaultVersion where the model has it, else BaseVersion. The
// names it returns are those of models, never the client's strings; after an error, labels are NameUnknown.
func Resolve(models []Model, defaultModel, defaultVersion, base, version string) (string, string, *Error) {
	requested := base
	if requested == "" {
		requested = defaultModel
	}
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == requested })
	if i < 0 {
		return "", "", modelNotFound(models, requested, base == "")
	}
	m := &models[i]
	if version == "" {
		version = m.VersionByDefault(defaultVersion)
	}
	if version == BaseVersion {
		return m.Name, BaseVersion, nil
	}
	j := slices.Index(m.Versions, version)
	if j < 0 {
		return "", "", versionNotFound(m, version)
	}
	return m.Name, m.Versions[j], nil
}

// VersionByDefault is the version of a request that names none: the model's own default, else defaultVersion where the
// model has it, else BaseVersion.
func (m *Model) VersionByDefault(defaultVersion string) string {
	switch {
	case m.DefaultVersion != "":
		return m.DefaultVersion
	case m.hasVersion(defaultVersion):
		return defaultVersion
	}
	return BaseVersion
}

func (m *Model) hasVersion(version string) bool { return slices.Contains(m.Versions, version) }

func modelNotFound(models []Model, requested string, isDefault bool) *Error {
	e := &Error{Type: TypeModelNotFound, Param: "base_model"}
	what := "model " + Quote(requested)
	if isDefault {
		what = "no base_model given, and the default model " + Quote(requested)
	}
	names := make([]string, len(models))
	for i := range models {
		names[i] = models[i].Name
	}
	e.Message = fmt.Sprintf("%s is not installed; installed: %s; add a model as <org>/<name>/model.gguf in MODELS_DIR, no restart needed", what, joinNames(names))
	return e
}

func versionNotFound(m *Model, requested string) *Error {
	versions := m.Versions
	if !m.hasVersion(BaseVersion) {
		versions = append([]string{BaseVersion}, versions...)
	}
	e := NewError(TypeVersionNotFound, "model %s has no version %s; it has: %s; add a version as versions/<version>.gguf beside its model.gguf, no restart needed",
		Quote(m.Name), Quote(requested), joinNames(versions))
	e.Param = "adapter_version"
	return e
}

// joinNames joins names to a list of bounded length.
func joinNames(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, name := range names {
		if i > 0 && b.Len()+len(name) > maxListedBytes {
			fmt.Fprintf(&b, " and %d more (see GET /models)", len(names)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name)
	}
	return b.String()
}
