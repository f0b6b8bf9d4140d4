package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/schema/catalogue"
)

// Outcome is what is known of a request that the engine accepted, at its end.
type Outcome struct {
	Reason    string // stop, length, cancelled, error
	ErrorType string // of failed_inferences_total, when the reason is cancelled or error
	Domain    string // folded into the bounded set

	PromptTokens int
	CachedTokens int // of the prompt, taken from the prefix cache
	OutputTokens int // the same number as the calls of Token for this request

	Queue   time.Duration // proxy and engine together
	Prefill time.Duration
	Decode  time.Duration
	Restart time.Duration // replay and pause; 0 without a restart

	TraceID    string        // of a sampled request, for exemplars; empty: none
	FirstToken time.Duration // since the request was received; 0 when no token came
	Total      time.Duration // since the request was received
}

// Finish records the end of a request that the engine accepted, exactly once a request: successes and failures, finish reasons,
// lengths, phases and objectives. Keeping them in one call is what makes the sums agree.
func (mm *ModelMetrics) Finish(o Outcome) {
	mm.wake()
	pick(mm.finished, o.Reason, "error").Inc()
	success := o.Reason == "stop" || o.Reason == "length"
	if success {
		mm.succeeded(o.Domain).Inc()
	} else {
		countTraced(pick(mm.failed, o.ErrorType, "internal"), o.TraceID)
	}
	mm.lengths(o)
	mm.phases(o)
	if o.Reason != "cancelled" {
		mm.judge(o, success)
	}
}

func (mm *ModelMetrics) lengths(o Outcome) {
	if o.PromptTokens > 0 {
		mm.prompt.Observe(float64(o.PromptTokens))
		mm.cached.Add(float64(o.CachedTokens))
		mm.computed.Add(float64(max(0, o.PromptTokens-o.CachedTokens)))
	}
	if o.OutputTokens > 0 {
		mm.output.Observe(float64(o.OutputTokens))
	}
}

func (mm *ModelMetrics) phases(o Outcome) {
	mm.queue.Observe(o.Queue.Seconds())
	if o.Prefill > 0 {
		mm.prefill.Observe(o.Prefill.Seconds())
	}
	if o.Decode > 0 {
		mm.decode.Observe(o.Decode.Seconds())
	}
	if o.Restart > 0 {
		mm.restart.Observe(o.Restart.Seconds())
	}
	if o.OutputTokens > 1 && o.Decode > 0 {
		mm.perOutput.Observe(o.Decode.Seconds() / float64(o.OutputTokens-1))
	}
}

// succeeded finds the counter of a domain. Those of keys and models are not known from the beginning.
func (mm *ModelMetrics) succeeded(domain string) prometheus.Counter {
	if c, ok := mm.successes[domain]; ok {
		return c
	}
	return mm.counter("successful_inferences_total", domain)
}

// judge holds the request against each objective. One that failed missed them all; the client that left is not held against us.
func (mm *ModelMetrics) judge(o Outcome, success bool) {
	slo := mm.m.o.SLO
	if slo.FirstToken > 0 {
		mm.verdict("ttft", success && o.FirstToken <= slo.FirstToken)
	}
	if slo.PerToken > 0 && (o.OutputTokens > 1 || !success) {
		gaps := time.Duration(max(1, o.OutputTokens-1))
		mm.verdict("tpot", success && o.Decode/gaps <= slo.PerToken)
	}
	if slo.Request > 0 {
		target := slo.Request + time.Duration(max(0, o.OutputTokens-sloTokens))*slo.PerToken
		mm.verdict("e2e", success && o.Total <= target)
	}
}

func (mm *ModelMetrics) verdict(slo string, good bool) {
	result := "bad"
	if good {
		result = "good"
	}
	mm.verdicts[slo][result].Inc()
}

// Endpoint is a route. Get it once, when routes are made.
type Endpoint struct {
	m        *Metrics
	route    string
	inFlight interface {
		Inc()
		Dec()
	}
	requestBytes, responseBytes interface{ Observe(float64) }
	replies                     sync.Map // *ModelMetrics → *replies
}

// replies are the series of an endpoint with a model, looked up once.
type replies struct {
	counts map[string]prometheus.Counter // by status
	took   func() prometheus.Observer    // which exists from its first observation on
}

func (e *Endpoint) repliesOf(mm *ModelMetrics) *replies {
	if known, ok := e.replies.Load(mm); ok {
		return known.(*replies)
	}
	mm.mu.Lock()
	defer mm.mu.Unlock()
	r := &replies{counts: make(map[string]prometheus.Counter), took: sync.OnceValue(func() prometheus.Observer { return mm.responseTime(e.route) })}
	if mm.removed {
		for _, status := range values("api_requests_total", "status") {
			r.counts[status] = noCounter
		}
		return r
	}
	for _, status := range values("api_requests_total", "status") {
		r.counts[status] = e.m.v.counter("api_requests_total", e.route, status, mm.model, mm.version)
	}
	known, _ := e.replies.LoadOrStore(mm, r)
	return known.(*replies)
}

// responseTime makes the histogram of whole requests to an endpoint, unless the pair's series were removed.
func (mm *ModelMetrics) responseTime(route string) prometheus.Observer {
	mm.mu.Lock()
	defer mm.mu.Unlock()
	if mm.removed {
		return noHistogram
	}
	return mm.m.v.histogram("api_response_time_seconds", route, mm.model, mm.version)
}

// Endpoint gives the series of a route template, such as /infer. Routes come from the program, never from a request; a path without
// a route is catalogue.Other.
func (m *Metrics) Endpoint(route string) *Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.ends[route]; ok {
		return e
	}
	m.known.addEndpoint(route)
	e := &Endpoint{
		m: m, route: route,
		inFlight:      m.v.gauge("llm_requests_in_flight", route),
		requestBytes:  m.v.histogram("api_request_size_bytes", route),
		responseBytes: m.v.histogram("api_response_size_bytes", route),
	}
	m.ends[route] = e
	if route != inferRoute { // of which each model has its own
		for _, status := range values("api_requests_total", "status") {
			m.v.counter("api_requests_total", route, status, catalogue.None, catalogue.None)
		}
	}
	return e
}

// Begin counts a request in flight; Record ends it.
func (e *Endpoint) Begin() { e.inFlight.Inc() }

// Reply is what is known of an HTTP exchange once the last byte is written or the client is gone.
type Reply struct {
	Status        string        // of api_requests_total: success, error, client_error, rate_limited, cancelled
	Model         *ModelMetrics // nil: none
	Took          time.Duration
	RequestBytes  int
	ResponseBytes int
	TraceID       string // of a sampled request, for exemplars; empty: none
}

// Record counts the exchange and ends what Begin began. The time of a cancelled request is not observed: it says nothing of us.
func (e *Endpoint) Record(r Reply) {
	mm := r.Model
	if mm == nil {
		mm = e.m.none
	}
	series := e.repliesOf(mm)
	pick(series.counts, r.Status, "error").Inc()
	if r.Status != "cancelled" {
		observeTraced(series.took(), r.Took, r.TraceID)
	}
	e.requestBytes.Observe(float64(r.RequestBytes))
	e.responseBytes.Observe(float64(r.ResponseBytes))
	e.inFlight.Dec()
}
