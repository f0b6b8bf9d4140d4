package models

import (
	"fmt"
	"slices"
	"strings"
)

// Attention is how a base keeps keys and values and how it computes with them. The zero value of a field is unset.
type Attention struct {
	KeyType   CacheType
	ValueType CacheType
	Flash     FlashAttention
	Layout    KVLayout
	Rope      RopeScaling
}

// CacheType is the format of the numbers in a KV cache, by llama.cpp's name. Unset: f16.
type CacheType string

// The formats that hold a number each; all others hold blocks of numbers with a scale.
const (
	CacheF32  CacheType = "f32"
	CacheF16  CacheType = "f16"
	CacheBF16 CacheType = "bf16"
)

// CacheTypes are all formats, those with more bits first.
func CacheTypes() []CacheType {
	return []CacheType{CacheF32, CacheF16, CacheBF16, "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"}
}

// Quantized reports whether the format holds blocks of numbers.
func (t CacheType) Quantized() bool {
	return t != "" && t != CacheF32 && t != CacheF16 && t != CacheBF16
}

// FlashAttention says whether attention is computed in one operation. Unset: auto.
type FlashAttention string

// Modes of flash attention; auto uses it where the model and its device can.
const (
	FlashAuto FlashAttention = "auto"
	FlashOn   FlashAttention = "on"
	FlashOff  FlashAttention = "off"
)

// KVLayout says how sequences share the KV cache. Unset: auto.
type KVLayout string

// Layouts of the KV cache; auto is streams where GPUs keep it and it has room for all sequences at full length.
const (
	LayoutAuto    KVLayout = "auto"
	LayoutUnified KVLayout = "unified" // one cache: each sequence may use what the others leave
	LayoutStreams KVLayout = "streams" // each sequence has cells of its own, and sees no others
)

// RopeScaling changes the rotary positions of a model, so that it reads more than it was trained for. The zero value is
// unset; numbers that are 0 are as the model's file says.
type RopeScaling struct {
	Type            RopeType
	Factor          float32 // how many times the original context; 0: 1/FreqScale
	FreqScale       float32 // 1/Factor, for those who know that number
	OriginalContext int     // tokens that the model was trained for without scaling
	FreqBase        float32
}

// RopeType is a way to scale rotary positions.
type RopeType string

// Ways to scale rotary positions; auto is the way of the model's file.
const (
	RopeAuto   RopeType = "auto"
	RopeNone   RopeType = "none"
	RopeLinear RopeType = "linear"
	RopeYarn   RopeType = "yarn"
)

// Bounds of RopeScaling.
const (
	maxRopeFactor   = 1024
	maxRopeContext  = 1 << 24
	maxRopeFreqBase = 1e12
)

// ScaleFactor is how many times the original context the model reads; 0: as its file says.
func (r RopeScaling) ScaleFactor() float32 {
	if r.Factor == 0 && r.FreqScale > 0 {
		return 1 / r.FreqScale
	}
	return r.Factor
}

// Or fills what is unset with the defaults. A scaling of positions is one thing: its numbers aren't mixed.
func (a Attention) Or(defaults Attention) Attention {
	if a.KeyType == "" {
		a.KeyType = defaults.KeyType
	}
	if a.ValueType == "" {
		a.ValueType = defaults.ValueType
	}
	if a.Flash == "" {
		a.Flash = defaults.Flash
	}
	if a.Layout == "" {
		a.Layout = defaults.Layout
	}
	if a.Rope == (RopeScaling{}) {
		a.Rope = defaults.Rope
	}
	return a
}

// AttentionError is a field of an Attention that can't be used.
type AttentionError struct {
	Field string // as in model.yaml: cache_type_v, rope_scaling.factor
	Text  string
}

func (e *AttentionError) Error() string { return e.Field + ": " + e.Text }

// Variable is the environment variable of the field.
func (e *AttentionError) Variable() string {
	field := strings.Replace(e.Field, "rope_scaling.type", "rope_scaling", 1)
	return strings.ToUpper(strings.Replace(field, "rope_scaling.", "rope_", 1))
}

