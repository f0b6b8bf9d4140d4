package inflight

import (
	"testing"

	"tandem/proxy/api"
)

func TestDefaultModel(t *testing.T) {
	const documented = "microsoft/DialoGPT-medium"
	list := func(names ...string) catalog {
		var c Catalog
		for _, n := range names {
			c.Models = append(c.Models, Model{Name: n, Versions: []Version{{Name: "v1.0"}}})
		}
		return newCatalog(&c)
	}
	last := func(installed []string) string { return installed[len(installed)-1] }
	tests := []struct {
		name  string
		o     Options
		c     catalog
		model string
		err   api.Type
	}{
		{"installed", Options{DefaultModel: documented}, list("demo", documented), documented, ""},
		{"chosen by what is installed", Options{DefaultModel: documented, ChooseDefault: last}, list("demo", "mine"), "mine", ""},
		{"chosen and missing: said, not replaced", Options{DefaultModel: documented, DefaultModelSet: true}, list("demo"), "", api.TypeModelNotFound},
		{"neither installed", Options{DefaultModel: documented}, list("mine", "yours"), "", api.TypeModelNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.DefaultVersion = "v1.0"
			model, version, err := tt.c.resolve(tt.o, "", "")
			if tt.err != "" {
				if err == nil || err.Type != tt.err {
					t.Fatalf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil || model != tt.model || version != "v1.0" {
				t.Errorf("%s@%s, %v; want %s@v1.0", model, version, err, tt.model)
			}
		})
	}
}

func TestCatalogDropsNamesThatCannotBeLabels(t *testing.T) {
	c := newCatalog(&Catalog{Models: []Model{
		{Name: "good", Versions: []Version{{Name: "v1"}, {Name: "../v2"}, {Name: "unknown"}}},
		{Name: "bad name"}, {Name: "none"},
	}})
	if len(c.models) != 1 || len(c.models[0].Versions) != 1 || !c.versions[modelVersion{"good", "base"}] || !c.versions[modelVersion{"good", "v1"}] || len(c.versions) != 2 {
		t.Errorf("kept %v, pairs %v", c.models, c.versions)
	}
}
