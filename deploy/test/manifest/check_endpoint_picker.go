package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	picker "sigs.k8s.io/gateway-api-inference-extension/apix/config/v1alpha1"
	strict "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"tandem/deploy/test/docs"
)

// engineTypeLabels are the labels by which pickers distinguish kinds of servers: llm-d's, and the extension's own.
var engineTypeLabels = []string{"llm-d.ai/engine-type", "inference.networking.k8s.io/engine-type"}

// Parameters of the two plugins that read metrics. They are the picker's own, and no module exports their types.
type (
	sourceParameters struct {
		Scheme   string `json:"scheme"`
		Path     string `json:"path"`
		Interval string `json:"interval"`
	}
	extractorParameters struct {
		DefaultEngine string         `json:"defaultEngine"`
		EngineConfigs []engineConfig `json:"engineConfigs"`
	}
	engineConfig struct {
		Name            string `json:"name"`
		Queued          string `json:"queuedRequestsSpec"`
		Running         string `json:"runningRequestsSpec"`
		KVUsage         string `json:"kvUsageSpec"`
		LoRA            string `json:"loraSpec"`
		CacheInfo       string `json:"cacheInfoSpec"`
		BlockSizeLabel  string `json:"cacheBlockSizeLabelName"`
		BlockCountLabel string `json:"cacheNumBlocksLabelName"`
	}
)

// checkPicker checks the configuration of the endpoint picker, where there is one.
func checkPicker(w *workload, f *findings) {
	for _, c := range w.set.ConfigMaps {
		for _, text := range c.Data {
			if strings.Contains(text, "kind: EndpointPickerConfig") {
				if err := w.checkPickerConfig([]byte(text), f); err != nil {
					f.add("ConfigMap %s: %v", c.Name, err)
				}
			}
		}
	}
}

func (w *workload) checkPickerConfig(text []byte, f *findings) error {
	data, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	var c picker.EndpointPickerConfig
	if err := decodeStrictly(data, &c); err != nil {
		return err
	}
	if c.APIVersion != "llm-d.ai/v1alpha1" || len(c.SchedulingProfiles) == 0 {
		f.add("the picker has no profile, or is of version %s", c.APIVersion)
	}
	for _, p := range c.SchedulingProfiles {
		for _, used := range p.Plugins {
			if !slices.ContainsFunc(c.Plugins, func(x picker.PluginSpec) bool { return x.Type == used.PluginRef || x.Name == used.PluginRef }) {
				f.add("the picker uses plugin %s, which it doesn't declare", used.PluginRef)
			}
		}
	}
	found := 0
	for _, p := range c.Plugins {
		switch p.Type {
		case "metrics-data-source":
			var s sourceParameters
			if err := decodeStrictly(p.Parameters, &s); err != nil {
				return err
			}
			if s.Path != "/metrics/router" || s.Scheme != "http" {
				f.add("the picker asks %s %s", s.Scheme, s.Path)
			}
			found++
		case "core-metrics-extractor":
			var e extractorParameters
			if err := decodeStrictly(p.Parameters, &e); err != nil {
				return err
			}
			if err := w.checkExtractor(e, f); err != nil {
				return err
			}
			found++
		}
	}
	if found != 2 {
		f.add("the picker reads no metrics of ours")
	}
	return nil
}

func (w *workload) checkExtractor(e extractorParameters, f *findings) error {
	router, err := docs.RouterMetrics()
	if err != nil {
		return err
	}
	metrics, err := docs.Metrics()
	if err != nil {
		return err
	}
	for _, label := range engineTypeLabels {
		if !slices.ContainsFunc(e.EngineConfigs, func(c engineConfig) bool { return c.Name == e.DefaultEngine && c.Name == w.labels[label] }) {
			f.add("the picker knows no engine of the type %q that %s of the pods names", w.labels[label], label)
		}
	}
	for _, c := range e.EngineConfigs {
		for _, name := range []string{c.Queued, c.Running, c.KVUsage, c.LoRA, c.CacheInfo} {
			if !router[name] {
				f.add("the picker reads %q, which isn't on /metrics/router", name)
			}
		}
		for _, label := range []string{c.BlockSizeLabel, c.BlockCountLabel} {
			if !slices.Contains(metrics[c.CacheInfo], label) {
				f.add("the picker reads label %q, which %s doesn't have", label, c.CacheInfo)
			}
		}
	}
	return nil
}

func decodeStrictly(data []byte, into any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return fmt.Errorf("decode %T: nothing is there", into)
	}
	problems, err := strict.UnmarshalStrict(json.RawMessage(data), into)
	if err != nil {
		return fmt.Errorf("decode %T: %w", into, err)
	}
	for _, p := range problems {
		return fmt.Errorf("decode %T: %w", into, p)
	}
	return nil
}
