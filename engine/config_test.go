package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/engine/batch"
)

// The executor and the metrics can't import each other; this package imports both.
var _ batch.Observer = (*tokenObserver)(nil)

func TestConfigDefaults(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/caches")
	c, err := loadConfig(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Context != 8192 || c.Parallel != 32 || c.BatchTokens != 512 || c.Threads != 0 || c.GPULayers >= 0 || c.MMap || c.MemoryWatermark != 0.8 {
		t.Errorf("compute: %+v", c)
	}
	if c.Demo != DemoAuto || c.DefaultModelSet || c.CacheSize != 5 || c.GrammarTokenBudget != 250*time.Millisecond || c.StallTimeout != 30*time.Second {
		t.Errorf("models: %+v", c)
	}
	if !c.FollowLinks {
		t.Error("links out of the models directory are refused, of which the Hugging Face cache is made")
	}
	if c.CacheDir != "/caches/tandem" || !filepath.IsAbs(c.BackendDir) || filepath.Base(c.BackendDir) != "lib" {
		t.Errorf("directories: %q, %q", c.CacheDir, c.BackendDir)
	}
}

func TestConfigSharesTheFileWithTheProxy(t *testing.T) {
	name := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(name, []byte("server: {port: 70000}\nengine: {parallel: 4}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadConfig([]string{"--config-file", name}, nil); err == nil || !strings.Contains(err.Error(), "config.yaml:1 server.port") {
		t.Errorf("a mistake in a key of the proxy: %v", err)
	}
	if _, err := loadConfig(nil, []string{"PORT=70000"}); err != nil {
		t.Errorf("a variable of the proxy concerns the engine: %v", err)
	}
}

func TestConfigGPUSplit(t *testing.T) {
	c, err := loadConfig([]string{"--gpu-split=3,1"}, nil)
	if err != nil || !slices.Equal(c.GPUSplit, []float32{3, 1}) || c.OneGPU {
		t.Errorf("shares: %+v, %v", c, err)
	}
	c, err = loadConfig([]string{"--gpu-split=none", "--main-gpu=1"}, nil)
	if err != nil || !c.OneGPU || c.MainGPU != 1 {
		t.Errorf("one GPU: %+v, %v", c, err)
	}
	if _, err := loadConfig([]string{"--gpu-split=none,1"}, nil); err == nil {
		t.Error("none and shares were taken together")
	}
}
