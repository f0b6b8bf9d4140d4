package admission

import "time"

const (
	// speedWindow is over how much saturated time the speed is averaged. A step may take a second, and the load changes
	// within minutes.
	speedWindow = 10 * time.Second
	// minMeasured is the saturated time after which the speed counts as known.
	minMeasured = 2 * time.Second
)

// speed is an average of work a second over the time in which the engine was saturated. Work and time fade alike, so
// that pauses between steps don't show.
type speed struct {
	work, time float64 // of saturated time, faded; time in seconds
	pending    float64 // work since the last sample
	idle       float64 // saturated seconds without any work up to now
	last       time.Time
	saturated  bool // at the last sample
}

func (s *speed) perSecond() float64 {
	if s.time < minMeasured.Seconds() || s.work <= 0 {
		return 0
	}
	return s.work / s.time
}

// sample takes in the work since the last call, and returns the seconds of saturated time in which it was done. 0: it
// doesn't count.
func (s *speed) sample(now time.Time, saturated bool) (counted float64) {
	work, elapsed := s.pending, now.Sub(s.last).Seconds()
	counts := s.saturated && saturated && elapsed > 0
	s.pending, s.last, s.saturated = 0, now, saturated
	switch {
	case !counts:
		s.idle = 0
	case work == 0: // maybe a long step; maybe the engine hangs
		s.idle += elapsed
	default:
		elapsed += s.idle
		keep := fading(elapsed)
		s.work, s.time = s.work*keep+work, s.time*keep+elapsed
		s.idle = 0
		return elapsed
	}
	return 0
}

func (s *speed) interrupt() { s.idle, s.pending, s.saturated = 0, 0, false }

// average is the mean of the first values, and then one in which older values fade.
type average struct {
	mean float64
	n    int
}

// averageOver is over how many values an average goes, about.
const averageOver = 64

func (a *average) add(value float64) {
	a.n = min(a.n+1, averageOver)
	a.mean += (value - a.mean) / float64(a.n)
}
