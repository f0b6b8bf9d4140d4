package openai

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tandem/proxy/api"
)

// AppendModels appends the body of GET /v1/models: each model by its name alone, which stands for its default version,
// and each of its versions. What can't be loaded isn't listed. created is the same for all: nobody knows when a model
// was made.
func AppendModels(dst []byte, models []api.Model, created time.Time) []byte {
	dst = append(dst, `{"object":"list","data":[`...)
	n := 0
	for i := range models {
		for _, id := range listedIDs(&models[i]) {
			dst = appendEntry(api.AppendComma(dst, n), &models[i], id, created)
			n++
		}
	}
	return append(dst, "]}"...)
}

// AppendModel appends the body of GET /v1/models/{id}: id is the name of a model, or name and version with a colon
// between them. The error is a 404.
func AppendModel(dst []byte, models []api.Model, id string, created time.Time) ([]byte, *api.Error) {
	name, version, _ := strings.Cut(id, ":")
	i := slices.IndexFunc(models, func(m api.Model) bool { return m.Name == name })
	if i >= 0 && canLoad(&models[i], cmp.Or(version, models[i].DefaultVersion, api.BaseVersion)) {
		return appendEntry(dst, &models[i], strings.TrimSuffix(id, ":"), created), nil
	}
	e := api.NewError(api.TypeModelNotFound, "model %s is not installed; see GET /v1/models", api.Quote(id))
	e.Param = "model"
	return dst, e
}

// listedIDs are the names by which a model can be asked for. Its base has a name of its own only beside other versions.
func listedIDs(m *api.Model) []string {
	var ids []string
	if canLoad(m, cmp.Or(m.DefaultVersion, api.BaseVersion)) {
		ids = append(ids, m.Name)
	}
	if !slices.ContainsFunc(m.Versions, func(v string) bool { return v != api.BaseVersion }) {
		return ids
	}
	for _, v := range m.Versions {
		if canLoad(m, v) {
			ids = append(ids, m.Name+":"+v)
		}
	}
	return ids
}

// canLoad reports whether a model has a version against which nothing is known.
func canLoad(m *api.Model, version string) bool {
	if version != api.BaseVersion && !slices.Contains(m.Versions, version) {
		return false
	}
	return !slices.ContainsFunc(m.Problems, func(p api.Problem) bool { return p.Version == version || p.Version == api.BaseVersion })
}

func appendEntry(dst []byte, m *api.Model, id string, created time.Time) []byte {
	dst = api.AppendMember(dst, `{"id":`, id)
	dst = strconv.AppendInt(append(dst, `,"object":"model","created":`...), created.Unix(), 10)
	dst = append(dst, `,"owned_by":"tandem"`...)
	if m.Context > 0 {
		dst = api.AppendInt(dst, `,"context_length":`, m.Context)
	}
	if m.Bytes > 0 {
		dst = api.AppendUint(dst, `,"size_bytes":`, m.Bytes)
	}
	if m.Quantization != "" {
		dst = api.AppendMember(dst, `,"quantization":`, m.Quantization)
	}
	if m.Architecture != "" {
		dst = api.AppendMember(dst, `,"architecture":`, m.Architecture)
	}
	if m.Capabilities != nil {
		dst = append(dst, `,"capabilities":[`...)
		for i, c := range m.Capabilities {
			dst = api.AppendString(api.AppendComma(dst, i), c)
		}
		dst = append(dst, ']')
	}
	return append(api.AppendMember(dst, `,"state":`, string(stateOf(m, id))), '}')
}

// stateOf is the load state of the version that an id stands for.
func stateOf(m *api.Model, id string) api.LoadState {
	_, version, _ := strings.Cut(id, ":")
	return cmp.Or(m.States[cmp.Or(version, m.DefaultVersion, api.BaseVersion)], api.StateNotLoaded)
}
