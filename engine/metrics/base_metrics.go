package metrics

import (
	"maps"
	"strings"

	vm "github.com/VictoriaMetrics/metrics"

	"tandem/schema/catalogue"
)

// baseSeries are the series of one loaded base. A base and the newer one of the same name that replaces it share them
// for a while: the gauges have the sum of both.
type baseSeries struct {
	names []string              // to unregister
	bases map[string]*baseInUse // guarded by Metrics.mu; by the executor's key

	steps         [phaseCount]stepSeries
	tokens        *vm.PrometheusHistogram // of a step
	sequences     *vm.PrometheusHistogram // of a step
	tokensByKind  map[string]*vm.Counter
	preemptions   *vm.Counter
	contextShifts *vm.Counter
	errorsByCode  map[string]*vm.Counter
	sampling      *vm.FloatCounter
	deviceDraws   *vm.Counter
	repeatedSteps *vm.Counter

	sequencesByState map[string]*vm.Gauge
	queued           *vm.Gauge
	cellsUsed        *vm.Gauge
	cells            *vm.Gauge
	kvBytes          map[string]float64 // guarded by Metrics.mu; by the name of the series, which has the formats
}

// baseInUse is what a base holds now.
type baseInUse struct {
	state    State
	kvSeries string // empty: no KV cache
	kvBytes  int64
}

// stepSeries are the series of one phase.
type stepSeries struct {
	calls    *vm.Counter
	busy     *vm.FloatCounter
	duration *vm.PrometheusHistogram
}

// phase is an index into baseSeries.steps.
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

// AddBase makes the series, all at 0, of a base with this key at the executor. The label model is the key up to a #.
func (m *Metrics) AddBase(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bases := *m.seriesByKey.Load()
	if bases[key] != nil {
		return
	}
	model := modelOf(key)
	b := m.seriesByModel[model]
	if b == nil {
		b = m.newBaseSeries(model)
		m.seriesByModel[model] = b
	}
	b.bases[key] = &baseInUse{}
	bases = maps.Clone(bases)
	bases[key] = b
	m.seriesByKey.Store(&bases)
}

// RemoveBase removes the series of a base that was unloaded.
func (m *Metrics) RemoveBase(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	bases := *m.seriesByKey.Load()
	b := bases[key]
	if b == nil {
		return
	}
	bases = maps.Clone(bases)
	delete(bases, key)
	m.seriesByKey.Store(&bases)
	delete(b.bases, key)
	m.updateKVBytes(b)
	if len(b.bases) > 0 {
		b.updateState()
		return
	}
	delete(m.seriesByModel, modelOf(key))
	for _, name := range b.names {
		m.set.UnregisterMetric(name)
	}
}

// KVCache is what a base keeps of the tokens before.
type KVCache struct {
	Bytes              int64
	KeyType, ValueType string
}

// SetKVCache sets the size of a base's KV cache and the formats that it holds numbers in.
func (m *Metrics) SetKVCache(key string, c KVCache) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.seriesOf(key)
	if b == nil {
		return
	}
	base := b.bases[key]
	base.kvSeries, base.kvBytes = seriesName("llm_engine_kv_bytes", modelOf(key), c.KeyType, c.ValueType), c.Bytes
	m.updateKVBytes(b)
}

// updateKVBytes is called with mu held.
func (m *Metrics) updateKVBytes(b *baseSeries) {
	before := b.kvBytes
	b.kvBytes = make(map[string]float64)
	for _, base := range b.bases {
		if base.kvSeries != "" {
			b.kvBytes[base.kvSeries] += float64(base.kvBytes)
		}
	}
	for name := range before {
		if _, ok := b.kvBytes[name]; !ok {
			m.set.UnregisterMetric(name)
		}
	}
	for name, bytes := range b.kvBytes {
		m.set.GetOrCreateGauge(name, nil).Set(bytes)
	}
}

func modelOf(key string) string {
	model, _, _ := strings.Cut(key, "#")
	return model
}

