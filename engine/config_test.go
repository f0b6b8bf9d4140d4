package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema/settings"
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

func TestConfigAttention(t *testing.T) {
	c, err := loadConfig([]string{"--cache-type-k=q8_0", "--rope-scaling=yarn", "--rope-factor=4"}, []string{"CACHE_TYPE_V=q5_1", "ROPE_ORIGINAL_CONTEXT=8192"})
	want := models.Attention{KeyType: "q8_0", ValueType: "q5_1", Flash: models.FlashAuto, Layout: models.LayoutAuto, Rope: models.RopeScaling{Type: models.RopeYarn, Factor: 4, OriginalContext: 8192}}
	if err != nil || c.Attention != want {
		t.Errorf("%+v, %v; want %+v", c.Attention, err, want)
	}
	for name, s := range map[string]string{"keys": "CACHE_TYPE_K", "values": "CACHE_TYPE_V"} {
		var known []string
		for _, kind := range models.CacheTypes() {
			known = append(known, string(kind))
		}
		if choices := settings.Find(s).Choices; !slices.Equal(choices, known) {
			t.Errorf("%s may be set to %v, and the engine knows %v", name, choices, known)
		}
	}
}

// TestCheckConfig: settings that don't fit together are told with all others, and nothing starts.
func TestCheckConfig(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string // empty: they are good
	}{
		{nil, ""},
		{[]string{"CACHE_TYPE_K=q4_0", "FLASH_ATTENTION=off"}, ""},
		{[]string{"CACHE_TYPE_V=iq4_nl", "FLASH_ATTENTION=on", "DETERMINISTIC=true"}, ""},
		{[]string{"ROPE_SCALING=linear", "ROPE_FREQ_SCALE=0.25"}, ""},
		{[]string{"CACHE_TYPE_K=q9_0"}, "variable CACHE_TYPE_K"},
		{[]string{"CACHE_TYPE_V=q8_0", "FLASH_ATTENTION=off"}, "variable CACHE_TYPE_V: q8_0 needs flash attention"},
		{[]string{"FLASH_ATTENTION=off", "DETERMINISTIC=true"}, "variable FLASH_ATTENTION: off doesn't fit"},
		{[]string{"ROPE_SCALING=yarn"}, "variable ROPE_SCALING: yarn needs a factor"},
		{[]string{"ROPE_FACTOR=2"}, "variable ROPE_FACTOR: needs the type"},
		{[]string{"ROPE_SCALING=linear", "ROPE_FACTOR=0.5"}, "variable ROPE_FACTOR: 0.5 must be 1 to"},
		{[]string{"ROPE_SCALING=linear", "ROPE_FACTOR=2", "ROPE_FREQ_SCALE=0.5"}, "variable ROPE_FREQ_SCALE"},
		{[]string{"ROPE_SCALING=yarn", "CONTEXT=1"}, "variable CONTEXT"},
		{[]string{"DEVICE=CPU", "GPU_LAYERS=0"}, ""},
		{[]string{"DEVICE=cuda", "GPU_LAYERS=20"}, ""}, // whether it is there is found at the start
		{[]string{"DEVICE=cuda", "GPU_LAYERS=0"}, "variable DEVICE: cuda would compute nothing"},
		{[]string{"DEVICE=cuda,vulkan"}, `variable DEVICE: "cuda,vulkan" must be auto, cpu`},
	} {
		var stdout, stderr bytes.Buffer
		code := run([]string{"check-config"}, c.env, &stdout, &stderr)
		good := code == 0 && strings.HasSuffix(stdout.String(), "the settings are good\n")
		if good != (c.want == "") || c.want != "" && (code != codeUsage || !strings.Contains(stderr.String(), c.want)) {
			t.Errorf("%v: code %d, %s", c.env, code, stderr.String())
		}
	}
}
