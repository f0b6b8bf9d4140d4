package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"tandem/proxy/api"
	"tandem/schema/catalogue"
)

func (t *probe) livez() error {
	got, err := t.get("/livez")
	if err == nil && got.status != http.StatusOK {
		err = fmt.Errorf("status %d", got.status)
	}
	return err
}

func (t *probe) health() error {
	var health struct {
		Status    string
		Timestamp *float64
	}
	if err := t.decode("/health", &health); err != nil {
		return err
	}
	statuses := []api.HealthStatus{api.HealthOK, api.HealthLoading, api.HealthDegraded, api.HealthDraining}
	if !slices.Contains(statuses, api.HealthStatus(health.Status)) {
		return fmt.Errorf("status %q is none of %v", health.Status, statuses)
	}
	return checkTimestamp(health.Timestamp)
}

func checkTimestamp(seconds *float64) error {
	if seconds == nil {
		return errors.New("there is no timestamp")
	}
	if off := math.Abs(*seconds - float64(time.Now().UnixMilli())/1e3); off > 60 {
		return fmt.Errorf("timestamp is %.0f s off", off)
	}
	return nil
}

func (t *probe) status() error {
	var status struct {
		Service, Version, Status, Device string
		Timestamp                        *float64
		Prometheus                       *bool `json:"prometheus_available"`
		CachedModels                     *int  `json:"cached_models"`
		Cached                           []struct {
			Model   string `json:"base_model"`
			Version string
			Loaded  *bool
		} `json:"cached_model_info"`
	}
	if err := t.decode("/status", &status); err != nil {
		return err
	}
	switch {
	case status.Service != api.ServiceName || status.Version == "" || status.Status == "" || status.Device == "":
		return fmt.Errorf("service %q, version %q, status %q, device %q", status.Service, status.Version, status.Status, status.Device)
	case status.Prometheus == nil || status.CachedModels == nil || status.Cached == nil:
		return errors.New("prometheus_available, cached_models or cached_model_info is missing")
	case *status.CachedModels != len(status.Cached):
		return fmt.Errorf("cached_models is %d, but the list has %d", *status.CachedModels, len(status.Cached))
	}
	t.metricsOff = !*status.Prometheus
	for _, c := range status.Cached {
		if c.Model == "" || c.Version == "" || c.Loaded == nil {
			return fmt.Errorf("an entry of cached_model_info lacks something: %+v", c)
		}
	}
	return checkTimestamp(status.Timestamp)
}

func (t *probe) models() error {
	var list struct {
		Models []struct {
			Model       string `json:"base_model"`
			Versions    []string
			Description *string
		}
	}
	if err := t.decode("/models", &list); err != nil {
		return err
	}
	if list.Models == nil {
		return errors.New("there is no list of models")
	}
	for _, m := range list.Models {
		if m.Model == "" || len(m.Versions) == 0 || m.Description == nil {
			return fmt.Errorf("an entry lacks something: %+v", m)
		}
	}
	return nil
}

func (t *probe) readyz() error {
	got, err := t.get("/readyz")
	if err != nil {
		return err
	}
	var ready struct{ Status, Reason string }
	if err := unmarshal(got.body, &ready); err != nil {
		return err
	}
	switch {
	case got.status == http.StatusOK && ready.Status == "ok":
		return nil
	case got.status == http.StatusServiceUnavailable && ready.Reason != "":
		return nil
	}
	return fmt.Errorf("status %d, %s", got.status, got.body)
}

func (t *probe) errors() error {
	for _, c := range []struct {
		method, path string
		status       int
		typ          api.Type
	}{
		{"GET", "/no/such/page", http.StatusNotFound, api.TypeNotFound},
		{"DELETE", "/status", http.StatusMethodNotAllowed, api.TypeMethodNotAllowed},
	} {
		got, err := t.send(c.method, c.path, "")
		if err != nil {
			return err
		}
		var reply struct {
			Error struct {
				Type, Message string
				RequestID     string `json:"request_id"`
			}
		}
		if err := unmarshal(got.body, &reply); err != nil {
			return err
		}
		e := reply.Error
		if got.status != c.status || e.Type != string(c.typ) || e.Message == "" || e.RequestID != got.header.Get("X-Request-Id") {
			return fmt.Errorf("%s %s: status %d, %s", c.method, c.path, got.status, got.body)
		}
	}
	return nil
}

