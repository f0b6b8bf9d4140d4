package metrics

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// linkCounters are resolved once, since the socket counts with every frame.
type linkCounters struct {
	sent, received prometheus.Counter
	heartbeat      prometheus.Gauge
	recovery       prometheus.Observer
	up             prometheus.Gauge
	restarts       map[string]prometheus.Counter
	dropped        map[string]prometheus.Counter
	replayed       map[string]prometheus.Counter
}

func (m *Metrics) resolveEvents() {
	v := &m.v
	m.rej = children(v, "llm_requests_rejected_total", "reason")
	m.canc = children(v, "llm_requests_cancelled_total", "stage")
	m.limits = make(map[string]map[string]prometheus.Counter)
	for _, scope := range values("llm_rate_limit_decisions_total", "scope") {
		m.limits[scope] = children(v, "llm_rate_limit_decisions_total", "decision", scope)
	}
	m.journal = v.gauge("llm_journal_bytes")
	for _, method := range values("llm_ipc_errors_total", "method") {
		children(v, "llm_ipc_errors_total", "code", method)
	}
	children(v, "llm_metric_label_overflow_total", "label")
	m.link = linkCounters{
		sent:      v.counter("llm_ipc_bytes_total", "sent"),
		received:  v.counter("llm_ipc_bytes_total", "received"),
		heartbeat: v.gauge("llm_engine_last_heartbeat_timestamp_seconds"),
		recovery:  v.histogram("llm_engine_recovery_seconds"),
		up:        v.gauge("llm_engine_up"),
		restarts:  children(v, "llm_engine_restarts_total", "reason"),
		dropped:   children(v, "llm_frames_dropped_total", "reason"),
		replayed:  children(v, "llm_requests_replayed_total", "result"),
	}
}

// EngineInfo is what an engine says of itself.
type EngineInfo struct {
	Build         string
	LibraryCommit string
	Backend       string // cuda, cpu, mock …
	Schema        string // protocol version of the socket
}

// EngineUp says that an engine is attached and answers.
func (m *Metrics) EngineUp(e EngineInfo) {
	m.setBuild(e)
	m.link.up.Set(1)
}

// EngineLost says that no engine is left: its memory is gone, so nothing is loaded and no cell is in use.
func (m *Metrics) EngineLost() {
	m.link.up.Set(0)
	m.SetEngineLoad(EngineLoad{})
	m.cache.clear()
	m.pairs.Range(func(_, p any) bool {
		p.(*ModelMetrics).SetUnloaded()
		return true
	})
}

// EngineRestarted counts a new engine process after another, by the way in which that one ended: crash, oom, upgrade, stall, unknown.
func (m *Metrics) EngineRestarted(reason string) { pick(m.link.restarts, reason, "unknown").Inc() }

// EngineRecovered records how long no engine could serve.
func (m *Metrics) EngineRecovered(after time.Duration) { m.link.recovery.Observe(after.Seconds()) }

// Reconnected counts a new connection of the same engine process.
func (m *Metrics) Reconnected() { m.v.counter("llm_ipc_reconnects_total").Inc() }

// Heartbeat records when the engine was last heard of.
func (m *Metrics) Heartbeat(at time.Time) { m.link.heartbeat.Set(seconds(at)) }

// FrameDropped counts a frame that the fence dropped: stale_attempt, stale_connection, unknown_request.
func (m *Metrics) FrameDropped(reason string) { pick(m.link.dropped, reason, "other").Inc() }

// Replayed counts a request sent again: resumed, other_numerics (resumed by an engine that may compute another rest), restarted (afresh,
// no token was delivered), model_changed, quarantined, failed.
func (m *Metrics) Replayed(result string) { pick(m.link.replayed, result, "failed").Inc() }

// Quarantined counts a request answered with 422 because it kept killing the engine.
func (m *Metrics) Quarantined() { m.v.counter("llm_requests_quarantined_total").Inc() }

// IPCSent and IPCReceived count bytes on the socket, as the proxy sees it.
func (m *Metrics) IPCSent(bytes int) { m.link.sent.Add(float64(bytes)) }

// IPCReceived counts bytes that came from the engine.
func (m *Metrics) IPCReceived(bytes int) { m.link.received.Add(float64(bytes)) }

// IPCCall records a unary call: metrics, load, tokenize, ping. An empty code is a success; otherwise deadline, disconnected,
// unsupported or failed.
func (m *Metrics) IPCCall(method string, took time.Duration, code string) {
	m.v.histogram("llm_ipc_duration_seconds", method).Observe(took.Seconds())
	if code != "" {
		m.v.counter("llm_ipc_errors_total", method, code).Inc()
	}
}

// EngineLoad is what the engine does now, all models together.
type EngineLoad struct {
	Waiting int     // accepted and not started
	Running int     // holding a slot
	KVUsage float64 // of the fullest model, 0 to 1
}

// SetEngineLoad says what the engine does now.
func (m *Metrics) SetEngineLoad(l EngineLoad) {
	m.state.engineWaiting.Store(int64(l.Waiting))
	m.state.engineRunning.Store(int64(l.Running))
	m.state.kvUsage.store(l.KVUsage)
}

// SetCacheConfig says how the KV cache of the default model is cut, for routers: tokens of a block and the number of blocks.
func (m *Metrics) SetCacheConfig(blockTokens, blocks int) {
	m.cache.set(1, strconv.Itoa(blockTokens), strconv.Itoa(blocks))
}

// SetAdapters says which versions run and wait, for routers; at is when that changed, limit how many may be loaded.
func (m *Metrics) SetAdapters(limit int, running, waiting []string, at time.Time) {
	m.adapters.set(seconds(at), strconv.Itoa(limit), joined(running), joined(waiting))
}

func joined(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}
