package e2e

import (
	"encoding/json"
	"slices"
	"testing"
)

func TestDocumentedEndpointsHaveTheirShape(t *testing.T) {
	s := startServer(t, "DEVICE=cpu") // which the documents show
	s.mustInfer(question("What is the capital of France?", "v1.0"))
	shapes := map[string][]string{
		"/health": {"status", "timestamp"},
		"/status": {"service", "version", "status", "timestamp", "prometheus_available", "cached_models", "device", "cached_model_info", "devices", "backends", "model_memory"},
		"/models": {"models"},
	}
	for path, fields := range shapes {
		status, body, err := s.get(path)
		var object map[string]any
		if err != nil || status != 200 || json.Unmarshal([]byte(body), &object) != nil {
			t.Errorf("%s: %d %s %v", path, status, body, err)
			continue
		}
		for _, field := range fields {
			if _, ok := object[field]; !ok {
				t.Errorf("%s has no %s: %s", path, field, body)
			}
		}
	}
	_, body, _ := s.get("/status")
	var status struct {
		Service string `json:"service"`
		Status  string `json:"status"`
		Device  string `json:"device"`
		Cached  int    `json:"cached_models"`
		Info    []struct {
			Base    string `json:"base_model"`
			Version string `json:"version"`
			Loaded  bool   `json:"loaded"`
		} `json:"cached_model_info"`
	}
	if err := json.Unmarshal([]byte(body), &status); err != nil {
		t.Fatal(err)
	}
	wantDevice := "mock"
	if withLlama {
		wantDevice = "cpu"
	}
	if status.Service != "LLM Inference API" || status.Status != "healthy" || status.Device != wantDevice {
		t.Errorf("/status: %s", body)
	}
	if status.Cached == 0 || status.Cached != len(status.Info) || status.Info[0].Base != "demo" || !status.Info[0].Loaded {
		t.Errorf("/status lists %s", body)
	}
	var models struct {
		Models []struct {
			Base        string   `json:"base_model"`
			Versions    []string `json:"versions"`
			Description string   `json:"description"`
		} `json:"models"`
	}
	_, body, _ = s.get("/models")
	if err := json.Unmarshal([]byte(body), &models); err != nil {
		t.Fatal(err)
	}
	if len(models.Models) != 1 || models.Models[0].Base != "demo" || models.Models[0].Description == "" {
		t.Fatalf("/models: %s", body)
	}
	for _, v := range []string{"base", "v1.0", "v1.1", "v2.0"} {
		if !slices.Contains(models.Models[0].Versions, v) {
			t.Errorf("/models lists no %s: %s", v, body)
		}
	}
}
