package metrics

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Limits of what LiveSampler keeps.
const (
	// LiveWindow is the time over which figures are computed.
	LiveWindow = time.Minute
	// LiveHistory is how far back points go.
	LiveHistory = 5 * time.Minute

	pointWindow    = 10 * time.Second // of one point
	viewedInterval = time.Second      // between samples while somebody watches the figures
	idleInterval   = 5 * time.Second  // otherwise
	viewerTimeout  = 15 * time.Second // how long after a call of Figures somebody counts as watching
)

// LiveSampler keeps a few minutes of samples of the registry, for pages that show the present without a Prometheus. Run
// takes the samples.
type LiveSampler struct {
	readSample func() liveSample
	now        func() time.Time

	mu        sync.Mutex
	samples   []liveSample   // oldest first; at most LiveHistory of them
	points    []HistoryPoint // one for each sample but the first
	lastAsked time.Time      // when Figures was called last
}

// NewLiveSampler makes a sampler. The first sample is taken at once, so that figures count from here.
func (m *Metrics) NewLiveSampler() *LiveSampler {
	l := &LiveSampler{readSample: m.liveSample, now: time.Now}
	l.takeSample()
	return l
}

// Run takes samples until ctx ends: each second while somebody watches, otherwise less often.
func (l *LiveSampler) Run(ctx context.Context) {
	tick := time.NewTicker(viewedInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if l.sampleDue() {
				l.takeSample()
			}
		}
	}
}

func (l *LiveSampler) sampleDue() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	since := now.Sub(l.samples[len(l.samples)-1].at)
	return now.Sub(l.lastAsked) < viewerTimeout || since > idleInterval-viewedInterval/2
}

// takeSample reads the registry and drops samples older than LiveHistory.
func (l *LiveSampler) takeSample() {
	s := l.readSample()
	s.at = l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.samples) > 0 {
		l.points = append(l.points, historyPoint(l.baseline(s.at.Add(-pointWindow)), &s))
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
const maxSamples = int(LiveHistory / viewedInterval)

// baseline is the newest sample that isn't after t, or the oldest. The mutex is held.
func (l *LiveSampler) baseline(t time.Time) *liveSample {
	for i := len(l.samples) - 1; i > 0; i-- {
		if !l.samples[i].at.After(t) {
			return &l.samples[i]
		}
	}
	return &l.samples[0]
}

// Figures returns the figures of the window that ends with the last sample. The call makes Run sample each second for a
// while.
func (l *LiveSampler) Figures() Figures {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastAsked = l.now()
	last := &l.samples[len(l.samples)-1]
	return figures(l.baseline(last.at.Add(-LiveWindow)), last)
}

// Since returns the points later than t, oldest first; at most those of LiveHistory.
func (l *LiveSampler) Since(t time.Time) []HistoryPoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	from, _ := slices.BinarySearchFunc(l.points, unixSeconds(t), func(p HistoryPoint, t float64) int {
		if p.Time <= t {
			return -1
		}
		return 1
	})
	return slices.Clone(l.points[from:])
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1e3 }
