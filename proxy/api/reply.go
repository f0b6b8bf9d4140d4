package api

import "time"

// HealthStatus is the status of GET /health, which always answers 200 (F12).
type HealthStatus string

// Health statuses.
const (
	HealthOK       HealthStatus = "ok"
	HealthLoading  HealthStatus = "loading"
	HealthDegraded HealthStatus = "degraded" // no engine
	HealthDraining HealthStatus = "draining"
)

// Health answers GET /health.
type Health struct {
	Status    HealthStatus
	Timestamp time.Time
}

// Probe answers GET /livez and /readyz.
type Probe struct {
	OK     bool
	Reason string // why not; which model is missing
}

// ServiceStatus is the status of GET /status (F23).
type ServiceStatus string

// Service statuses.
const (
	ServiceHealthy   ServiceStatus = "healthy"
	ServiceLoading   ServiceStatus = "loading"
	ServiceDegraded  ServiceStatus = "degraded"
	ServiceUnhealthy ServiceStatus = "unhealthy"
	ServiceDraining  ServiceStatus = "draining"
)

// Names that GET /status gives, as documented.
const (
	ServiceName    = "LLM Inference API"
	ServiceVersion = "1.0.0"
)

// Status answers GET /status. cached_models is always the length of Cached.
type Status struct {
	Version    string // "" for ServiceVersion
	Status     ServiceStatus
	Timestamp  time.Time
	Prometheus bool
	Device     string // cuda, cpu, vulkan, metal, rocm, mock, unknown
	Cached     []CachedModel
	Devices    []Device
}

// CachedModel is an entry of the model cache. Loaded is false while it loads.
type CachedModel struct {
	Model   string
	Version string
	Loaded  bool
}

// Device is one device of the engine.
type Device struct {
	Name             string
	Backend          string
	MemoryTotalBytes uint64
	MemoryFreeBytes  uint64
}

// FinishReason says why an answer ended.
type FinishReason string

// Finish reasons. Clients see only stop and length; the other two exist for metrics and logs.
const (
	FinishStop      FinishReason = "stop"   // end token or stop string
	FinishLength    FinishReason = "length" // max_new_tokens or the context is full
	FinishCancelled FinishReason = "cancelled"
	FinishError     FinishReason = "error"
)

// Result is a complete answer.
type Result struct {
	Text     string
	Metadata Metadata
}

// Metadata of an answer.
type Metadata struct {
	Model           string // as resolved
	Version         string // as resolved
	TokensGenerated int    // the end token included
	ResponseTime    time.Duration
	GenerationTime  time.Duration // prefill and decode, by the engine's clock
	FinishReason    FinishReason
	PromptTokens    int
	CachedTokens    int    // of PromptTokens, not computed since the KV cache had them
	Seed            uint64 // the one used, given or picked
}
