package manifest

import (
	"regexp"
	"slices"
	"strings"
	"time"

	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"tandem/deploy/test/docs"
)

func checkScalers(w *workload, f *findings) {
	s, k := w.set.Scaler, w.set.Keda
	if s == nil && k == nil {
		return
	}
	if s != nil && k != nil {
		f.add("two scalers would pull at one Deployment")
	}
	if w.set.Deployment.Spec.Replicas != nil {
		f.add("the Deployment has a number of replicas, to which each apply would set it back")
	}
	metrics, err := docs.Metrics()
	if err != nil {
		f.add("%v", err)
		return
	}
	if s != nil {
		w.checkScaler(s, metrics, f)
	}
	if k != nil {
		w.checkKeda(k, metrics, f)
	}
}

func (w *workload) checkScaler(s *autoscaling.HorizontalPodAutoscaler, metrics map[string][]string, f *findings) {
	d := w.set.Deployment
	if t := s.Spec.ScaleTargetRef; t.Kind != "Deployment" || t.APIVersion != d.APIVersion || t.Name != d.Name {
		f.add("the scaler's target %s %s isn't there", t.Kind, t.Name)
	}
	if s.Spec.MinReplicas == nil || *s.Spec.MinReplicas > s.Spec.MaxReplicas {
		f.add("the scaler has no range")
	}
	for _, m := range s.Spec.Metrics {
		if m.Type != autoscaling.PodsMetricSourceType || m.Pods == nil {
			f.add("the scaler has a metric of type %s", m.Type)
			continue
		}
		if labels, ok := metrics[m.Pods.Metric.Name]; !ok || len(labels) > 0 {
			f.add("the scaler reads %s, which isn't one series a pod", m.Pods.Metric.Name)
		}
		if t := m.Pods.Target; t.Type != autoscaling.AverageValueMetricType || t.AverageValue == nil || t.AverageValue.Value() > w.parallel() {
			f.add("the scaler waits for more of %s than PARALLEL=%d", m.Pods.Metric.Name, w.parallel())
		}
	}
}

var (
	metricName = regexp.MustCompile(`\b([a-z_0-9]+)\{`)
	jobMatcher = regexp.MustCompile(`\{job="([^"]*)"\}`)
)

func (w *workload) checkKeda(k *scaledObject, metrics map[string][]string, f *findings) {
	if k.Spec.ScaleTargetRef.Name != w.set.Deployment.Name {
		f.add("the scaler's target %s isn't there", k.Spec.ScaleTargetRef.Name)
	}
	if lo, hi, away := k.Spec.MinReplicaCount, k.Spec.MaxReplicaCount, k.Spec.Fallback.Replicas; lo < 1 || lo > hi || away < lo || away > hi {
		f.add("the scaler goes from %d to %d, and to %d without an answer", lo, hi, away)
	}
	for _, t := range k.Spec.Triggers {
		query := t.Metadata["query"]
		names := metricName.FindAllStringSubmatch(query, -1)
		if t.Type != "prometheus" || t.MetricType != "AverageValue" || len(names) == 0 {
			f.add("the scaler has a trigger that isn't a query for a value per replica")
		}
		for _, m := range names {
			if _, ok := metrics[m[1]]; !ok {
				f.add("the scaler reads %s, which isn't measured", m[1])
			}
		}
		for _, m := range jobMatcher.FindAllStringSubmatch(query, -1) {
			if m[1] != appName {
				f.add("the scaler reads job %s", m[1])
			}
		}
		if q, err := resource.ParseQuantity(t.Metadata["threshold"]); err != nil || q.Value() > w.parallel() {
			f.add("the scaler waits for more requests than PARALLEL=%d", w.parallel())
		}
		if t.Metadata["ignoreNullValues"] != "false" {
			f.add("the scaler takes a missing answer for an empty queue")
		}
	}
}

