package metrics

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// engineLinkCounters are looked up once, since the socket counts every frame.
type engineLinkCounters struct {
	sent, received prometheus.Counter
	heartbeat      prometheus.Gauge
	recovery       prometheus.Observer
	up             prometheus.Gauge
	restarts       map[string]prometheus.Counter
	dropped        map[string]prometheus.Counter
	replayed       map[string]prometheus.Counter
}

func (m *Metrics) resolveCounters() {
	v := &m.vectors
	m.rejected = countersByLabel(v, "llm_requests_rejected_total", "reason")
	m.admissionRefused = countersByLabel(v, "llm_admission_refusals_total", "reason")
	m.admissionWait, m.admissionSpeed = v.gauge("llm_admission_wait_seconds"), v.gauge("llm_admission_speed_tokens_per_second")
	m.cancelled = countersByLabel(v, "llm_requests_cancelled_total", "stage")
	m.rateLimited = make(map[string]map[string]prometheus.Counter)
	for _, scope := range labelValues("llm_rate_limit_decisions_total", "scope") {
		m.rateLimited[scope] = countersByLabel(v, "llm_rate_limit_decisions_total", "decision", scope)
	}
	m.journalBytes = v.gauge("llm_journal_bytes")
	for _, method := range labelValues("llm_ipc_errors_total", "method") {
		countersByLabel(v, "llm_ipc_errors_total", "code", method)
	}
	countersByLabel(v, "llm_metric_label_overflow_total", "label")
	m.link = engineLinkCounters{
		sent:      v.counter("llm_ipc_bytes_total", "sent"),
		received:  v.counter("llm_ipc_bytes_total", "received"),
		heartbeat: v.gauge("llm_engine_last_heartbeat_timestamp_seconds"),
		recovery:  v.histogram("llm_engine_recovery_seconds"),
		up:        v.gauge("llm_engine_up"),
		restarts:  countersByLabel(v, "llm_engine_restarts_total", "reason"),
		dropped:   countersByLabel(v, "llm_frames_dropped_total", "reason"),
		replayed:  countersByLabel(v, "llm_requests_replayed_total", "result"),
	}
}

// EngineInfo is what an engine reports about itself.
type EngineInfo struct {
	Build         string
	LibraryCommit string
	Backend       string // cuda, cpu, mock …
	Schema        string // protocol version of the socket
}

// EngineUp records that an engine is connected and answers.
func (m *Metrics) EngineUp(e EngineInfo) {
	m.setBuild(e)
	m.link.up.Set(1)
}

// EngineLost records that no engine is left: its memory is gone, so nothing is loaded and no KV cache is in use.
func (m *Metrics) EngineLost() {
	m.link.up.Set(0)
	m.SetEngineLoad(EngineLoad{})
	m.cacheConfigInfo.clear()
	m.models.Range(func(_, p any) bool {
		p.(*ModelMetrics).SetUnloaded()
		return true
	})
}

// EngineRestarted counts an engine process that replaced another one, by the reason for which that one ended: crash,
// oom, upgrade, stall, unknown.
func (m *Metrics) EngineRestarted(reason string) { counterOr(m.link.restarts, reason, "unknown").Inc() }

// EngineRecovered records the time from the loss of the engine to the first token after; without requests, until one
// could serve again.
func (m *Metrics) EngineRecovered(after time.Duration) { m.link.recovery.Observe(after.Seconds()) }

// Reconnected counts a new connection of the same engine process.
func (m *Metrics) Reconnected() { m.vectors.counter("llm_ipc_reconnects_total").Inc() }

// Heartbeat records when the engine's last heartbeat came.
func (m *Metrics) Heartbeat(at time.Time) { m.link.heartbeat.Set(unixSeconds(at)) }

// FrameDropped counts a frame from the engine that was dropped: stale_attempt, stale_connection, unknown_request.
func (m *Metrics) FrameDropped(reason string) { counterOr(m.link.dropped, reason, "other").Inc() }

// Replayed counts a request sent again: resumed, other_numerics (resumed by an engine that may compute another rest),
// restarted (afresh, no token was delivered), model_changed, quarantined, failed.
func (m *Metrics) Replayed(result string) { counterOr(m.link.replayed, result, "failed").Inc() }

// Quarantined counts a request answered with 422 because it kept killing the engine.
func (m *Metrics) Quarantined() { m.vectors.counter("llm_requests_quarantined_total").Inc() }

// IPCSent counts bytes that went to the engine.
func (m *Metrics) IPCSent(bytes int) { m.link.sent.Add(float64(bytes)) }

// IPCReceived counts bytes that came from the engine.
func (m *Metrics) IPCReceived(bytes int) { m.link.received.Add(float64(bytes)) }

// IPCCall records a unary call: metrics, load, tokenize, ping. An empty code is a success; otherwise deadline,
// disconnected, unsupported or failed.
func (m *Metrics) IPCCall(method string, took time.Duration, code string) {
	m.vectors.histogram("llm_ipc_duration_seconds", method).Observe(took.Seconds())
	if code != "" {
		m.vectors.counter("llm_ipc_errors_total", method, code).Inc()
	}
}

// SetUnaccepted sets how many requests are at an engine that hasn't accepted them: mostly they wait until their model
// is loaded, and no count of the engine's has them.
func (m *Metrics) SetUnaccepted(n int) { m.scraped.unaccepted.Store(int64(n)) }

// EngineLoad is the present load of the engine, all models together.
type EngineLoad struct {
	Waiting int     // accepted and not started
	Running int     // holding a slot
	KVUsage float64 // of the fullest model, 0 to 1
}

// SetEngineLoad sets the present load of the engine.
func (m *Metrics) SetEngineLoad(l EngineLoad) {
	m.scraped.engineWaiting.Store(int64(l.Waiting))
	m.scraped.engineRunning.Store(int64(l.Running))
	m.scraped.kvUsage.store(l.KVUsage)
}

// SetCacheConfig sets how the KV cache of the default model is divided, for endpoint pickers: tokens of a block and the
// number of blocks.
func (m *Metrics) SetCacheConfig(blockTokens, blocks int) {
	m.cacheConfigInfo.set(1, strconv.Itoa(blockTokens), strconv.Itoa(blocks))
}

// SetAdapters sets which versions are loaded and which others requests wait for, for endpoint pickers; at is when that
// changed, limit how many may be loaded.
func (m *Metrics) SetAdapters(limit int, loaded, waiting []string, at time.Time) {
	m.adaptersInfo.set(unixSeconds(at), strconv.Itoa(limit), joinSorted(loaded), joinSorted(waiting))
}

func joinSorted(names []string) string {
	names = slices.Clone(names)
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}
