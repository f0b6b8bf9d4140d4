package metrics

import (
	"math"
	"strconv"
)

// Number is a figure that may be missing: NaN is null in JSON. Six digits are written.
type Number float64

// Missing returns a Number without a value.
func Missing() Number { return Number(math.NaN()) }

// Known reports whether there is a figure.
func (n Number) Known() bool { return !math.IsNaN(float64(n)) && !math.IsInf(float64(n), 0) }

// MarshalJSON implements json.Marshaler.
func (n Number) MarshalJSON() ([]byte, error) {
	if !n.Known() {
		return []byte("null"), nil
	}
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(float64(n), 'g', 6, 64), 64)
	return strconv.AppendFloat(nil, rounded, 'f', -1, 64), err
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *Number) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*n = Missing()
		return nil
	}
	f, err := strconv.ParseFloat(string(text), 64)
	*n = Number(f)
	return err
}

// LatencySummary summarises durations within the window, in seconds.
type LatencySummary struct {
	Mean Number `json:"mean"`
	P50  Number `json:"p50"`
	P95  Number `json:"p95"`
	P99  Number `json:"p99"`
}

// Phases are the mean seconds that a request spent in each phase.
type Phases struct {
	Queue   Number `json:"queue"`
	Prefill Number `json:"prefill"`
	Decode  Number `json:"decode"`
	Restart Number `json:"restart"`
}

// Figures are about the last LiveWindow, or the time since the start when that is shorter. Ratios are 0 to 1.
type Figures struct {
	WindowSeconds Number `json:"window_seconds"` // as covered by samples

	Response      LatencySummary `json:"response"` // of requests that reached a model
	FirstToken    LatencySummary `json:"first_token"`
	InterToken    LatencySummary `json:"inter_token"`
	Phases        Phases         `json:"phases"`
	RequestRate   Number         `json:"requests_per_second"` // answered with success
	TokenRate     Number         `json:"tokens_per_second"`
	SuccessRatio  Number         `json:"success_ratio"` // of successes and errors
	ErrorRatio    Number         `json:"error_ratio"`
	CacheHitRatio Number         `json:"cache_hit_ratio"`

	MemoryRatio    Number             `json:"memory_ratio"` // of the fullest device, now
	ModelMemory    []ModelMemory      `json:"model_memory"`
	EngineRestarts float64            `json:"engine_restarts"` // since the proxy started
	RestartReasons map[string]float64 `json:"restart_reasons"` // those that occurred
}

// ModelMemory is how many bytes evicting an entry of the model cache would free.
type ModelMemory struct {
	Model   string  `json:"base_model"`
	Version string  `json:"version"`
	Bytes   float64 `json:"bytes"`
}

// HistoryPoint is one point of the plots, over about ten seconds.
type HistoryPoint struct {
	Time         float64 `json:"t"` // Unix time in seconds
	Mean         Number  `json:"mean"`
	P95          Number  `json:"p95"`
	P99          Number  `json:"p99"`
	RequestRate  Number  `json:"requests_per_second"`
	TokenRate    Number  `json:"tokens_per_second"`
	ErrorRatio   Number  `json:"error_ratio"`
	Queue        Number  `json:"queue"`
	Prefill      Number  `json:"prefill"`
	Decode       Number  `json:"decode"`
	Restart      Number  `json:"restart"`
	FirstToken50 Number  `json:"first_token_p50"`
	FirstToken95 Number  `json:"first_token_p95"`
	InterToken50 Number  `json:"inter_token_p50"`
	InterToken95 Number  `json:"inter_token_p95"`
	Waiting      Number  `json:"waiting"`
	Running      Number  `json:"running"`
	MemoryRatio  Number  `json:"memory_ratio"`
	KVUsage      Number  `json:"kv_usage"`
	EngineUp     Number  `json:"engine_up"`
}