// Check returns an *AttentionError for a value that is none, and for values that don't fit together with any model.
func (a Attention) Check() error {
	for _, c := range []struct {
		field string
		value CacheType
	}{{"cache_type_k", a.KeyType}, {"cache_type_v", a.ValueType}} {
		if c.value != "" && !slices.Contains(CacheTypes(), c.value) {
			return &AttentionError{c.field, fmt.Sprintf("%.100q must be one of %s", string(c.value), cacheTypeNames())}
		}
	}
	if !slices.Contains([]FlashAttention{"", FlashAuto, FlashOn, FlashOff}, a.Flash) {
		return &AttentionError{"flash_attention", fmt.Sprintf("%.100q must be auto, on or off", string(a.Flash))}
	}
	if !slices.Contains([]KVLayout{"", LayoutAuto, LayoutUnified, LayoutStreams}, a.Layout) {
		return &AttentionError{"kv_layout", fmt.Sprintf("%.100q must be auto, unified or streams", string(a.Layout))}
	}
	if a.ValueType.Quantized() && a.Flash == FlashOff {
		return &AttentionError{"cache_type_v", fmt.Sprintf("%s needs flash attention, which is off: without it values must be f32, f16 or bf16", a.ValueType)}
	}
	return a.Rope.check()
}

func cacheTypeNames() string {
	names := make([]string, 0, len(CacheTypes()))
	for _, t := range CacheTypes() {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

func (r RopeScaling) check() error {
	wrong := func(field, format string, args ...any) error {
		return &AttentionError{"rope_scaling." + field, fmt.Sprintf(format, args...)}
	}
	if !slices.Contains([]RopeType{"", RopeAuto, RopeNone, RopeLinear, RopeYarn}, r.Type) {
		return wrong("type", "%.100q must be auto, none, linear or yarn", string(r.Type))
	}
	scales := r.Type == RopeLinear || r.Type == RopeYarn
	switch { // what isn't a number fails, too
	case r.Factor != 0 && !(r.Factor >= 1 && r.Factor <= maxRopeFactor):
		return wrong("factor", "%v must be 1 to %d", r.Factor, maxRopeFactor)
	case r.FreqScale != 0 && !(r.FreqScale >= 1.0/maxRopeFactor && r.FreqScale <= 1):
		return wrong("freq_scale", "%v must be above 0 and at most 1: one part in a factor of at most %d", r.FreqScale, maxRopeFactor)
	case r.OriginalContext != 0 && (r.OriginalContext < 1 || r.OriginalContext > maxRopeContext):
		return wrong("original_context", "%d must be 1 to %d", r.OriginalContext, maxRopeContext)
	case r.FreqBase != 0 && !(r.FreqBase >= 1 && r.FreqBase <= maxRopeFreqBase):
		return wrong("freq_base", "%v must be 1 to %v", r.FreqBase, float32(maxRopeFreqBase))
	case r.Factor != 0 && r.FreqScale != 0:
		return wrong("freq_scale", "is 1/factor, so only one of the two can be set")
	case r.ScaleFactor() != 0 && !scales:
		return wrong("factor", "needs the type linear or yarn, which says how positions are scaled")
	case scales && r.ScaleFactor() == 0:
		return wrong("type", "%s needs a factor", r.Type)
	case r.OriginalContext != 0 && !scales:
		return wrong("original_context", "needs the type linear or yarn")
	}
	return nil
}

// yamlRope is rope_scaling in model.yaml.
type yamlRope struct {
	Type            string  `yaml:"type"` // auto, none, linear, yarn; empty: auto
	Factor          float32 `yaml:"factor"`
	FreqScale       float32 `yaml:"freq_scale"`
	OriginalContext int     `yaml:"original_context"` // tokens
	FreqBase        float32 `yaml:"freq_base"`
}

// attention is what model.yaml says of it; the rest is unset.
func (m *modelYAML) attention() Attention {
	a := Attention{KeyType: CacheType(m.CacheTypeK), ValueType: CacheType(m.CacheTypeV), Flash: FlashAttention(m.FlashAttention), Layout: KVLayout(m.KVLayout)}
	switch m.FlashAttention { // YAML 1.1 tools write on and off as these
	case "true":
		a.Flash = FlashOn
	case "false":
		a.Flash = FlashOff
	}
	if r := m.RopeScaling; r != nil {
		a.Rope = RopeScaling{Type: RopeType(r.Type), Factor: r.Factor, FreqScale: r.FreqScale, OriginalContext: r.OriginalContext, FreqBase: r.FreqBase}
		if r.Type == "" {
			a.Rope.Type = RopeAuto
		}
	}
	return a
}
