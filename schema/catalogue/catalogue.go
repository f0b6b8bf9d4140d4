// Package catalogue lists every metric that the two programs expose: name, type, labels with their values, bucket
// bounds, help and owner. Both programs build their registries from it, and docs/metrics.md is generated from it. It
// measures nothing itself.
//
// The names of group D are documented and never change. Whatever an alert needs is owned by the proxy, so that it
// exists before the engine starts and survives its death.
package catalogue

// Kind is the Prometheus type of a metric.
type Kind uint8

// Kinds of metrics.
const (
	Counter Kind = iota + 1
	Gauge
	Histogram
)

// String returns the name that Prometheus uses.
func (k Kind) String() string {
	switch k {
	case Counter:
		return "counter"
	case Gauge:
		return "gauge"
	case Histogram:
		return "histogram"
	}
	return "unknown"
}

// Owner is the program that measures a metric. The engine's metrics reach the scrape through the proxy.
type Owner string

// Owners of metrics.
const (
	Proxy  Owner = "proxy"
	Engine Owner = "engine"
)

// Group is a group of metrics that answer one kind of question.
type Group string

// Groups of metrics, in the order in which they are documented.
const (
	Documented Group = "D"
	Queue      Group = "Q"
	Latency    Group = "L"
	Refused    Group = "R"
	Models     Group = "M"
	Link       Group = "E"
	Build      Group = "B"
	Internals  Group = "X"
	Devices    Group = "G"
)

// Groups returns every group with its title, in order.
func Groups() []GroupTitle {
	return []GroupTitle{
		{Documented, "Documented"},
		{Queue, "Queue and router"},
		{Latency, "Latency and length"},
		{Refused, "Refused and cancelled"},
		{Models, "Models"},
		{Link, "Engine link and restarts"},
		{Build, "Build, configuration, drain"},
		{Internals, "Engine internals"},
		{Devices, "Devices"},
	}
}

// GroupTitle names a group for people.
type GroupTitle struct {
	Group Group
	Title string
}

// Label of a metric.
type Label struct {
	Name string
	// Values is the closed set of values; nil when they come from the configuration or from the engine's catalogue of
	// models.
	Values []string
	// Fallback takes the place of a value outside Values.
	Fallback string
}

// Bounds are the upper edges of a histogram's buckets, ascending, without +Inf.
type Bounds struct {
	Name  string
	Edges []float64
	Why   string
}

// Metric is one family.
type Metric struct {
	Name   string
	Kind   Kind
	Owner  Owner
	Group  Group
	Labels []Label
	Bounds *Bounds // of a histogram; nil otherwise
	Help   string
	// RouterOnly families are on /metrics/router and nowhere else.
	RouterOnly bool
}

// LabelNames returns the names in the order of the label values.
func (m *Metric) LabelNames() []string {
	names := make([]string, len(m.Labels))
	for i, l := range m.Labels {
		names[i] = l.Name
	}
	return names
}

// Core reports whether the metric stays visible with CUSTOM_METRICS=false: the documented families and the two that the
// documented alerts and the engine alert read.
func (m *Metric) Core() bool {
	return m.Group == Documented || m.Name == "model_load_failures_total" || m.Name == "llm_engine_up"
}

// All returns every metric, grouped in documented order. Callers may change the slice, not what it points to.
func All() []*Metric {
	all := make([]*Metric, 0, len(proxyMetrics)+len(engineMetrics))
	for i := range proxyMetrics {
		all = append(all, &proxyMetrics[i])
	}
	for i := range engineMetrics {
		all = append(all, &engineMetrics[i])
	}
	return all
}

// ByOwner returns the metrics of one program.
func ByOwner(owner Owner) []*Metric {
	var own []*Metric
	for _, m := range All() {
		if m.Owner == owner {
			own = append(own, m)
		}
	}
	return own
}

// Find returns the metric of that name, or nil.
func Find(name string) *Metric { return byName[name] }

var byName = func() map[string]*Metric {
	names := make(map[string]*Metric)
	for _, m := range All() {
		names[m.Name] = m
	}
	return names
}()
