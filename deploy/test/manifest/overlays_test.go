package manifest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tandem/deploy/test/docs"
)

// overlays are the documented ones.
var overlays = []string{"cpu", "gpu", "inference-extension", "keda", "prometheus-operator", "two-containers"}

// componentSets are kustomizations besides the overlays: combinations of components, and components of no overlay.
var componentSets = map[string][]string{
	"everything":              {"gpu", "models-volume", "network-policy", "prometheus-operator", "keda", "inference-extension", "shared-limits"},
	"hpa":                     {"hpa"},
	"copied models":           {"models-copy"},
	"two with copied models":  {"two-containers", "models-copy"},
	"two containers on a GPU": {"two-containers", "gpu", "models-volume"},
}

// renderAll builds all kustomizations, once.
var renderAll = sync.OnceValues(func() (map[string]string, error) {
	all := make(map[string]string)
	for _, name := range overlays {
		text, err := BuildOverlay(name)
		if err != nil {
			return nil, err
		}
		all[name] = string(text)
	}
	for name, components := range componentSets {
		dir, err := os.MkdirTemp("", "overlay")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		text, err := Compose(dir, components...)
		if err != nil {
			return nil, err
		}
		all[name] = string(text)
	}
	return all, nil
})

func render(t *testing.T) map[string]string {
	t.Helper()
	all, err := renderAll()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// problems returns what is wrong with a rendered kustomization.
func problems(text string) []string {
	s, err := Decode([]byte(text))
	if err != nil {
		return []string{err.Error()}
	}
	return Check(s)
}

func TestManifests(t *testing.T) {
	all := render(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, p := range problems(all[name]) {
			t.Errorf("%s: %s", name, p)
		}
	}
}

// An overlay or a component that isn't built here would not be checked at all.
func TestNothingIsLeftOut(t *testing.T) {
	got, err := Overlays()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, overlays) {
		t.Errorf("overlays %v, tested are %v", got, overlays)
	}
	root, err := docs.Root()
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(root, Directory, "components", "*"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("components: %v, %v", dirs, err)
	}
	for _, dir := range dirs {
		name := filepath.Base(dir)
		used := slices.ContainsFunc(slices.Collect(maps.Values(componentSets)), func(c []string) bool { return slices.Contains(c, name) })
		for _, o := range overlays {
			text, err := docs.Read(Directory + "/overlays/" + o + "/kustomization.yaml")
			if err != nil {
				t.Fatal(err)
			}
			used = used || strings.Contains(text, "components/"+name)
		}
		if !used {
			t.Errorf("component %s is built by no test", name)
		}
	}
}

// The overlay for trying asks for what one small node has free beside the system's own pods; the others are for use.
func TestOverlayForTryingFitsASmallNode(t *testing.T) {
	for name, text := range render(t) {
		s, err := Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		w, err := newWorkload(s)
		if err != nil {
			t.Fatal(err)
		}
		replicas := int64(0) // a scaler's
		if n := s.Deployment.Spec.Replicas; n != nil {
			replicas = int64(*n)
		}
		cpu, memory := requested(w)
		switch {
		case name == "cpu":
			if replicas != 1 || cpu > 250 || memory > 256<<20 {
				t.Errorf("%s: %d replicas of %d thousandths of a core and %d bytes", name, replicas, cpu, memory)
			}
		case s.Scaler == nil && s.Keda == nil && replicas != 3:
			t.Errorf("%s: %d replicas instead of the documented 3", name, replicas)
		}
	}
}

// requested is what a pod's containers request together: thousandths of a core, and bytes.
func requested(w *workload) (cpu, memory int64) {
	for c := range w.containers() {
		cpu += c.Resources.Requests.Cpu().MilliValue()
		memory += c.Resources.Requests.Memory().Value()
	}
	return cpu, memory
}