// checkMetrics looks at the page before and after one request of each kind.
func (t *probe) checkMetrics() {
	if t.metricsOff {
		t.check(t.metricsPath+" is off, as /status says", func() error {
			got, err := t.get(t.metricsPath)
			if err == nil && got.status != http.StatusNotFound {
				err = fmt.Errorf("status %d", got.status)
			}
			return err
		})
		return
	}
	var before, after series
	t.check(t.metricsPath+" can be read", func() (err error) { before, err = t.scrape(); return err })
	if before == nil {
		return
	}
	t.check("every documented metric is there with its type and labels", before.documented)
	t.check(routerPath+" has what routers need", t.router)

	tokens, inferred := 0, false
	t.check("one inference is answered", func() (err error) { tokens, inferred, err = t.infer(); return err })
	_, _ = t.get("/health")
	t.check(t.metricsPath+" can be read again", func() (err error) { after, err = t.scrape(); return err })
	if after == nil {
		return
	}
	t.check("/health was counted", func() error {
		return atLeast(before, after, 1, "api_requests_total", "endpoint", "/health", "status", "success")
	})
	t.check("counters never fall", func() error { return before.notAbove(after) })
	if !inferred {
		fmt.Fprintln(t.out, "skip  numbers of the inference")
		return
	}
	t.check("the inference was counted everywhere", func() error { return counted(before, after, tokens) })
}

func (t *probe) router() error {
	got, err := t.get(routerPath)
	if err != nil {
		return err
	}
	for _, name := range []string{"llm_requests_waiting", "llm_requests_running", "llm_kv_cache_usage_ratio"} {
		if !strings.Contains(string(got.body), "\n"+name+" ") {
			return fmt.Errorf("no %s in %.300s", name, got.body)
		}
	}
	return nil
}

// infer makes one inference. Without a good key, or at its limit, it is left out, which is no failure.
func (t *probe) infer() (tokens int, done bool, err error) {
	body := map[string]any{"prompt": "What is the capital of France?", "max_new_tokens": 32}
	if t.model != "" {
		body["base_model"] = t.model
	}
	text, err := json.Marshal(body)
	if err != nil {
		return 0, false, fmt.Errorf("encode request: %w", err)
	}
	got, err := t.send("POST", "/infer", string(text), "Content-Type", "application/json", "Authorization", "Bearer "+t.key)
	if err != nil {
		return 0, false, err
	}
	switch got.status {
	case http.StatusUnauthorized:
		fmt.Fprintln(t.out, "      (no inference: give a good key with --key)")
		return 0, false, nil
	case http.StatusTooManyRequests:
		fmt.Fprintln(t.out, "      (no inference: the key is at its rate limit)")
		return 0, false, nil
	}
	if got.status != http.StatusOK {
		return 0, false, fmt.Errorf("status %d: %s", got.status, got.body)
	}
	var reply struct {
		Result   *string
		Metadata struct {
			Model, Version string
			Tokens         int      `json:"tokens_generated"`
			ResponseTime   *float64 `json:"response_time"`
			GenerationTime *float64 `json:"generation_time"`
		}
	}
	if err := unmarshal(got.body, &reply); err != nil {
		return 0, false, err
	}
	m := reply.Metadata
	if reply.Result == nil || m.Model == "" || m.Version == "" || m.Tokens < 1 || m.ResponseTime == nil || m.GenerationTime == nil || *m.ResponseTime < *m.GenerationTime {
		return 0, false, fmt.Errorf("reply %s", got.body)
	}
	fmt.Fprintf(t.out, "      %s %s: %q\n", m.Model, m.Version, *reply.Result)
	return m.Tokens, true, nil
}

