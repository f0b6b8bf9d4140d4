// Package metrics is what the engine measures about itself: decode steps, batches, KV cells, devices. The proxy fetches it as text and
// joins it to its own page; the engine opens no port. Whatever must survive an engine, the documented metrics among it, is the
// proxy's. Names, labels and buckets come from schema/catalogue.
package metrics

import (
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	vm "github.com/VictoriaMetrics/metrics"

	"tandem/schema/catalogue"
)

// Metrics of the engine. Make it with New. Its methods may be called from any goroutine; those that the executor calls in each step
// neither lock nor allocate.
type Metrics struct {
	// One set for everything: a set for each model would write the type of a family once a model, which no parser takes.
	set *vm.Set

	bases atomic.Pointer[map[string]*base] // by the executor's key; replaced, never changed

	mu      sync.Mutex
	labels  map[string]*base     // guarded by mu; by model name
	loading map[string]*vm.Gauge // guarded by mu; by model name
	devices map[string]*device   // guarded by mu; by device name
}

// New gives an empty set.
func New() *Metrics {
	vm.ExposeMetadata(true) // without types, histograms fall apart into loose series
	m := &Metrics{set: vm.NewSet(), labels: make(map[string]*base), loading: make(map[string]*vm.Gauge), devices: make(map[string]*device)}
	m.bases.Store(&map[string]*base{})
	return m
}

// WritePrometheus writes everything, with the facts of the process and the Go runtime, as Prometheus text.
func (m *Metrics) WritePrometheus(w io.Writer) {
	m.set.WritePrometheus(w)
	vm.WriteProcessMetrics(w)
}

// base holds the series of one loaded base. A base that is replaced by a newer one of the same name shares them for a while.
type base struct {
	names []string // to unregister
	users int      // keys with this model, guarded by Metrics.mu

	steps     [phaseCount]steps
	tokens    *vm.PrometheusHistogram // of a step
	sequences *vm.PrometheusHistogram // of a step
	kinds     map[string]*vm.Counter
	preempted *vm.Counter
	shifts    *vm.Counter
	errors    map[string]*vm.Counter
	sampling  *vm.FloatCounter

	slots map[string]*vm.Gauge
	queue *vm.Gauge
	used  *vm.Gauge
	cells *vm.Gauge
}

// steps are the series of one phase.
type steps struct {
	calls    *vm.Counter
	busy     *vm.FloatCounter
	duration *vm.PrometheusHistogram
}

// phase is an index into base.steps.
type phase int

const (
	prefill phase = iota
	decode
	mixed
	phaseCount
)

func phaseOf(name string) phase {
	switch name {
	case "prefill":
		return prefill
	case "decode":
		return decode
	}
	return mixed
}

// AddBase makes the series of a base that the executor knows by key, all at 0. The label is the key without what follows a #.
func (m *Metrics) AddBase(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bases := *m.bases.Load()
	if bases[key] != nil {
		return
	}
	model := modelOf(key)
	b := m.labels[model]
	if b == nil {
		b = m.newBase(model)
		m.labels[model] = b
	}
	b.users++
	bases = maps.Clone(bases)
	bases[key] = b
	m.bases.Store(&bases)
}

// RemoveBase ends the series of a base that is unloaded.
func (m *Metrics) RemoveBase(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bases := *m.bases.Load()
	b := bases[key]
	if b == nil {
		return
	}
	bases = maps.Clone(bases)
	delete(bases, key)
	m.bases.Store(&bases)
	if b.users--; b.users > 0 {
		return
	}
	delete(m.labels, modelOf(key))
	for _, name := range b.names {
		m.set.UnregisterMetric(name)
	}
}

func modelOf(key string) string {
	model, _, _ := strings.Cut(key, "#")
	return model
}

// newBase needs mu.
func (m *Metrics) newBase(model string) *base {
	b := &base{kinds: make(map[string]*vm.Counter), errors: make(map[string]*vm.Counter), slots: make(map[string]*vm.Gauge)}
	name := func(family string, more ...string) string {
		n := series(family, append([]string{model}, more...)...)
		b.names = append(b.names, n)
		return n
	}
	for p, text := range [phaseCount]string{"prefill", "decode", "mixed"} {
		b.steps[p] = steps{
			calls:    m.set.NewCounter(name("llm_engine_decode_calls_total", text)),
			busy:     m.set.NewFloatCounter(name("llm_engine_busy_seconds_total", text)),
			duration: m.histogram("llm_engine_decode_call_duration_seconds", name("llm_engine_decode_call_duration_seconds", text)),
		}
	}
	b.tokens = m.histogram("llm_engine_batch_tokens", name("llm_engine_batch_tokens"))
	b.sequences = m.histogram("llm_engine_batch_sequences", name("llm_engine_batch_sequences"))
	for _, kind := range values("llm_engine_tokens_total", "kind") {
		b.kinds[kind] = m.set.NewCounter(name("llm_engine_tokens_total", kind))
	}
	for _, code := range values("llm_engine_decode_errors_total", "code") {
		b.errors[code] = m.set.NewCounter(name("llm_engine_decode_errors_total", code))
	}
	for _, state := range values("llm_engine_slots", "state") {
		b.slots[state] = m.set.NewGauge(name("llm_engine_slots", state), nil)
	}
	b.preempted = m.set.NewCounter(name("llm_engine_preemptions_total"))
	b.shifts = m.set.NewCounter(name("llm_engine_context_shifts_total"))
	b.sampling = m.set.NewFloatCounter(name("llm_engine_sampling_seconds_total"))
	b.queue = m.set.NewGauge(name("llm_engine_queue_requests"), nil)
	b.used = m.set.NewGauge(name("llm_engine_kv_cells_used"), nil)
	b.cells = m.set.NewGauge(name("llm_engine_kv_cells"), nil)
	return b
}

