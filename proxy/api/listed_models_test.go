package api

import (
	"slices"
	"testing"
)

// listedCatalog has every way in which a name alone can stand for a version, or for none.
func listedCatalog() []Model {
	broken := func(version string) []Problem { return []Problem{{Version: version, Text: "cut off"}} }
	return []Model{
		{Name: "plain", Versions: []string{"base"}},
		{Name: "org/tuned", Versions: []string{"base", "v1.0", "v2.0"}, DefaultVersion: "v2.0", Problems: broken("v1.0")},
		{Name: "by-setting", Versions: []string{"base", "v1.0"}},
		{Name: "other-versions", Versions: []string{"base", "v3"}},
		{Name: "base-by-default", Versions: []string{"base", "v1.0"}, DefaultVersion: "base"},
		{Name: "broken-default", Versions: []string{"base", "v1.0"}, DefaultVersion: "v1.0", Problems: broken("v1.0")},
		{Name: "missing-default", Versions: []string{"base"}, DefaultVersion: "v9"},
		{Name: "broken", Versions: []string{"base", "v1.0"}, Problems: broken("base")},
	}
}

// What a reply names is on the list and means the version that answered, whatever DEFAULT_VERSION is.
func TestTheIDOfEachVersionIsListedAndMeansIt(t *testing.T) {
	installed := listedCatalog()
	for _, setting := range []string{"v1.0", "base", "v7"} {
		listed := listedCatalog()
		for i := range listed {
			listed[i].DefaultVersion = listed[i].VersionByDefault(setting)
		}
		list, tried := ListModels(listed), 0
		for i := range installed {
			m := &installed[i]
			for _, version := range m.Versions {
				if !canLoad(m, version) {
					continue
				}
				tried++
				id := ListedID(m, version)
				if !slices.ContainsFunc(list, func(l ListedModel) bool { return l.ID == id }) {
					t.Errorf("DEFAULT_VERSION %s: %s of %s is named %s, which isn't on the list", setting, version, m.Name, id)
				}
				if _, err := FindListed(listed, id); err != nil {
					t.Errorf("DEFAULT_VERSION %s: %s: %v", setting, id, err)
				}
				if model, meant, err := resolveID(installed, setting, id); err != nil || model != m.Name || meant != version {
					t.Errorf("DEFAULT_VERSION %s: %s of %s is named %s, which means %s of %s, %v", setting, version, m.Name, id, meant, model, err)
				}
			}
		}
		if tried != 11 {
			t.Errorf("%d versions can be loaded", tried)
		}
	}
}

// What is on the list can be loaded, and has the state of the version that it means.
func TestWhatIsListedCanBeLoaded(t *testing.T) {
	installed := listedCatalog()
	for _, setting := range []string{"v1.0", "base", "v7"} {
		listed := listedCatalog()
		for i := range listed {
			listed[i].DefaultVersion = listed[i].VersionByDefault(setting)
			listed[i].States = map[string]LoadState{"v1.0": StateLoaded}
		}
		for _, l := range ListModels(listed) {
			model, version, err := resolveID(installed, setting, l.ID)
			if err != nil || model != l.Model.Name || !canLoad(l.Model, version) {
				t.Errorf("DEFAULT_VERSION %s: %s is listed and means %s of %s, %v", setting, l.ID, version, model, err)
			}
			if want := map[bool]LoadState{true: StateLoaded, false: StateNotLoaded}[version == "v1.0"]; l.State() != want {
				t.Errorf("DEFAULT_VERSION %s: %s means %s and is %s", setting, l.ID, version, l.State())
			}
		}
	}
}

func resolveID(installed []Model, defaultVersion, id string) (model, version string, err *Error) {
	if model, version, err = SplitModelID(id); err != nil {
		return "", "", err
	}
	return Resolve(installed, "", defaultVersion, model, version)
}
