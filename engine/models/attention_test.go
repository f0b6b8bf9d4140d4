package models

import (
	"errors"
	"strings"
	"testing"
)

func TestAttentionOfModelYAML(t *testing.T) {
	for _, c := range []struct {
		text string
		want Attention
	}{
		{"", Attention{}},
		{"cache_type_k: q8_0\ncache_type_v: bf16\nflash_attention: on\n", Attention{KeyType: "q8_0", ValueType: "bf16", Flash: FlashOn}},
		{"kv_layout: streams\n", Attention{Layout: LayoutStreams}},
		{"flash_attention: off\n", Attention{Flash: FlashOff}},
		{"flash_attention: false\n", Attention{Flash: FlashOff}},
		{"rope_scaling: {type: yarn, factor: 4, original_context: 8192}\n", Attention{Rope: RopeScaling{Type: RopeYarn, Factor: 4, OriginalContext: 8192}}},
		{"rope_scaling: {freq_base: 1000000}\n", Attention{Rope: RopeScaling{Type: RopeAuto, FreqBase: 1e6}}},
		{"rope_scaling: {type: linear, freq_scale: 0.5}\n", Attention{Rope: RopeScaling{Type: RopeLinear, FreqScale: 0.5}}},
	} {
		m, err := parseModelYAML([]byte(c.text))
		if err != nil || m.attention() != c.want {
			t.Errorf("%q: %+v, %v", c.text, m.attention(), err)
		}
	}
}

func TestAttentionThatDoesNotFitTogether(t *testing.T) {
	for _, c := range []struct{ text, field, variable string }{
		{"cache_type_k: q9\n", "cache_type_k", "CACHE_TYPE_K"},
		{"cache_type_v: Q8_0\n", "cache_type_v", "CACHE_TYPE_V"},
		{"flash_attention: maybe\n", "flash_attention", "FLASH_ATTENTION"},
		{"kv_layout: stream\n", "kv_layout", "KV_LAYOUT"},
		{"cache_type_v: q4_0\nflash_attention: off\n", "cache_type_v", "CACHE_TYPE_V"},
		{"rope_scaling: {type: longer}\n", "rope_scaling.type", "ROPE_SCALING"},
		{"rope_scaling: {type: yarn}\n", "rope_scaling.type", "ROPE_SCALING"},
		{"rope_scaling: {factor: 2}\n", "rope_scaling.factor", "ROPE_FACTOR"},
		{"rope_scaling: {type: none, factor: 2}\n", "rope_scaling.factor", "ROPE_FACTOR"},
		{"rope_scaling: {type: linear, factor: 0.5}\n", "rope_scaling.factor", "ROPE_FACTOR"},
		{"rope_scaling: {type: linear, factor: .nan}\n", "rope_scaling.factor", "ROPE_FACTOR"},
		{"rope_scaling: {type: linear, factor: .inf}\n", "rope_scaling.factor", "ROPE_FACTOR"},
		{"rope_scaling: {type: linear, freq_scale: 2}\n", "rope_scaling.freq_scale", "ROPE_FREQ_SCALE"},
		{"rope_scaling: {type: linear, factor: 2, freq_scale: 0.5}\n", "rope_scaling.freq_scale", "ROPE_FREQ_SCALE"},
		{"rope_scaling: {type: yarn, factor: 2, original_context: -1}\n", "rope_scaling.original_context", "ROPE_ORIGINAL_CONTEXT"},
		{"rope_scaling: {original_context: 4096}\n", "rope_scaling.original_context", "ROPE_ORIGINAL_CONTEXT"},
		{"rope_scaling: {freq_base: -1}\n", "rope_scaling.freq_base", "ROPE_FREQ_BASE"},
	} {
		_, err := parseModelYAML([]byte(c.text))
		var wrong *AttentionError
		if !errors.As(err, &wrong) || wrong.Field != c.field || wrong.Variable() != c.variable {
			t.Errorf("%q: %v, want one of %s (%s)", c.text, err, c.field, c.variable)
		}
	}
	if err := (Attention{KeyType: "q4_0", Flash: FlashOff}).Check(); err != nil {
		t.Errorf("quantized keys need no flash attention: %v", err)
	}
}

func TestAttentionOfAModelGoesOverTheSettings(t *testing.T) {
	settings := Attention{KeyType: "q8_0", ValueType: "q8_0", Flash: FlashAuto, Layout: LayoutStreams, Rope: RopeScaling{Type: RopeLinear, Factor: 2}}
	got := Attention{ValueType: CacheF16, Rope: RopeScaling{Type: RopeAuto}}.Or(settings)
	want := Attention{KeyType: "q8_0", ValueType: CacheF16, Flash: FlashAuto, Layout: LayoutStreams, Rope: RopeScaling{Type: RopeAuto}}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestAttentionOfALoad: a load gets the settings and what model.yaml says; another model.yaml is another base; what
// doesn't fit together is a problem of the model, and the backend isn't asked.
func TestAttentionOfALoad(t *testing.T) {
	ct := newCacheTest(t, func(o *CacheOptions) {
		o.Attention = Attention{KeyType: "q8_0", Flash: FlashOff}
		place(t, o.Registry.opts.Dir, "b/model.yaml", []byte("cache_type_k: f16\n"))
		place(t, o.Registry.opts.Dir, "c/model.yaml", []byte("cache_type_v: q4_0\n"))
		o.Registry = newTestRegistry(t, RegistryOptions{Dir: o.Registry.opts.Dir})
	})
	defer ct.close()
	for model, want := range map[string]Attention{"a": {KeyType: "q8_0", Flash: FlashOff}, "b": {KeyType: CacheF16, Flash: FlashOff}} {
		lease, err := ct.cache.Acquire(t.Context(), model, BaseVersion)
		if err != nil {
			t.Fatal(err)
		}
		lease.Release()
		ct.fake.mu.Lock()
		if ct.fake.attention != want {
			t.Errorf("%s is loaded with %+v, want %+v", model, ct.fake.attention, want)
		}
		ct.fake.mu.Unlock()
	}
	_, err := ct.cache.Acquire(t.Context(), "c", BaseVersion)
	var failed *LoadError
	if !errors.As(err, &failed) || failed.Reason != ReasonBadFormat || !strings.Contains(failed.Public, "needs flash attention") {
		t.Errorf("quantized values with the engine's flash attention off: %v", err)
	}
}

func TestAnotherCacheTypeIsAnotherBase(t *testing.T) {
	dir, ids := t.TempDir(), map[string]bool{}
	place(t, dir, "m/model.gguf", gguf("model", 1))
	yamls := []string{"", "cache_type_k: q8_0\n", "cache_type_v: q8_0\n", "flash_attention: off\n", "kv_layout: streams\n", "rope_scaling: {type: linear, factor: 2}\n"}
	for _, yaml := range yamls {
		place(t, dir, "m/model.yaml", []byte(yaml))
		src := newTestRegistry(t, RegistryOptions{Dir: dir}).source("m", BaseVersion)
		ids[src.baseID], ids[src.identity] = true, true
	}
	if len(ids) != 2*len(yamls) {
		t.Errorf("%d identities for %d files", len(ids), len(yamls))
	}
}
