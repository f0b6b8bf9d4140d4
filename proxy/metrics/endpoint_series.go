package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tandem/schema/catalogue"
)

// Endpoint has the series of a route. It is made once, together with the route.
type Endpoint struct {
	m        *Metrics
	route    string
	inFlight interface {
		Inc()
		Dec()
	}
	requestBytes, responseBytes interface{ Observe(float64) }
	series                      sync.Map // *ModelMetrics → *endpointSeries
}

// endpointSeries are the series of an endpoint with a model, looked up once.
type endpointSeries struct {
	counts map[string]prometheus.Counter // by status
	took   func() prometheus.Observer    // created with its first observation
}

func (e *Endpoint) seriesOf(mm *ModelMetrics) *endpointSeries {
	if known, ok := e.series.Load(mm); ok {
		return known.(*endpointSeries)
	}
	mm.mu.Lock()
	defer mm.mu.Unlock()
	r := &endpointSeries{counts: make(map[string]prometheus.Counter), took: sync.OnceValue(func() prometheus.Observer { return mm.responseTime(e.route) })}
	if mm.removed {
		for _, status := range labelValues("api_requests_total", "status") {
			r.counts[status] = discardedCounter
		}
		return r
	}
	for _, status := range labelValues("api_requests_total", "status") {
		r.counts[status] = e.m.vectors.counter("api_requests_total", e.route, status, mm.model, mm.version)
	}
	known, _ := e.series.LoadOrStore(mm, r)
	return known.(*endpointSeries)
}

// responseTime returns the response time histogram of an endpoint, unless the pair's series were removed.
func (mm *ModelMetrics) responseTime(route string) prometheus.Observer {
	mm.mu.Lock()
	defer mm.mu.Unlock()
	if mm.removed {
		return discardedHistogram
	}
	return mm.m.vectors.histogram("api_response_time_seconds", route, mm.model, mm.version)
}

// Endpoint returns the series of a route, such as /infer. Routes come from the program, never from a request; a path
// without a route is catalogue.Other.
func (m *Metrics) Endpoint(route string) *Endpoint {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.endpoints[route]; ok {
		return e
	}
	m.allowed.addEndpoint(route)
	e := &Endpoint{
		m: m, route: route,
		inFlight:      m.vectors.gauge("llm_requests_in_flight", route),
		requestBytes:  m.vectors.histogram("api_request_size_bytes", route),
		responseBytes: m.vectors.histogram("api_response_size_bytes", route),
	}
	m.endpoints[route] = e
	if !IsInference(route) { // there each model has its own
		for _, status := range labelValues("api_requests_total", "status") {
			m.vectors.counter("api_requests_total", route, status, catalogue.None, catalogue.None)
		}
	}
	return e
}

// Begin counts a request in flight; Record ends it.
func (e *Endpoint) Begin() { e.inFlight.Inc() }

// Reply is what is known about an HTTP exchange once the last byte is written or the client is gone.
type Reply struct {
	Status        string        // of api_requests_total: success, error, client_error, rate_limited, cancelled
	Model         *ModelMetrics // nil: none
	Took          time.Duration
	RequestBytes  int
	ResponseBytes int
	TraceID       string // of a sampled request, for exemplars; empty: none
}

// Record counts the exchange and ends what Begin began. The time of a cancelled request isn't observed, since the
// client decided it.
func (e *Endpoint) Record(r Reply) {
	mm := r.Model
	if mm == nil {
		mm = e.m.noModel
	}
	series := e.seriesOf(mm)
	counterOr(series.counts, r.Status, "error").Inc()
	if r.Status != "cancelled" {
		observeWithExemplar(series.took(), r.Took, r.TraceID)
	}
	e.requestBytes.Observe(float64(r.RequestBytes))
	e.responseBytes.Observe(float64(r.ResponseBytes))
	e.inFlight.Dec()
}
