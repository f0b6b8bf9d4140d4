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
// can't be loaded isn't listed.
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

// listedIDs are the names of one model. Its base has a name of its own only beside other versions.
func listedIDs(m *Model) []string {
	var ids []string
	if canLoad(m, cmp.Or(m.DefaultVersion, BaseVersion)) {
		ids = append(ids, m.Name)
	}
	if !slices.ContainsFunc(m.Versions, func(v string) bool { return v != BaseVersion }) {
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
func canLoad(m *Model, version string) bool {
	if version != BaseVersion && !slices.Contains(m.Versions, version) {
		return false
	}
	return !slices.ContainsFunc(m.Problems, func(p Problem) bool { return p.Version == version || p.Version == BaseVersion })
}