func (m *Metrics) histogram(family, name string) *vm.PrometheusHistogram {
	return m.set.NewPrometheusHistogramExt(name, catalogue.Find(family).Bounds.Edges)
}

// Decode counts one decode step: its phase (prefill, decode, mixed), how long it took, and what it held.
func (m *Metrics) Decode(key, phase string, seconds float64, tokens, sequences int) {
	b := m.find(key)
	if b == nil {
		return
	}
	s := &b.steps[phaseOf(phase)]
	s.calls.Inc()
	s.busy.Add(seconds)
	s.duration.Update(seconds)
	b.tokens.Update(float64(tokens))
	b.sequences.Update(float64(sequences))
}

// Sampling counts time that samplers took.
func (m *Metrics) Sampling(key string, seconds float64) {
	if b := m.find(key); b != nil {
		b.sampling.Add(seconds)
	}
}

// Tokens counts tokens of a kind: prompt, cached, generated, drafted, accepted.
func (m *Metrics) Tokens(key, kind string, n int) {
	if b := m.find(key); b != nil && b.kinds[kind] != nil {
		b.kinds[kind].Add(n)
	}
}

// Preempted counts a sequence that lost its cells and will be prefilled again.
func (m *Metrics) Preempted(key string) {
	if b := m.find(key); b != nil {
		b.preempted.Inc()
	}
}

// DecodeError counts a step or sequence that failed.
func (m *Metrics) DecodeError(key, code string) {
	b := m.find(key)
	if b == nil {
		return
	}
	if c := b.errors[code]; c != nil {
		c.Inc()
		return
	}
	b.errors[catalogue.Other].Inc()
}

// State is what a base does now.
type State struct {
	Idle, Prefilling, Decoding int // sequences
	Waiting                    int // requests
	CellsUsed, Cells           int // of the KV cache
}

// SetState says what a base does now.
func (m *Metrics) SetState(key string, s State) {
	b := m.find(key)
	if b == nil {
		return
	}
	b.slots["idle"].Set(float64(s.Idle))
	b.slots["prefill"].Set(float64(s.Prefilling))
	b.slots["decode"].Set(float64(s.Decoding))
	b.queue.Set(float64(s.Waiting))
	b.used.Set(float64(s.CellsUsed))
	b.cells.Set(float64(s.Cells))
}

func (m *Metrics) find(key string) *base { return (*m.bases.Load())[key] }

// SetLoadProgress says how far the load of a model is, 0 to 1.
func (m *Metrics) SetLoadProgress(model string, ratio float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.loading[model]
	if g == nil {
		g = m.set.NewGauge(series("llm_engine_model_load_progress_ratio", model), nil)
		m.loading[model] = g
	}
	g.Set(ratio)
}

// LoadEnded ends the series of SetLoadProgress.
func (m *Metrics) LoadEnded(model string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loading[model] != nil {
		delete(m.loading, model)
		m.set.UnregisterMetric(series("llm_engine_model_load_progress_ratio", model))
	}
}

// series gives the name of a family with label values in the catalogue's order. A number of values that doesn't fit panics.
func series(family string, labelValues ...string) string {
	c := catalogue.Find(family)
	if c == nil || len(c.Labels) != len(labelValues) {
		panic(fmt.Sprintf("metrics: %s with %d label values isn't in the catalogue", family, len(labelValues)))
	}
	var b strings.Builder
	b.WriteString(family)
	for i, l := range c.Labels {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(l.Name)
		b.WriteString(`="`)
		b.WriteString(escape.Replace(labelValues[i]))
		b.WriteByte('"')
	}
	if len(c.Labels) > 0 {
		b.WriteByte('}')
	}
	return b.String()
}

// escape is what the text format asks for inside of label values; %q writes more than its readers know.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// values gives the closed set of a label.
func values(family, label string) []string {
	for _, l := range catalogue.Find(family).Labels {
		if l.Name == label {
			return l.Values
		}
	}
	return nil
}
