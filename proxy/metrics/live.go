package metrics

import (
	"context"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Limits of what Live keeps.
const (
	// LiveWindow is the stretch of time over which figures are computed.
	LiveWindow = time.Minute
	// LiveHistory is how far back points go.
	LiveHistory = 5 * time.Minute

	trendWindow  = 10 * time.Second // of one point
	busyInterval = time.Second      // between samples while somebody looks
	idleInterval = 5 * time.Second  // otherwise
	watchedFor   = 15 * time.Second // how long after a question somebody counts as looking
)

// Live keeps a few minutes of samples of the registry, for pages that show the present without a Prometheus. Run owns the sampling.
type Live struct {
	read func() sample
	now  func() time.Time

	mu      sync.Mutex
	samples []sample // oldest first; at most LiveHistory of them
	points  []Point  // one a sample, but for the first
	asked   time.Time
}

// Number is a figure that may be missing: NaN is null in JSON. Six digits are written.
type Number float64

// Missing is a Number that nobody knows.
func Missing() Number { return Number(math.NaN()) }

// Known tells whether there is a figure.
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

// Spread of durations within the window, in seconds.
type Spread struct {
	Mean Number `json:"mean"`
	P50  Number `json:"p50"`
	P95  Number `json:"p95"`
	P99  Number `json:"p99"`
}

// Phases are where the time of requests went, mean seconds of a request.
type Phases struct {
	Queue   Number `json:"queue"`
	Prefill Number `json:"prefill"`
	Decode  Number `json:"decode"`
	Restart Number `json:"restart"`
}

// Figures are about the last LiveWindow, or the time since the start when that is shorter. Ratios are 0 to 1.
type Figures struct {
	WindowSeconds Number `json:"window_seconds"` // as covered by samples

	Response      Spread `json:"response"` // of requests that reached a model
	FirstToken    Spread `json:"first_token"`
	InterToken    Spread `json:"inter_token"`
	Phases        Phases `json:"phases"`
	RequestRate   Number `json:"requests_per_second"` // answered with success
	TokenRate     Number `json:"tokens_per_second"`
	SuccessRatio  Number `json:"success_ratio"` // of successes and errors
	ErrorRatio    Number `json:"error_ratio"`
	CacheHitRatio Number `json:"cache_hit_ratio"`

	MemoryRatio    Number             `json:"memory_ratio"` // of the fullest device, now
	ModelMemory    []ModelMemory      `json:"model_memory"`
	EngineRestarts float64            `json:"engine_restarts"` // since the proxy started
	RestartReasons map[string]float64 `json:"restart_reasons"` // those that occurred
}

// ModelMemory is what evicting an entry of the cache would free.
type ModelMemory struct {
	Model   string  `json:"base_model"`
	Version string  `json:"version"`
	Bytes   float64 `json:"bytes"`
}

// Point is one step of the plots, over about ten seconds.
type Point struct {
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

// Live makes the keeper of recent samples. The first one is taken at once, so that figures count from here.
func (m *Metrics) Live() *Live {
	l := &Live{read: m.sample, now: time.Now}
	l.take()
	return l
}

// Run samples until ctx ends: each second while somebody asks, otherwise less often.
func (l *Live) Run(ctx context.Context) {
	tick := time.NewTicker(busyInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if l.due() {
				l.take()
			}
		}
	}
}

func (l *Live) due() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	since := now.Sub(l.samples[len(l.samples)-1].at)
	return now.Sub(l.asked) < watchedFor || since > idleInterval-busyInterval/2
}

// take reads the registry and keeps what is newer than LiveHistory.
func (l *Live) take() {
	s := l.read()
	s.at = l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.samples) > 0 {
		l.points = append(l.points, point(l.baseline(s.at.Add(-trendWindow)), &s))
	}
	l.samples = append(l.samples, s)
	old := s.at.Add(-LiveHistory)
	gone := 0
	for gone < len(l.samples)-1 && (l.samples[gone].at.Before(old) || len(l.samples)-gone > maxSamples) {
		gone++
	}
	l.samples = slices.Delete(l.samples, 0, gone)
	l.points = slices.Delete(l.points, 0, max(0, len(l.points)-maxSamples))
}

// maxSamples bounds memory, whatever the clock does.
const maxSamples = int(LiveHistory / busyInterval)

// baseline is the newest sample that isn't after t, or the oldest. The mutex is held.
func (l *Live) baseline(t time.Time) *sample {
	for i := len(l.samples) - 1; i > 0; i-- {
		if !l.samples[i].at.After(t) {
			return &l.samples[i]
		}
	}
	return &l.samples[0]
}

// Figures of the window that ends with the last sample. Asking makes Run sample each second for a while.
func (l *Live) Figures() Figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = l.now()
	last := &l.samples[len(l.samples)-1]
	return figures(l.baseline(last.at.Add(-LiveWindow)), last)
}

// Since gives the points later than t, oldest first; at most those of LiveHistory.
func (l *Live) Since(t time.Time) []Point {
	l.mu.Lock()
	defer l.mu.Unlock()
	from, _ := slices.BinarySearchFunc(l.points, unixSeconds(t), func(p Point, t float64) int {
		if p.Time <= t {
			return -1
		}
		return 1
	})
	return slices.Clone(l.points[from:])
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }
