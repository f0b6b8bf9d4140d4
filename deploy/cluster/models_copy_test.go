package cluster

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// TestModelsCopy serves a model that comes from an image, copied when the pod starts. As the only one it is the
// default.
func TestModelsCopy(t *testing.T) {
	onCluster(t)
	model := os.Getenv("CLUSTER_MODEL")
	if model == "" {
		t.Skip("the model of the image llm-models couldn't be fetched")
	}
	began := time.Now()
	d := deploy(t, "models-copy", variant{replicas: 1, components: []string{"models-copy"}})
	atMost(t, "components/models-copy: ready with its model", startTimeout, time.Since(began))
	response, err := post(t.Context(), newClient(false), d.url, apiKey, `{"prompt":"The sky is","max_new_tokens":4}`)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Result   string
		Metadata struct{ Model string }
	}
	if err := json.Unmarshal(raw, &answer); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("status %d: %s, %v", response.StatusCode, raw, err)
	}
	d.wantOnlyLoadsOf(t, model)
	if answer.Metadata.Model != model || strings.TrimSpace(answer.Result) == "" {
		t.Errorf("%s, want an answer of %s", raw, model)
	}
}

// wantOnlyLoadsOf fails when the pod has loaded another model first.
func (d *deployment) wantOnlyLoadsOf(t *testing.T, model string) {
	t.Helper()
	const metric = "model_load_time_seconds_count"
	address := d.onlyPod(t).Status.PodIP
	loads, err := scrape(t.Context(), address, metric, `model="`+model+`"`)
	if err != nil {
		t.Error(err)
		return
	}
	all, err := scrape(t.Context(), address, metric, "")
	if err != nil || loads != 1 || all != 1 {
		t.Errorf("%v loads of %s, and %v in all, want 1: %v", loads, model, all, err)
	}
}
