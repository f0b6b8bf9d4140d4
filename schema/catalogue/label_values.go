package catalogue

// Label values that stand for no model: None where a model does not apply, Unknown where the client asked for one that
// is not installed, Other for whatever is folded.
const (
	None    = "none"
	Unknown = "unknown"
	Other   = "other"
	General = "general" // domain of a request for which nobody named one
)

// InferenceEndpoints are the values of the label endpoint by which the service is judged: each is one way to ask for
// inference. All other endpoints are probes, pages and lists.
var InferenceEndpoints = []string{
	"/infer", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/rerank",
}

// Bounds of label sets that come from the configuration.
const (
	MaxPairs   = 256 // (model, version) pairs with series of their own
	MaxDomains = 32
)

// Closed sets. A value outside goes to the fallback of the label.
var (
	statuses         = []string{"success", "error", "client_error", "rate_limited", "cancelled"}
	errorTypes       = []string{"model_not_found", "model_load_failed", "context_length_exceeded", "queue_full", "queue_timeout", "deadline_exceeded", "engine_unavailable", "engine_crashed", "out_of_memory", "decode_failed", "cancelled", "internal", "model_busy", "model_changed", "quarantined", "grammar_too_complex"}
	finishReasons    = []string{"stop", "length", "cancelled", "error"}
	rejectReasons    = []string{"unauthorized", "forbidden", "rate_limited", "invalid_request", "body_too_large", "model_not_found", "queue_full", "engine_unavailable", "draining", "deadline", "context_length_exceeded", "model_busy", "model_load_failed", "quarantined", "out_of_memory", "internal"}
	admissionReasons = []string{"deadline", "requests", "bytes", "tokens", "key", "memory"}
	loadFailReasons  = []string{"not_found", "bad_format", "out_of_memory", "engine_crash", "timeout", "adapter_mismatch", Other}
	evictReasons     = []string{"lru", "memory", "ttl", "admin", "changed"}
	restartReasons   = []string{"crash", "oom", "upgrade", "stall", Unknown}
	stages           = []string{"queue", "prefill", "decode"}
	phases           = []string{"queue", "prefill", "decode", "restart"}
	sources          = []string{"compute", "cache"}
	objectives       = []string{"ttft", "tpot", "e2e"}
	verdicts         = []string{"good", "bad"}
	limitScopes      = []string{"key", "ip", "tokens", "concurrency", Other}
	limitDecisions   = []string{"allowed", "denied"}
	callMethods      = []string{"metrics", "load", "tokenize", "detokenize", "render", "ping", Other}
	callCodes        = []string{"deadline", "disconnected", "unsupported", "failed", Other}
	directions       = []string{"sent", "received"}
	dropReasons      = []string{"stale_attempt", "stale_connection", "unknown_request", Other}
	replayResults    = []string{"resumed", "other_numerics", "restarted", "model_changed", "quarantined", "failed"}
	overflowLabels   = []string{"model", "domain"}
	slotStates       = []string{"idle", "prefill", "decode"}
	stepPhases       = []string{"prefill", "decode", "mixed"}
	tokenKinds       = []string{"prompt", "cached", "generated", "drafted", "accepted"}
	cacheTypes       = []string{"f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", Other}
	decodeErrorCodes = []string{"decode_failed", "out_of_memory", "grammar_too_complex", "context_length_exceeded", "internal", Other}
)

func openLabel(name string) Label { return Label{Name: name} }

func closedLabel(name string, values []string, fallback string) Label {
	return Label{Name: name, Values: values, Fallback: fallback}
}

// modelVersionLabels is the labels (model, version) with more behind them.
func modelVersionLabels(more ...Label) []Label {
	return append([]Label{openLabel("model"), openLabel("version")}, more...)
}

func labels(l ...Label) []Label { return l }
