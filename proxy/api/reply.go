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
	Backends   []Backend
	Memory     []ModelMemory
}

// ModelMemory is what a loaded base model takes, and what decided the size of its KV cache.
type ModelMemory struct {
	Model      string
	Cells      int    // tokens of its KV cache
	CellsLimit string // what decided Cells, for people
	// the formats of keys and values in the KV cache, as in the settings; empty: it has none
	CacheTypeK, CacheTypeV string
	FlashAttention         bool
	KVLayout               string // unified or streams; empty: it has no KV cache
	// host or device, which finds the candidates of a draw, and why, for people; empty: it draws no tokens
	Sampling, SamplingDecidedBy string
	Devices                     []DeviceMemory
}

// DeviceMemory is what of a model lies on one device, in bytes.
type DeviceMemory struct {
	Device                                string
	WeightBytes, CacheBytes, ComputeBytes uint64
	AdapterBytes                          uint64 // of the versions that are loaded now
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
	Description      string // the hardware's own name
	MemoryTotalBytes uint64
	MemoryFreeBytes  uint64
}

// Backend is a compute backend that is installed at the engine. Problem says why it gives no device; empty: it gives
// one.
type Backend struct {
	Name    string
	Devices []Device
	Problem string
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

// Result is one complete choice.
type Result struct {
	Text           string // the content: without reasoning and tool calls
	Reasoning      string
	ToolCalls      []ToolCall
	Logprobs       []TokenLogprob // of the answer, where the request asks for them
	PromptLogprobs []TokenLogprob // of the prompt, where the request asks for them
	Embedding      []float32      // of tasks that aren't TaskGenerate
	Metadata       Metadata
}

// Reply is everything that a request brought: the choices of its first input, those of its second, and so on.
type Reply struct {
	Results []Result
	// Usage is that of all of them together: each prompt counts once, however many choices it has. Finish reason, seed
	// and stop are those of the first.
	Usage Metadata
}

// Metadata of an answer.
type Metadata struct {
	Model           string // as resolved
	Version         string // as resolved
	TokensGenerated int    // the end token included
	ReasoningTokens int    // of TokensGenerated
	ResponseTime    time.Duration
	GenerationTime  time.Duration // prefill and decode, by the engine's clock
	QueueTime       time.Duration // in the proxy and the engine
	PrefillTime     time.Duration
	DecodeTime      time.Duration
	FinishReason    FinishReason
	Stop            string // the stop string that ended it
	PromptTokens    int
	CachedTokens    int    // of PromptTokens, not computed since the KV cache had them
	Seed            uint64 // the one used, given or picked
}