func checkMonitor(w *workload, f *findings) {
	m := w.set.Monitor
	if m == nil {
		return
	}
	if w.labels[m.Spec.JobLabel] != appName {
		f.add("the rules stand on job=%q, the PodMonitor gives the value of label %q", appName, m.Spec.JobLabel)
	}
	if m.Spec.ScrapeClassicHistograms == nil || !*m.Spec.ScrapeClassicHistograms {
		f.add("the PodMonitor may lose the classic buckets, on which the rules stand")
	}
	if len(m.Spec.PodMetricsEndpoints) != 1 {
		f.add("the PodMonitor has %d endpoints", len(m.Spec.PodMetricsEndpoints))
	}
	for _, e := range m.Spec.PodMetricsEndpoints {
		if e.Port == nil || port(w.proxy, *e.Port) == 0 {
			f.add("the PodMonitor names a port that isn't there")
		}
		if e.Path != w.value(w.proxy, "METRICS_PATH") {
			f.add("the PodMonitor asks %s, the metrics are at %s", e.Path, w.value(w.proxy, "METRICS_PATH"))
		}
		interval, err1 := time.ParseDuration(string(e.Interval))
		timeout, err2 := time.ParseDuration(string(e.ScrapeTimeout))
		if err1 != nil || err2 != nil || timeout > interval {
			f.add("the PodMonitor scrapes every %s for up to %s", e.Interval, e.ScrapeTimeout)
		}
	}
}

func checkNetwork(w *workload, f *findings) {
	n := w.set.Network
	if n == nil {
		return
	}
	if !slices.Contains(n.Spec.PolicyTypes, networking.PolicyTypeIngress) || !slices.Contains(n.Spec.PolicyTypes, networking.PolicyTypeEgress) {
		f.add("the NetworkPolicy leaves a direction open")
	}
	for _, in := range n.Spec.Ingress {
		if len(in.From) == 0 || len(in.Ports) == 0 {
			f.add("the NetworkPolicy lets everybody in")
		}
		for _, p := range in.Ports {
			if p.Port == nil {
				f.add("the NetworkPolicy opens every port")
				continue
			}
			f.target("the NetworkPolicy", w.proxy, *p.Port)
		}
	}
	for _, out := range n.Spec.Egress {
		if len(out.To) == 0 || len(out.Ports) == 0 {
			f.add("the NetworkPolicy lets everything out")
		}
	}
}

func checkPool(w *workload, f *findings) {
	p, r := w.set.Pool, w.set.Route
	if p == nil && r == nil {
		return
	}
	if p == nil || r == nil {
		f.add("a pool without a route, or the other way round")
		return
	}
	for _, t := range p.Spec.TargetPorts {
		if int32(t.Number) != port(w.proxy, "http") {
			f.add("the pool names port %d, which the proxy doesn't have", t.Number)
		}
	}
	for _, rule := range r.Spec.Rules {
		for _, b := range rule.BackendRefs {
			if b.Group == nil || b.Kind == nil || string(*b.Group)+" "+string(*b.Kind) != "inference.networking.k8s.io InferencePool" || string(b.Name) != p.Name {
				f.add("the route leads to %s, which isn't the pool", b.Name)
			}
		}
		if rule.Timeouts == nil || rule.Timeouts.Request == nil {
			f.add("the route has the gateway's timeout, which is short for a stream")
			continue
		}
		if t, err := time.ParseDuration(string(*rule.Timeouts.Request)); err != nil || t < w.duration(w.proxy, "REQUEST_TIMEOUT") {
			f.add("the route ends requests after %s, before REQUEST_TIMEOUT", *rule.Timeouts.Request)
		}
	}
	if !slices.ContainsFunc(w.set.ConfigMaps, func(c *core.ConfigMap) bool { return strings.HasPrefix(c.Name, string(p.Spec.EndpointPickerRef.Name)) }) {
		f.add("the picker %s has no configuration here", p.Spec.EndpointPickerRef.Name)
	}
}
