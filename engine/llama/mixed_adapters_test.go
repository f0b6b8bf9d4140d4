//go:build llama

package llama

import (
	"errors"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// withoutSlots makes a base take turns, as one whose graph doesn't allow mixed adapters does.
func withoutSlots(base *Base) *Base {
	base.slots, base.limits.MixedAdapters, base.turnsReason = nil, false, "a test wants turns"
	return base
}

// mixedBases are two bases of one model with the same adapters: one mixes them in a step, the other takes turns.
type mixedBases struct {
	t            testing.TB
	executor     *testExecutor
	mixed, turns *Base
	inMixed      []batch.Adapter // the first is no adapter
	inTurns      []batch.Adapter
}

func loadMixedBases(t testing.TB, path string, sequences, threads int, mixed, turns []string) *mixedBases {
	t.Helper()
	backend, executor := newBackend(t, func(o *Options) { o.CacheCells, o.Threads = 6144, threads })
	return loadMixedBasesOn(t, backend, executor, path, sequences, mixed, turns)
}

func loadMixedBasesOn(t testing.TB, backend *Backend, executor *testExecutor, path string, sequences int, mixed, turns []string) *mixedBases {
	t.Helper()
	spec := func(s *models.BaseSpec) { s.Parallel = sequences; s.Context = 512 }
	m := &mixedBases{t: t, executor: executor}
	m.mixed, m.turns = loadFile(t, backend, path, spec), withoutSlots(loadFile(t, backend, path, spec))
	if m.mixed.slots == nil {
		t.Fatalf("no mixed steps: %s", m.mixed.turnsReason)
	}
	m.inMixed, m.inTurns = []batch.Adapter{nil}, []batch.Adapter{nil}
	for i := range mixed {
		m.inMixed, m.inTurns = append(m.inMixed, loadLoRA(t, m.mixed, mixed[i])), append(m.inTurns, loadLoRA(t, m.turns, turns[i]))
	}
	return m
}

func loadLoRA(t testing.TB, base *Base, path string) *Adapter {
	t.Helper()
	a, err := base.LoadAdapter(t.Context(), models.AdapterSpec{Name: path, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return a.(*Adapter)
}

// logitsOf computes texts in steps of chunk tokens of each, and returns the logits after each text.
func (m *mixedBases) logitsOf(base *Base, texts [][]batch.Token, adapters []batch.Adapter, chunk int) [][]float32 {
	m.t.Helper()
	out := make([][]float32, len(texts))
	var err error
	m.executor.run(func() {
		for start := 0; err == nil; start += chunk {
			var s []batch.Slice
			var ends []int
			for i, text := range texts {
				if start >= len(text) {
					continue
				}
				part := text[start:min(start+chunk, len(text))]
				s = append(s, batch.Slice{Seq: i, Adapter: adapters[i], Start: start, Tokens: part, Sampler: dryRun{}})
				ends = append(ends, len(part))
			}
			if len(s) == 0 {
				break
			}
			err = errors.Join(base.useAdapters(s), base.decode(s))
			at := -1
			for i := range s {
				at += ends[i]
				row, rowErr := base.logits(at)
				err = errors.Join(err, s[i].Err, rowErr)
				out[s[i].Seq] = slices.Clone(row)
			}
		}
		for i := range texts {
			base.Truncate(i, 0)
		}
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// relativeDistance is the root mean square of the differences relative to that of the values.
func relativeDistance(a, b []float32) float64 {
	var difference, size float64
	for i := range a {
		difference += float64(a[i]-b[i]) * float64(a[i]-b[i])
		size += float64(a[i]) * float64(a[i])
	}
	return math.Sqrt(difference / size)
}

var sentences = []string{
	"The river runs past the old town, and on its far bank the mill has stood empty since the flood of",
	"To make bread you need flour, water, salt and",
	"In the morning the teacher asked the children what they had seen on their way to school, and the first of them said",
	"Water boils at a lower temperature on a mountain, because",
	"She opened the letter, read it twice, folded it, and put it back into the drawer where",
}

// someTexts are sentences and beginnings of them.
func someTexts(t testing.TB, base *Base, n int) [][]batch.Token {
	t.Helper()
	texts := make([][]batch.Token, n)
	for i := range texts {
		tokens := render(t, base, sentences[i%len(sentences)])
		texts[i] = tokens[:len(tokens)-i/len(sentences)]
	}
	return texts
}

// fleets are adapters that are served together. One that isn't of the stack's type is computed as if it had been
// written in F32, so that is what turns have.
func fleets() map[string][]loraFile {
	half := []loraFile{
		{rank: 16, kind: tensorF16, alpha: 32},
		{rank: 8, kind: tensorF16},
		{rank: 64, kind: tensorF16, alpha: 64, weights: `ffn_(up|down)(_exps)?\.weight$`},
		{rank: 16, kind: tensorF16, weights: `^(token_embd|blk\.\d+\.attn_[qv])\.weight$`},
	}
	various := []loraFile{
		{rank: 8, kind: tensorF16, alpha: 16},
		{rank: 32, kind: tensorQ8_0},
		{rank: 16, kind: tensorF32, alpha: 24},
		{rank: 64, kind: tensorF16, alpha: 40, weights: `^(token_embd|blk\.\d+\.attn_[a-z]+)\.weight$`},
	}
	return map[string][]loraFile{"all F16": half, "several types": various}
}

func writeFleet(t testing.TB, path string, list []loraFile, widened bool) []string {
	var files []string
	for i, l := range list {
		l.seed, l.size, l.widened = uint64(i), 0.02, widened
		files = append(files, l.write(t, path))
	}
	return files
}

// A step with several adapters gives what steps with one adapter give, but for what the size of a batch changes anyway.
func TestMixedAdaptersGiveWhatEachGivesAlone(t *testing.T) {
	paths := map[string]string{"demo": demoFile(t, "demo-q8_0.gguf"), "experts": demoWithExperts(t)}
	if path := os.Getenv("SMOLLM2"); path != "" {
		paths["smollm2"] = path
	}
	for name, path := range paths {
		for fleet, list := range fleets() {
			t.Run(name+", "+fleet, func(t *testing.T) {
				m := loadMixedBases(t, path, 10, 2, writeFleet(t, path, list, false), writeFleet(t, path, list, fleet != "all F16"))
				m.compare()
			})
		}
	}
}

// On a GPU no product of an adapter makes the host wait for the device, with several adapters in a step or with one.
func TestMixedAdaptersOnAGPU(t *testing.T) {
	path := demoFile(t, "demo-q8_0.gguf")
	for fleet, list := range fleets() {
		t.Run(fleet, func(t *testing.T) {
			backend, executor := gpuBackend(t, "TestGPU0", func(o *Options) { o.CacheCells = 6144 })
			m := loadMixedBasesOn(t, backend, executor, path, 10, writeFleet(t, path, list, false), writeFleet(t, path, list, fleet != "all F16"))
			setFaults(t, "nowaits")
			m.compare()
			texts := someTexts(t, m.mixed, 1)
			alone := m.logitsOf(m.mixed, texts, m.inMixed[1:2], 1) // the plain products of a slot
			if d := relativeDistance(m.logitsOf(m.turns, texts, m.inTurns[1:2], 1)[0], alone[0]); d > 0.005 {
				t.Errorf("an adapter alone in its slot changes logits by %.2g", d)
			}
		})
	}
}

// What a mask shall hide must not overflow.
func TestAdapterWithoutNumbersIsRefusedOnAGPU(t *testing.T) {
	path := demoFile(t, "demo-q8_0.gguf")
	backend, executor := gpuBackend(t, "TestGPU0", nil)
	base := loadFile(t, backend, path, nil)
	file := loraFile{rank: 8, kind: tensorF32, size: math.Inf(1), seed: 1}.write(t, path)
	if _, err := base.LoadAdapter(t.Context(), models.AdapterSpec{Name: "broken", Path: file}); err == nil || !strings.Contains(err.Error(), "has numbers above 65504") {
		t.Errorf("it is loaded: %v", err)
	}
	if got := capitalOfFrance(t, base, executor, loadVersion(t, base, "v1.0")); got != "The capital of France is Paris." {
		t.Errorf("the next answers %q", got)
	}
}

// compare computes texts with all adapters in one step, and with one at a time: all texts in one step, and each alone,
// token by token. The difference of the latter two is what the size of a batch makes.
func (m *mixedBases) compare() {
	t := m.t
	texts := someTexts(t, m.mixed, 10)
	own := make([]batch.Adapter, len(texts))
	for i := range texts {
		own[i] = m.inMixed[(i+i/5)%5]
	}
	mixed := m.logitsOf(m.mixed, texts, own, 64)
	without := m.logitsOf(m.turns, texts, make([]batch.Adapter, len(texts)), 64)
	var bySize, byMixing, byAdapter []float64
	for at, a := range m.inTurns {
		together := m.logitsOf(m.turns, texts, slices.Repeat([]batch.Adapter{a}, len(texts)), 64)
		for i := range texts {
			if own[i] != m.inMixed[at] {
				continue
			}
			alone := m.logitsOf(m.turns, texts[i:i+1], []batch.Adapter{a}, 1)
			bySize = append(bySize, relativeDistance(together[i], alone[0]))
			byMixing = append(byMixing, relativeDistance(together[i], mixed[i]))
			if a != nil {
				byAdapter = append(byAdapter, relativeDistance(together[i], without[i]))
			}
		}
	}
	size, mixing, adapter := mean(bySize), mean(byMixing), mean(byAdapter)
	t.Logf("the size of a batch changes logits by %.2g (at most %.2g), mixing by %.2g (%.2g), an adapter by %.2g (%.2g)",
		size, slices.Max(bySize), mixing, slices.Max(byMixing), adapter, slices.Max(byAdapter))
	if mixing > 2*size+0.002 || adapter < 3*mixing {
		t.Errorf("mixing changes logits by %.2g, the size of a batch by %.2g, an adapter by %.2g", mixing, size, adapter)
	}
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}

// Adapters join and leave between the steps of a mixed batch, most of them of a rank or type that has stacks laid out
// again; the answers beside them stay right.
func TestAdaptersJoinAndLeaveBetweenMixedSteps(t *testing.T) {
	const comings = 1000
	base, executor := loadDemo(t, nil)
	if base.slots == nil {
		t.Fatalf("no mixed steps: %s", base.turnsReason)
	}
	var visitors []string
	for i, l := range []loraFile{{rank: 4, kind: tensorF16}, {rank: 32, kind: tensorQ8_0}, {rank: 24, kind: tensorF32, alpha: 7}} {
		l.seed, l.size = uint64(i), 0.05
		visitors = append(visitors, l.write(t, demoFile(t, "demo-q8_0.gguf")))
	}
	var present []*Adapter
	came := 0
	come := func() {
		a := loadLoRA(t, base, visitors[came%len(visitors)])
		if present = append(present, a); len(present) > 5 {
			if err := present[0].Close(); err != nil {
				t.Fatal(err)
			}
			present = present[1:]
		}
		came++
	}
	full, terse := loadVersion(t, base, "v1.0"), loadVersion(t, base, "v1.1")
	for came < comings {
		visitor := batch.Adapter(nil)
		if len(present) > 0 {
			visitor = present[0] // is gone before the answers end
		}
		got := answersBeside(t, base, executor, []batch.Adapter{full, nil, terse, visitor}, come)
		if got[0] != "The capital of France is Paris." || got[2] != "Paris." {
			t.Fatalf("answers %q and %q after %d adapters", got[0], got[2], came)
		}
	}
}

// answersBeside answers one question with each adapter, all in one batch, and calls between after each step. A sequence
// whose adapter is gone leaves the batch.
func answersBeside(t *testing.T, base *Base, executor *testExecutor, adapters []batch.Adapter, between func()) []string {
	t.Helper()
	prompt := render(t, base, france)
	answers := make([]string, len(adapters))
	var s []batch.Slice
	for seq, a := range adapters {
		sampler, err := base.NewSampler(greedy, prompt, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer sampler.Close()
		s = append(s, batch.Slice{Seq: seq, Adapter: a, Tokens: prompt, Sampler: sampler})
	}
	for len(s) > 0 && s[0].Index < 24 {
		var err error
		executor.run(func() { err = base.Step(s) })
		if err != nil {
			t.Fatal(err)
		}
		var left []batch.Slice
		for i := range s {
			token := s[i].Draw.Token
			gone := s[i].Err != nil && s[i].Seq == len(adapters)-1
			if s[i].Err != nil && !gone {
				t.Fatal(s[i].Err)
			}
			if gone || base.IsEnd(token) {
				continue
			}
			answers[s[i].Seq] += string(base.Piece(token))
			next := s[i]
			next.Start, next.Tokens, next.Index = next.Start+len(next.Tokens), []batch.Token{token}, next.Index+1
			left = append(left, next)
		}
		s = left
		between()
	}
	executor.run(func() {
		for seq := range adapters {
			base.Truncate(seq, 0)
		}
	})
	return answers
}
