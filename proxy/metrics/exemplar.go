package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Exemplars lead from a number to one trace behind it; only OpenMetrics and protobuf carry them. Requests that their
// sender doesn't sample get none, since nobody could look up such a trace.

func observeWithExemplar(o prometheus.Observer, d time.Duration, traceID string) {
	if e, ok := o.(prometheus.ExemplarObserver); ok && traceID != "" {
		e.ObserveWithExemplar(d.Seconds(), exemplarLabels(traceID))
		return
	}
	o.Observe(d.Seconds())
}

func countWithExemplar(c prometheus.Counter, traceID string) {
	if a, ok := c.(prometheus.ExemplarAdder); ok && traceID != "" {
		a.AddWithExemplar(1, exemplarLabels(traceID))
		return
	}
	c.Inc()
}

// exemplarLabels copies the id: exemplars outlive their request.
func exemplarLabels(id string) prometheus.Labels {
	return prometheus.Labels{"trace_id": strings.Clone(id)}
}

// SampledTraceID returns the trace id of a valid W3C traceparent whose sender samples the trace, and empty otherwise.
func SampledTraceID(traceparent string) string {
	const whole = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if len(traceparent) != whole {
		return ""
	}
	flags := traceparent[whole-1]
	odd := '0' <= flags && flags <= '9' && flags%2 == 1 || flags == 'b' || flags == 'd' || flags == 'f'
	if !odd {
		return ""
	}
	return traceparent[3:35]
}
