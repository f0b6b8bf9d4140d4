package manifest

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"tandem/deploy/test/docs"
)

// An apply removes what the manifest before it had and the new one hasn't; the server then sets one replica. So a
// scaler's manifest over a Deployment that was applied with a number would stop all pods but one, unless the number is
// taken out of kubectl's record first, as docs/deploy.md says.
func TestScalerOverLiveDeployment(t *testing.T) {
	page, err := docs.Read("docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	taking := regexp.MustCompile(`view-last-applied deployment/llm-inference -o yaml \|\n  grep -v '([^']*)' \|`).FindStringSubmatch(page)
	if taking == nil {
		t.Fatal("docs/deploy.md doesn't say how to take the number of replicas out of kubectl's record")
	}
	line := regexp.MustCompile("(?m)" + taking[1] + ".*\n")
	all := render(t)
	for _, scaler := range []string{"keda", "hpa"} {
		for _, before := range []string{"prometheus-operator", scaler} {
			record := deploymentText(t, all[before])
			for _, taken := range []bool{false, true} {
				if taken {
					record = line.ReplaceAllString(record, "")
				}
				wants := before != scaler && !taken
				if got := applyRemovesReplicas(t, record, deploymentText(t, all[scaler]), 7); got != wants {
					t.Errorf("%s over %s, number taken out of the record %t: the apply sets back the number of replicas: %t", scaler, before, taken, got)
				}
			}
		}
	}
}

// deploymentText is the Deployment of a rendered kustomization, as kubectl prints its record.
func deploymentText(t *testing.T, rendered string) string {
	t.Helper()
	for _, document := range strings.Split(rendered, "\n---\n") {
		if !strings.Contains(document, "kind: Deployment\nmetadata:") {
			continue
		}
		var tree map[string]any
		if err := yaml.Unmarshal([]byte(document), &tree); err != nil {
			t.Fatal(err)
		}
		text, err := yaml.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	t.Fatal("there is no Deployment")
	return ""
}

// applyRemovesReplicas makes the patch that kubectl apply sends, over a live Deployment of so many replicas.
func applyRemovesReplicas(t *testing.T, record, applied string, live int32) bool {
	t.Helper()
	var d apps.Deployment
	if err := yaml.Unmarshal([]byte(record), &d); err != nil {
		t.Fatal(err)
	}
	d.Spec.Replicas = &live
	current, err := json.Marshal(&d)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := strategicpatch.NewPatchMetaFromStruct(apps.Deployment{})
	if err != nil {
		t.Fatal(err)
	}
	patch, err := strategicpatch.CreateThreeWayMergePatch(asJSON(t, record), asJSON(t, applied), current, schema, true)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(patch, []byte(`"replicas":null`))
}

func asJSON(t *testing.T, text string) []byte {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return data
}