// counted checks that one inference of some tokens arrived in every metric that is about it. Others may be using the server.
func counted(before, after series, tokens int) error {
	n := float64(tokens)
	return errors.Join(
		atLeast(before, after, 1, "api_requests_total", "endpoint", "/infer", "status", "success"),
		atLeast(before, after, 1, "api_response_time_seconds", "endpoint", "/infer"),
		atLeast(before, after, 1, "api_request_size_bytes", "endpoint", "/infer"),
		atLeast(before, after, 1, "api_response_size_bytes", "endpoint", "/infer"),
		atLeast(before, after, 1, "successful_inferences_total"),
		atLeast(before, after, n, "tokens_generated_total"),
		atLeast(before, after, n, "token_generation_time_seconds"),
		sameSums(after),
	)
}

// sameSums are sums that agree at any moment in which nothing is in flight.
func sameSums(s series) error {
	if s.sum("llm_requests_in_flight", "endpoint", "/infer") > 0 {
		return nil
	}
	answered, successful := s.sum("api_requests_total", "endpoint", "/infer", "status", "success"), s.sum("successful_inferences_total")
	if answered != successful {
		return fmt.Errorf("%v requests were answered, but %v inferences successful", answered, successful)
	}
	if tokens, times := s.sum("tokens_generated_total"), s.sum("token_generation_time_seconds"); tokens != times {
		return fmt.Errorf("%v tokens were generated, but %v timed", tokens, times)
	}
	return nil
}

func atLeast(before, after series, more float64, name string, labels ...string) error {
	was, is := before.sum(name, labels...), after.sum(name, labels...)
	if is-was < more {
		return fmt.Errorf("%s%v went from %v to %v, want at least %v more", name, labels, was, is, more)
	}
	return nil
}

// series is a metrics page.
type series map[string]*dto.MetricFamily

// documented checks the families of the owner's document.
func (s series) documented() error {
	var wrong []error
	for _, c := range catalogue.All() {
		if c.Group != catalogue.Documented {
			continue
		}
		f := s[c.Name]
		if f == nil {
			if c.Name != "model_memory_usage_bytes" { // has a series only while something is loaded
				wrong = append(wrong, fmt.Errorf("%s is missing", c.Name))
			}
			continue
		}
		if got := strings.ToLower(f.GetType().String()); got != c.Kind.String() {
			wrong = append(wrong, fmt.Errorf("%s is a %s, want a %s", c.Name, got, c.Kind))
		}
		if got, want := labelNames(f.GetMetric()[0]), slices.Sorted(slices.Values(c.LabelNames())); !slices.Equal(got, want) {
			wrong = append(wrong, fmt.Errorf("%s has labels %v, want %v", c.Name, got, want))
		}
	}
	return errors.Join(wrong...)
}

func labelNames(m *dto.Metric) []string {
	var names []string
	for _, l := range m.GetLabel() {
		names = append(names, l.GetName())
	}
	slices.Sort(names)
	return names
}

// sum adds the series of a family that have the labels: counters and gauges by value, histograms by number of observations.
func (s series) sum(name string, labels ...string) float64 {
	total := 0.0
	for _, m := range s[name].GetMetric() {
		if hasLabels(m, labels) {
			total += value(m)
		}
	}
	return total
}

func hasLabels(m *dto.Metric, labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == labels[i] && l.GetValue() == labels[i+1] }) {
			return false
		}
	}
	return true
}

func value(m *dto.Metric) float64 {
	if m.Histogram != nil {
		return float64(m.Histogram.GetSampleCount())
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// notAbove checks that no counter or histogram of the proxy is lower later. The engine's own start again with it.
func (s series) notAbove(later series) error {
	var wrong []error
	for name, f := range s {
		if f.GetType() == dto.MetricType_GAUGE || f.GetType() == dto.MetricType_UNTYPED || strings.HasPrefix(name, "llm_engine_") {
			continue
		}
		if was, is := s.sum(name), later.sum(name); is < was {
			wrong = append(wrong, fmt.Errorf("%s went from %v to %v", name, was, is))
		}
	}
	return errors.Join(wrong...)
}
