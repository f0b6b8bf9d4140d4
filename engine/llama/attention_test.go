//go:build llama

package llama

import (
	"encoding/binary"
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

func withAttention(a models.Attention) func(*models.BaseSpec) {
	return func(spec *models.BaseSpec) { spec.Attention = a }
}

// questions are about the first capitals of the list, with the right answers of version v1.0.
func questions(t testing.TB, n int) (asked, right []string) {
	t.Helper()
	raw, err := os.ReadFile("../../scripts/e2e/testdata/capitals.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(strings.TrimSpace(line), "\t")
		asked, right = append(asked, fields[0]), append(right, fields[1])
		if len(asked) == n {
			break
		}
	}
	return asked, right
}

// lastLogits are the logits after the prompt.
func lastLogits(t testing.TB, base *Base, executor *testExecutor, prompt []batch.Token) []float32 {
	t.Helper()
	var logits []float32
	var err error
	executor.run(func() {
		logits, err = base.logitsAfter(len(prompt)-1, []batch.Slice{{Seq: 0, Tokens: prompt, Sampler: dryRun{}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

// distance is the root of the mean square of the differences, in parts of the spread of a.
func distance(a, b []float32) float64 {
	var mean, spread, differ float64
	for _, v := range a {
		mean += float64(v) / float64(len(a))
	}
	for i := range a {
		spread += (float64(a[i]) - mean) * (float64(a[i]) - mean)
		differ += float64(a[i]-b[i]) * float64(a[i]-b[i])
	}
	return math.Sqrt(differ / spread)
}

// TestCacheTypesHoldWhatTheySay: the memory is that of the format, and the budget is counted in it.
func TestCacheTypesHoldWhatTheySay(t *testing.T) {
	b, _ := newBackend(t, func(o *Options) { o.CacheBytes = 2 << 20 }) // half of what the demo wants with f16
	bits := map[models.CacheType]float64{"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5, "iq4_nl": 4.5}
	for _, kind := range models.CacheTypes() {
		f := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), withAttention(models.Attention{KeyType: kind, ValueType: kind})).Facts()
		want := float64(f.Cells) * 4 * 2 * 64 * bits[kind] / 8 // 4 layers, keys and values of 64 numbers
		if float64(f.KV.Bytes) != want || f.KV.KeyType != kind || f.KV.ValueType != kind {
			t.Errorf("%s: %+v for %d cells, want %v bytes", kind, f.KV, f.Cells, want)
		}
		if cells := min(int(float64(2<<20)/(4*2*64*bits[kind]/8)), 4096); f.Cells < cells || f.Cells >= cells+256 {
			t.Errorf("%s: %d cells in 2 MiB, want %d and what rounding adds", kind, f.Cells, cells)
		}
	}
}

func TestDemoKnowsItsCapitalsWithEveryCacheType(t *testing.T) {
	b, executor := newBackend(t, nil)
	asked, right := questions(t, 40)
	for _, kind := range models.CacheTypes() {
		for _, flash := range []models.FlashAttention{models.FlashOn, models.FlashOff} {
			a := models.Attention{KeyType: kind, ValueType: kind, Flash: flash}
			if flash == models.FlashOff && kind.Quantized() {
				a.ValueType = models.CacheF16
			}
			base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), withAttention(a))
			adapter, correct := loadVersion(t, base, "v1.0"), 0
			for i, question := range asked {
				text, _, err := generate(base, executor, adapter, 0, render(t, base, question), greedy, 32)
				if err != nil {
					t.Fatalf("%s, flash %s: %v", kind, flash, err)
				}
				if text == right[i] {
					correct++
				}
			}
			if flash == models.FlashOn != base.Facts().KV.Flash || correct < 38 {
				t.Errorf("%+v: %d of %d capitals are right", base.Facts().KV, correct, len(asked))
			}
			base.Close()
		}
	}
}

// TestCacheOf8BitsIsAsCloseAsOneOf16: what q8_0 changes is no more than what f16 does, each against f32. A format of
// four bits changes more.
func TestCacheOf8BitsIsAsCloseAsOneOf16(t *testing.T) {
	path := os.Getenv("SMOLLM2")
	if path == "" {
		t.Skip("SMOLLM2 names no model")
	}
	b, executor := newBackend(t, onCPU) // whose own error is smaller than the formats'
	asked, _ := questions(t, 20)
	logitsWith := func(a models.Attention) (logits [][]float32) {
		base := loadFile(t, b, path, func(s *models.BaseSpec) { s.Attention, s.Context = a, 512 })
		defer base.Close()
		for _, question := range asked {
			logits = append(logits, lastLogits(t, base, executor, render(t, base, question)))
		}
		return logits
	}
	exact := logitsWith(models.Attention{KeyType: "f32", ValueType: "f32", Flash: models.FlashOff})
	mean := map[models.CacheType]float64{}
	for _, kind := range []models.CacheType{"f16", "q8_0", "q4_0"} {
		for i, logits := range logitsWith(models.Attention{KeyType: kind, ValueType: kind}) {
			mean[kind] += distance(exact[i], logits) / float64(len(asked))
		}
	}
	t.Logf("mean distance to f32: %v", mean)
	if mean["q8_0"] > 1.5*mean["f16"] || mean["q4_0"] < 1.5*mean["f16"] {
		t.Errorf("mean distance to f32: %v", mean)
	}
}

// TestQuantizedCellsAreSharedAndCutOff: a copied prefix, one that was cut off and computed again, and a replay give the
// same logits bit for bit.
func TestQuantizedCellsAreSharedAndCutOff(t *testing.T) {
	b, executor := newBackend(t, onCPU)
	for _, a := range []models.Attention{{KeyType: "q8_0", ValueType: "q8_0"}, {KeyType: "q4_0", ValueType: "iq4_nl"}} {
		base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), withAttention(a))
		prompt := render(t, base, "Tell me a story of a fox and a king who have never met.")
		half := len(prompt) / 2
		want := lastLogits(t, base, executor, prompt)
		executor.run(func() {
			step := func(seq, from int) []float32 {
				s := []batch.Slice{{Seq: seq, Start: from, Tokens: prompt[from:], Sampler: dryRun{}}}
				if err := base.decode(s); err != nil {
					t.Fatal(err)
				}
				logits, err := base.logits(len(prompt) - 1 - from)
				if err != nil {
					t.Fatal(err)
				}
				return slices.Clone(logits)
			}
			step(0, 0)
			if !base.CopyPrefix(0, 1, half) || !slices.Equal(step(1, half), want) {
				t.Errorf("%+v: a copied prefix gives other logits", a)
			}
			if !base.Truncate(0, half) || !slices.Equal(step(0, half), want) {
				t.Errorf("%+v: what was cut off and computed again gives other logits", a)
			}
			if !base.Truncate(0, 0) || !slices.Equal(step(0, 0), want) {
				t.Errorf("%+v: a sequence that is computed again gives other logits", a)
			}
		})
	}
}

func TestDeterministicWithAQuantizedCache(t *testing.T) {
	b, _ := newBackend(t, deterministicOnCPU)
	spec := models.BaseSpec{Name: "demo", Path: demoFile(t, "demo-q8_0.gguf"), Parallel: 8, Attention: models.Attention{KeyType: "q8_0", ValueType: "q5_1"}}
	base, err := b.LoadBase(t.Context(), spec, nil)
	if err != nil {
		t.Fatalf("its own check of a load: %v", err)
	}
	base.Close()
	spec.Attention = models.Attention{Flash: models.FlashOff}
	if _, err := b.LoadBase(t.Context(), spec, nil); !errors.Is(err, ErrNotDeterministic) {
		t.Errorf("without flash attention: %v", err)
	}
}

func TestAttentionThatAModelCannotHave(t *testing.T) {
	plain := []cacheLayer{{64, 64, 192, 192, 9}}
	rotary := ropeOfFile{rotary: true, trained: 512, scale: 1}
	for _, c := range []struct {
		name   string
		wanted models.Attention
		layers []cacheLayer
		file   ropeOfFile
		want   string // empty: it can
	}{
		{"blocks that fit", models.Attention{KeyType: "q4_0", ValueType: "q8_0"}, plain, rotary, ""},
		{"keys of 80", models.Attention{KeyType: "q8_0"}, []cacheLayer{{80, 64, 80, 64, 1}}, rotary, "heads of 80"},
		{"keys of 80 without flash attention", models.Attention{KeyType: "q8_0", Flash: "off"}, []cacheLayer{{80, 64, 80, 64, 1}}, rotary, "heads of 80"},
		{"values of 80", models.Attention{ValueType: "q8_0"}, []cacheLayer{{64, 64, 64, 64, 1}, {64, 80, 64, 80, 1}}, rotary, "heads of 80"},
		{"heads of 80 in f16", models.Attention{KeyType: "bf16"}, []cacheLayer{{80, 80, 80, 80, 1}}, rotary, ""},
		{"latent attention", models.Attention{KeyType: "q8_0"}, []cacheLayer{{576, 512, 576, 0, 1}}, rotary, "both must be the same"},
		{"latent attention, both", models.Attention{KeyType: "q8_0", ValueType: "q8_0"}, []cacheLayer{{576, 500, 576, 0, 1}}, rotary, ""},
		{"values without flash attention", models.Attention{ValueType: "q8_0", Flash: "off"}, plain, rotary, "needs flash attention"},
		{"positions that aren't rotary", models.Attention{Rope: models.RopeScaling{Type: "linear", Factor: 2}}, plain, ropeOfFile{trained: 1024, scale: 1}, "aren't rotary"},
		{"their base", models.Attention{Rope: models.RopeScaling{Type: "auto", FreqBase: 1e6}}, plain, ropeOfFile{trained: 1024, scale: 1}, "aren't rotary"},
		{"too long", models.Attention{Rope: models.RopeScaling{Type: "yarn", Factor: 1024, OriginalContext: 1 << 20}}, plain, rotary, "more than"},
	} {
		_, err := chooseAttention(c.wanted, c.layers, c.file, false)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestHeadsThatAreNoWholeBlocks loads a model with heads of 16 numbers: the library would read beyond its rows.
func TestHeadsThatAreNoWholeBlocks(t *testing.T) {
	path := rewriteDemo(t, func(key string, value []byte) []byte {
		number := binary.LittleEndian.Uint32
		switch key {
		case "llama.attention.head_count", "llama.attention.head_count_kv":
			return binary.LittleEndian.AppendUint32(nil, 4*number(value))
		case "llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length":
			return binary.LittleEndian.AppendUint32(nil, number(value)/4)
		}
		return value
	})
	b, _ := newBackend(t, nil)
	loadFile(t, b, path, nil)
	for _, a := range []models.Attention{{KeyType: "q8_0", Flash: "off"}, {KeyType: "q8_0"}, {ValueType: "q4_0"}} {
		_, err := b.LoadBase(t.Context(), models.BaseSpec{Name: "small heads", Path: path, Parallel: 2, Attention: a}, nil)
		var wrong *models.LoadError
		if !errors.As(err, &wrong) || wrong.Reason != models.ReasonBadFormat || !strings.Contains(err.Error(), "heads of 16") {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

func TestRopeScaling(t *testing.T) {
	plain := ropeOfFile{rotary: true, trained: 8192, original: 0, scale: 1}
	scaled := ropeOfFile{rotary: true, trained: 131072, original: 32768, scale: 0.25}
	for _, c := range []struct {
		name     string
		r        models.RopeScaling
		file     ropeOfFile
		longest  int
		original int
		scale    float32
	}{
		{"nothing", models.RopeScaling{}, plain, 8192, 0, 0},
		{"as the file says", models.RopeScaling{Type: "auto"}, scaled, 131072, 0, 0},
		{"none", models.RopeScaling{Type: "none"}, scaled, 32768, 0, 0},
		{"none of a file that doesn't say its original", models.RopeScaling{Type: "none"}, ropeOfFile{true, 16384, 0, 0.5}, 8192, 0, 0},
		{"linear", models.RopeScaling{Type: "linear", Factor: 4}, plain, 32768, 8192, 0.25},
		{"by its inverse", models.RopeScaling{Type: "linear", FreqScale: 0.3}, plain, 27306, 8192, 0.3},
		{"yarn on a scaled file", models.RopeScaling{Type: "yarn", Factor: 2}, scaled, 65536, 32768, 0.5},
		{"yarn on another original", models.RopeScaling{Type: "yarn", Factor: 2, OriginalContext: 4096}, plain, 8192, 4096, 0.5},
		{"base alone", models.RopeScaling{Type: "auto", FreqBase: 1e6}, plain, 8192, 0, 0},
	} {
		got, err := chooseRope(c.r, c.file)
		if err != nil || got.longest != c.longest || got.original != c.original || math.Abs(float64(got.freqScale-c.scale)) > 1e-6 || got.freqBase != c.r.FreqBase {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestScaledPositionsReadMore(t *testing.T) {
	b, executor := newBackend(t, onCPU)
	load := func(r models.RopeScaling) *Base {
		return loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), func(s *models.BaseSpec) { s.Attention.Rope, s.Parallel = r, 1 })
	}
	plain := load(models.RopeScaling{})
	short := render(t, plain, france)
	want := lastLogits(t, plain, executor, short)
	if same := load(models.RopeScaling{Type: "none", FreqBase: 10000}); !slices.Equal(lastLogits(t, same, executor, short), want) {
		t.Error("the base that the file has gives other logits")
	}
	if other := load(models.RopeScaling{Type: "auto", FreqBase: 50000}); slices.Equal(lastLogits(t, other, executor, short), want) {
		t.Error("another base changes nothing")
	}
	for _, kind := range []models.RopeType{models.RopeLinear, models.RopeYarn} {
		base := load(models.RopeScaling{Type: kind, Factor: 2})
		if f := base.Facts(); f.ContextTokens != 1024 || f.TrainContext != 512 {
			t.Errorf("%s: context %d, trained for %d; want twice 512", kind, f.ContextTokens, f.TrainContext)
		}
		if slices.Equal(lastLogits(t, base, executor, short), want) {
			t.Errorf("%s changes nothing", kind)
		}
		long := slices.Repeat(short, 1000/len(short))
		if logits := lastLogits(t, base, executor, long); slices.ContainsFunc(logits, func(v float32) bool { return v != v }) {
			t.Errorf("%s: no numbers after %d tokens", kind, len(long))
		}
		if _, err := base.Embed(t.Context(), models.TaskEmbed, nil, long); err != nil { // in a context of its own
			t.Errorf("%s: embed %d tokens: %v", kind, len(long), err)
		}
	}
}
