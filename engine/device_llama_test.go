//go:build llama

package main

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"tandem/engine/llama"
)

// A device that is named and isn't there is a mistake in the settings: the supervisor doesn't start the engine again.
func TestAMissingDeviceIsAMistakeInTheSettings(t *testing.T) {
	env := testEnvironment(t, "ENGINE_MOCK=false", "BACKEND_DIR="+os.Getenv("BACKEND_DIR"), "DEVICE=CUDA7")
	c, err := loadConfig(nil, env)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	code := runEngine(c, slog.New(slog.NewTextHandler(&log, nil)))
	if text := log.String(); code != codeUsage || !strings.Contains(text, "the settings can't be used") ||
		!strings.Contains(text, "variable DEVICE: no GPU or backend of GPUs has the name") || !strings.Contains(text, "CPU of cpu") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
}

func TestAcceleratorsAreMissedOnlyWhereTheyShouldCompute(t *testing.T) {
	installed := func(gpus ...llama.Device) []llama.InstalledBackend {
		return []llama.InstalledBackend{{Name: "cuda", Devices: gpus}, {Name: "cpu", Devices: []llama.Device{{Name: "CPU"}}}}
	}
	for name, c := range map[string]struct {
		config    Config
		device    string
		installed []llama.InstalledBackend
		want      []string
	}{
		"a driver is missing":    {Config{Device: "auto", GPULayers: -1}, "cpu", installed(), []string{"cuda"}},
		"in capitals":            {Config{Device: "AUTO", GPULayers: -1}, "cpu", installed(), []string{"cuda"}},
		"the CPU was asked for":  {Config{Device: "cpu", GPULayers: -1}, "cpu", installed(), nil},
		"no layers for the GPU":  {Config{Device: "auto"}, "cpu", installed(), nil},
		"the GPU computes":       {Config{Device: "auto", GPULayers: -1}, "cuda", installed(llama.Device{Name: "CUDA0"}), nil},
		"only the CPU's backend": {Config{Device: "auto", GPULayers: -1}, "cpu", installed()[1:], nil},
	} {
		if got := missingAccelerators(&c.config, c.device, c.installed); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
