package load

import (
	"math"
	"slices"
	"time"
)

// TokensPerSecond counts the tokens of whole replies.
func (r Run) TokensPerSecond() float64 {
	tokens := 0
	for i := range r.Timelines {
		tokens += r.Timelines[i].Tokens
	}
	return float64(tokens) / r.Elapsed.Seconds()
}

// EventsPerSecond counts events with text between two times, also those of replies that aren't whole.
func (r Run) EventsPerSecond(from, to time.Duration) float64 {
	events := 0
	for i := range r.Timelines {
		for _, at := range r.Timelines[i].Events {
			if at >= from && at < to {
				events++
			}
		}
	}
	return float64(events) / (to - from).Seconds()
}

// TokensPerAnswer is the mean length of whole replies; NaN of none.
func (r Run) TokensPerAnswer() float64 {
	tokens, whole := 0, r.whole()
	for _, t := range whole {
		tokens += t.Tokens
	}
	return float64(tokens) / float64(len(whole))
}

// RequestsPerSecond counts whole replies.
func (r Run) RequestsPerSecond() float64 { return float64(len(r.whole())) / r.Elapsed.Seconds() }

// FirstTokens are the times to the first token, in seconds.
func (r Run) FirstTokens() []float64 {
	return r.seconds(func(t *Timeline) time.Duration { return t.TTFT() })
}

// WholeReplies are the times to the end of the replies, in seconds.
func (r Run) WholeReplies() []float64 {
	return r.seconds(func(t *Timeline) time.Duration { return t.Whole() })
}

// Gaps are the times between the events of a stream, of all streams, in seconds.
func (r Run) Gaps() []float64 { return r.GapsBetween(0, math.MaxInt64) }

// GapsBetween are the gaps of which a part lies between two times.
func (r Run) GapsBetween(from, to time.Duration) []float64 {
	var gaps []float64
	for _, t := range r.whole() {
		for i := 1; i < len(t.Events); i++ {
			if t.Events[i] > from && t.Events[i-1] < to {
				gaps = append(gaps, (t.Events[i] - t.Events[i-1]).Seconds())
			}
		}
	}
	return gaps
}

// Failure is the error of the first request that has one.
func (r Run) Failure() error {
	for i := range r.Timelines {
		if err := r.Timelines[i].Err; err != nil {
			return err
		}
	}
	return nil
}

func (r Run) whole() []*Timeline {
	var list []*Timeline
	for i := range r.Timelines {
		if r.Timelines[i].Err == nil {
			list = append(list, &r.Timelines[i])
		}
	}
	return list
}

func (r Run) seconds(of func(*Timeline) time.Duration) []float64 {
	var list []float64
	for _, t := range r.whole() {
		list = append(list, of(t).Seconds())
	}
	return list
}

// Percentile is the smallest value that at least so many per cent of the values don't exceed (the nearest-rank
// method); NaN of no values.
func Percentile(values []float64, percent float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(percent / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

// Median is the middle value, or the mean of the two in the middle; NaN of no values.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