// newBaseSeries is called with mu held.
func (m *Metrics) newBaseSeries(model string) *baseSeries {
	b := &baseSeries{bases: make(map[string]*baseInUse), tokensByKind: make(map[string]*vm.Counter), errorsByCode: make(map[string]*vm.Counter), sequencesByState: make(map[string]*vm.Gauge)}
	name := func(family string, more ...string) string {
		n := seriesName(family, append([]string{model}, more...)...)
		b.names = append(b.names, n)
		return n
	}
	for p, text := range [phaseCount]string{"prefill", "decode", "mixed"} {
		b.steps[p] = stepSeries{
			calls:    m.set.NewCounter(name("llm_engine_decode_calls_total", text)),
			busy:     m.set.NewFloatCounter(name("llm_engine_busy_seconds_total", text)),
			duration: m.histogram("llm_engine_decode_call_duration_seconds", name("llm_engine_decode_call_duration_seconds", text)),
		}
	}
	b.tokens = m.histogram("llm_engine_batch_tokens", name("llm_engine_batch_tokens"))
	b.sequences = m.histogram("llm_engine_batch_sequences", name("llm_engine_batch_sequences"))
	for _, kind := range labelValues("llm_engine_tokens_total", "kind") {
		b.tokensByKind[kind] = m.set.NewCounter(name("llm_engine_tokens_total", kind))
	}
	for _, code := range labelValues("llm_engine_decode_errors_total", "code") {
		b.errorsByCode[code] = m.set.NewCounter(name("llm_engine_decode_errors_total", code))
	}
	for _, state := range labelValues("llm_engine_slots", "state") {
		b.sequencesByState[state] = m.set.NewGauge(name("llm_engine_slots", state), nil)
	}
	b.preemptions = m.set.NewCounter(name("llm_engine_preemptions_total"))
	b.contextShifts = m.set.NewCounter(name("llm_engine_context_shifts_total"))
	b.sampling = m.set.NewFloatCounter(name("llm_engine_sampling_seconds_total"))
	b.deviceDraws = m.set.NewCounter(name("llm_engine_device_draws_total"))
	b.repeatedSteps = m.set.NewCounter(name("llm_engine_repeated_steps_total"))
	b.queued = m.set.NewGauge(name("llm_engine_queue_requests"), nil)
	b.cellsUsed = m.set.NewGauge(name("llm_engine_kv_cells_used"), nil)
	b.cells = m.set.NewGauge(name("llm_engine_kv_cells"), nil)
	return b
}

func (m *Metrics) histogram(family, name string) *vm.PrometheusHistogram {
	return m.set.NewPrometheusHistogramExt(name, catalogue.Find(family).Bounds.Edges)
}

// Decode counts one decode step: its phase (prefill, decode, mixed), how long it took, and what it held.
func (m *Metrics) Decode(key, phase string, seconds float64, tokens, sequences int) {
	b := m.seriesOf(key)
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

// Sampling counts the time that samplers took.
func (m *Metrics) Sampling(key string, seconds float64) {
	if b := m.seriesOf(key); b != nil {
		b.sampling.Add(seconds)
	}
}

// DeviceDraws counts tokens that were drawn from what the device picked, and a step that was computed twice.
func (m *Metrics) DeviceDraws(key string, draws int, repeated bool) {
	b := m.seriesOf(key)
	if b == nil {
		return
	}
	b.deviceDraws.Add(draws)
	if repeated {
		b.repeatedSteps.Inc()
	}
}

// Tokens counts tokens of a kind: prompt, cached, generated, drafted, accepted.
func (m *Metrics) Tokens(key, kind string, n int) {
	if b := m.seriesOf(key); b != nil && b.tokensByKind[kind] != nil {
		b.tokensByKind[kind].Add(n)
	}
}

// Preempted counts a sequence that lost its cells and will be prefilled again.
func (m *Metrics) Preempted(key string) {
	if b := m.seriesOf(key); b != nil {
		b.preemptions.Inc()
	}
}

// DecodeError counts a step or sequence that failed.
func (m *Metrics) DecodeError(key, code string) {
	b := m.seriesOf(key)
	if b == nil {
		return
	}
	if c := b.errorsByCode[code]; c != nil {
		c.Inc()
		return
	}
	b.errorsByCode[catalogue.Other].Inc()
}

// State is what a base is doing now.
type State struct {
	Idle, Prefilling, Decoding int // sequences
	Waiting                    int // requests
	CellsUsed, Cells           int // of the KV cache
}

// SetState sets what a base is doing now.
func (m *Metrics) SetState(key string, s State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.seriesOf(key)
	if b == nil {
		return
	}
	b.bases[key].state = s
	b.updateState()
}

// updateState is called with Metrics.mu held.
func (b *baseSeries) updateState() {
	var sum State
	for _, base := range b.bases {
		s := base.state
		sum.Idle += s.Idle
		sum.Prefilling += s.Prefilling
		sum.Decoding += s.Decoding
		sum.Waiting += s.Waiting
		sum.CellsUsed += s.CellsUsed
		sum.Cells += s.Cells
	}
	b.sequencesByState["idle"].Set(float64(sum.Idle))
	b.sequencesByState["prefill"].Set(float64(sum.Prefilling))
	b.sequencesByState["decode"].Set(float64(sum.Decoding))
	b.queued.Set(float64(sum.Waiting))
	b.cellsUsed.Set(float64(sum.CellsUsed))
	b.cells.Set(float64(sum.Cells))
}

func (m *Metrics) seriesOf(key string) *baseSeries { return (*m.seriesByKey.Load())[key] }
