package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// nodeAddress is where processes of the node are reached by pods and the apiserver.
const nodeAddress = "10.250.0.1"

// TestAutoscaler puts components/hpa over a running Deployment as docs/deploy.md says, and asks more of it than its
// replicas should have. The metrics come from the pods, by a server in place of prometheus-adapter.
func TestAutoscaler(t *testing.T) {
	const within = 4 * time.Minute
	v := variant{replicas: 3, engine: map[string]string{"STEP_DELAY": "200ms"}}
	d := deploy(t, "scaling", v)
	serveCustomMetrics(t)
	d.takeReplicasOutOfTheRecord(t)
	v.replicas, v.components = 0, []string{"hpa"}
	d.apply(t, v)
	if n := d.replicas(t); n != 3 {
		t.Errorf("the apply that adds the autoscaler sets %d replicas, want the three that run", n)
	}
	eventually(t, "the autoscaler has its metrics", startTimeout, func() error {
		const condition = `{.status.conditions[?(@.type=="ScalingActive")].status}`
		state, err := kubectl(t.Context(), "", "-n", d.namespace, "get", "hpa", "llm-inference", "-o", "jsonpath="+condition)
		if err == nil && state != "True" {
			err = fmt.Errorf("ScalingActive is %q", state)
		}
		return err
	})
	load := d.startLoad(t, storyRequest, 0, 96) // 24 is what a replica should have
	took := eventually(t, "the autoscaler adds replicas", within, func() error {
		if n := d.replicas(t); n <= 3 {
			return fmt.Errorf("%d replicas", n)
		}
		return nil
	})
	replicas := d.replicas(t)
	d.rolledOut(t)
	s := load.end()
	if s.failures() > 0 || s.answered == 0 {
		t.Errorf("clients while the Deployment grows: %v", s)
	}
	record("components/hpa over a running Deployment of three, 96 clients", fmt.Sprintf("stays at three, more within %v, no failed request", within),
		"%d replicas after %.0f s; %v", replicas, took.Seconds(), s)
}

func (d *deployment) replicas(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(d.kubectl(t, "get", "deployment", "llm-inference", "-o", "jsonpath={.spec.replicas}"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// takeReplicasOutOfTheRecord runs the documented commands in the deployment's namespace.
func (d *deployment) takeReplicasOutOfTheRecord(t *testing.T) {
	t.Helper()
	commands := strings.ReplaceAll(documentedCommands(t, "So take the number out of kubectl's record"), "-n llm ", "-n "+d.namespace+" ")
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "bash", "-c", "set -euo pipefail\n"+commands).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", commands, err, out)
	}
}

const metricsGroup = "custom.metrics.k8s.io"

// serveCustomMetrics serves the custom metrics API of the cluster until the test ends.
func serveCustomMetrics(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", nodeAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(metricsAPI())
	server.Listener.Close()
	server.Listener = l
	server.StartTLS()
	t.Cleanup(server.Close)
	port := l.Addr().(*net.TCPAddr).Port
	mustKubectl(t, "create", "namespace", "custom-metrics")
	t.Cleanup(func() {
		mustKubectl(t, "delete", "apiservice", "v1beta1."+metricsGroup)
		mustKubectl(t, "delete", "namespace", "custom-metrics", "--wait=false")
	})
	mustKubectlWith(t, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: adapter, namespace: custom-metrics}
spec: {ports: [{port: 443, targetPort: %[2]d}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: adapter-1, namespace: custom-metrics, labels: {kubernetes.io/service-name: adapter}}
addressType: IPv4
ports: [{port: %[2]d, protocol: TCP}]
endpoints: [{addresses: [%[1]s], conditions: {ready: true}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.custom.metrics.k8s.io}
spec:
  group: custom.metrics.k8s.io
  version: v1beta1
  service: {name: adapter, namespace: custom-metrics}
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
`, nodeAddress, port), "apply", "-f", "-")
	mustKubectl(t, "wait", "--for", "condition=Available", "apiservice/v1beta1."+metricsGroup, "--timeout", startTimeout.String())
}

// metricsAPI answers what a metric of the pods with some labels is, as prometheus-adapter would with the rule of
// docs/deploy.md: each pod's sum over the series of that name.
func metricsAPI() http.Handler {
	type object = map[string]any
	reply := func(w http.ResponseWriter, status int, o object) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(o) // the apiserver is gone then
	}
	version := metricsGroup + "/v1beta1"
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apis/"+version, func(w http.ResponseWriter, _ *http.Request) {
		var resources []object
		for _, metric := range []string{"llm_requests_running", "llm_requests_waiting"} {
			resources = append(resources, object{
				"name": "pods/" + metric, "singularName": "", "namespaced": true, "kind": "MetricValueList", "verbs": []string{"get"},
			})
		}
		reply(w, http.StatusOK, object{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources})
	})
	mux.HandleFunc("GET /apis/"+version+"/namespaces/{namespace}/pods/{name}/{metric}", func(w http.ResponseWriter, r *http.Request) {
		values, err := podMetrics(r.Context(), r.PathValue("namespace"), r.FormValue("labelSelector"), r.PathValue("metric"))
		if err != nil {
			reply(w, http.StatusInternalServerError, object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": err.Error()})
			return
		}
		items := []object{}
		for name, value := range values {
			items = append(items, object{
				"describedObject": object{"kind": "Pod", "apiVersion": "/v1", "namespace": r.PathValue("namespace"), "name": name},
				"metricName":      r.PathValue("metric"), "timestamp": time.Now().UTC().Format(time.RFC3339), "value": fmt.Sprintf("%.0fm", 1000*value),
			})
		}
		reply(w, http.StatusOK, object{"kind": "MetricValueList", "apiVersion": version, "metadata": object{}, "items": items})
	})
	return mux
}

// podMetrics are the values of a metric by the names of the pods that have it.
func podMetrics(ctx context.Context, namespace, selector, metric string) (map[string]float64, error) {
	out, err := kubectl(ctx, "", "-n", namespace, "get", "pods", "-l", selector, "-o", "json")
	if err != nil {
		return nil, err
	}
	var list struct{ Items []pod }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, err
	}
	values := map[string]float64{}
	for _, p := range list.Items {
		// As with Prometheus, a pod that doesn't answer has none.
		if value, err := scrape(ctx, p.Status.PodIP, metric, ""); err == nil {
			values[p.Metadata.Name] = value
		}
	}
	return values, nil
}

// scrape sums the series of a metric that have a label; an empty one all have.
func scrape(ctx context.Context, address, metric, label string) (sum float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+":8000/prometheus", nil)
	if err != nil {
		return 0, err
	}
	response, err := newClient(false).Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	found := false
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if name, labels, _ := strings.Cut(series, "{"); name != metric || !strings.Contains(labels, label) {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", lines.Text(), err)
		}
		sum, found = sum+n, true
	}
	if !found {
		return 0, fmt.Errorf("%s has no metric %s: %w", address, metric, lines.Err())
	}
	return sum, lines.Err()
}
