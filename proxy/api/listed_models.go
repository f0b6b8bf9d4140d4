package api

import (
	"cmp"
	"slices"
	"strings"
)

// ListedModel is a name by which a model can be asked for.
type ListedModel struct {
	ID    string // name, or name and version with a colon between them
	Model *Model
}

// ListModels lists each model by its name alone, which stands for its default version, and each of its versions. What
// can't be loaded isn't listed. The models' default versions are those that VersionByDefault returns.
func ListModels(models []Model) []ListedModel {
	var list []ListedModel
	for i := range models {
		for _, id := range listedIDs(&models[i]) {
			list = append(list, ListedModel{id, &models[i]})
		}
	}
	return list
}

// FindListed finds a model by the name of it, or by name and version with a colon between them. The error is a 404.
func FindListed(models []Model, id string) (ListedModel, *Error) {
	name, version, _ := strings.Cut(id, ":")
	i := slices.IndexFunc(models, func(m Model) bool { return m.Name == name })
	if i >= 0 && canLoad(&models[i], cmp.Or(version, models[i].DefaultVersion, BaseVersion)) {
		return ListedModel{strings.TrimSuffix(id, ":"), &models[i]}, nil
	}
	e := NewError(TypeModelNotFound, "model %s is not installed; see GET /v1/models", Quote(id))
	e.Param = "model"
	return ListedModel{}, e
}

// State is the load state of the version that the name stands for.
func (l ListedModel) State() LoadState {
	_, version, _ := strings.Cut(l.ID, ":")
	return cmp.Or(l.Model.States[cmp.Or(version, l.Model.DefaultVersion, BaseVersion)], StateNotLoaded)
}

// ListedID names a version of a model in one string, as the list and replies do.
func ListedID(m *Model, version string) string {
	if version == BaseVersion && m.isBaseOnly() {
		return m.Name
	}
	return m.Name + ":" + version
}

// isBaseOnly reports whether the model's name alone can't mean anything but its base.
func (m *Model) isBaseOnly() bool {
	isBase := func(version string) bool { return version == BaseVersion }
	return isBase(cmp.Or(m.DefaultVersion, BaseVersion)) && !slices.ContainsFunc(m.Versions, func(v string) bool { return !isBase(v) })
}

// listedIDs are the names of one model.
func listedIDs(m *Model) []string {
	var ids []string
	if canLoad(m, cmp.Or(m.DefaultVersion, BaseVersion)) {
		ids = append(ids, m.Name)
	}
	for _, v := range m.Versions {
		if id := ListedID(m, v); canLoad(m, v) && id != m.Name {
			ids = append(ids, id)
		}
	}
	return ids
}

// canLoad reports whether a model has a version against which nothing is known.
func canLoad(m *Model, version string) bool {
	if version != BaseVersion && !slices.Contains(m.Versions, version) {
		return false
	}
	return !slices.ContainsFunc(m.Problems, func(p Problem) bool { return p.Version == version || p.Version == BaseVersion })
}
