package inflight

import (
	"testing"
	"time"

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

// A client that sends back what a reply called its model gets the same version again, and the list of models has it.
func TestAnswersNameTheirVersionAsTheListDoes(t *testing.T) {
	inBubble(t, Options{DefaultVersion: "v1.0"}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		versions := func(names ...string) (list []Version) {
			for _, name := range names {
				list = append(list, Version{Name: name})
			}
			return list
		}
		table.Catalog(f, &Catalog{Models: []Model{
			{Name: "demo", Versions: versions("base", "v1.0")},
			{Name: "org/own-default", Versions: versions("base", "v1.0", "v2.0"), DefaultVersion: "v2.0"},
			{Name: "other", Versions: versions("base", "v3")},
			{Name: "plain", Versions: versions("base")},
		}})
		asked := func(model, version string, choices int) (gotModel, gotVersion, id string) {
			a := table.admit(func(r *Request) { r.Infer.Model, r.Infer.Version, r.Infer.Choices = model, version, choices })
			defer a.Settle(ClientGone)
			defer a.Cancel(api.Cancelled())
			return a.Model(), a.Version(), a.ModelID()
		}
		for _, m := range table.Status().Models {
			if _, version, _ := asked(m.Name, "", 1); version != m.DefaultVersion {
				t.Errorf("%s alone is version %s, and %s by the status", m.Name, version, m.DefaultVersion)
			}
			for _, v := range m.Versions {
				_, _, id := asked(m.Name, v.Name, 1)
				model, version, err := api.SplitModelID(id)
				if err != nil {
					t.Fatal(err)
				}
				if model, version, again := asked(model, version, 2); model != m.Name || version != v.Name || again != id {
					t.Errorf("%s of %s is named %q, which is %s of %s, named %q", v.Name, m.Name, id, version, model, again)
				}
			}
		}
	})
}

// A request from before the first catalog may turn out to be more work than it was taken for, but it was admitted.
func TestRequestsFromBeforeTheCatalogAreAllSent(t *testing.T) {
	inBubble(t, Options{QueueMaxTokens: 2000}, func(t *testing.T, table *tableTest) {
		var answers []Answer
		for range 3 {
			answers = append(answers, table.admit(func(r *Request) { r.Infer.FitContext = true }))
		}
		f := table.attach(LastExit{})
		for i, a := range answers {
			table.serve(f, table.nextSubmission(f, i, time.Second), 1)
			table.wantAnswer(a, "a", "", true)
			a.Settle(Delivered)
		}
	})
}

// An upgrade that is taken back leaves the models of the engine that stays.
func TestCatalogIsThatOfAnEngineThatIsThere(t *testing.T) {
	for name, leave := range map[string]func(*tableTest, *fakeEngine){
		"it drains":  func(table *tableTest, g *fakeEngine) { table.Draining(g, time.Minute, false) },
		"it is lost": func(table *tableTest, g *fakeEngine) { table.lose(g) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
				f, g := table.attach(LastExit{}), table.attach(LastExit{})
				table.Catalog(f, catalogOf("a", "b"))
				table.Catalog(g, catalogOf("a"))
				if _, err := table.Admit(t.Context(), newRequest(func(r *Request) { r.Infer.Model = "b" })); err == nil || err.Type != api.TypeModelNotFound {
					t.Errorf("the newer engine has no b: %v", err)
				}
				leave(table, g)
				a := table.admit(func(r *Request) { r.Infer.Model = "b" })
				table.serve(f, f.last(t), 1)
				table.wantAnswer(a, "a", "", true)
				a.Settle(Delivered)
			})
		})
	}
}

// The first catalog may be of an engine that isn't the newest.
func TestFirstCatalogIsTakenFromAnyEngine(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		a := table.admit(nil)
		f, g := &fakeEngine{}, &fakeEngine{}
		table.Attached(f, Hello{Instance: 1})
		table.Attached(g, Hello{Instance: 2})
		table.Catalog(f, demoCatalog())
		table.serve(f, f.last(t), 1)
		table.wantAnswer(a, "a", "", true)
		a.Settle(Delivered)
	})
}
