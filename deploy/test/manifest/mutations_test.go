package manifest

import (
	"strings"
	"testing"
)

// mutations break one thing each in a rendered kustomization. Each must be found, so that no check is one that can't
// fail.
var mutations = []struct{ overlay, old, new, want string }{
	// strict decoding
	{"cpu", "periodSeconds: 1\n", "periodSecond: 1\n", `unknown field "spec.template.spec.containers[0].startupProbe.periodSecond"`},
	{"cpu", "containerPort: 8000", "containerPort: '8000'", "cannot unmarshal string"},
	{"cpu", "  replicas: 1\n", "  replicas: 1\n  replicas: 1\n", `"replicas" already set`},
	{"cpu", "kind: PodDisruptionBudget", "kind: PodDisruptionBudgets", "no type is known"},
	{"cpu", "clusterIP: None", "clusterIp: None", `unknown field "spec.clusterIp"`},
	{"prometheus-operator", "scrapeTimeout: 5s", "scrapeTimeOut: 5s", "unknown field"},
	{"keda", "pollingInterval: 15", "pollInterval: 15", "additional properties 'pollInterval' not allowed"},
	{"keda", "maxReplicaCount: 12", "maxReplicaCount: twelve", "got string, want integer"},
	{"inference-extension", "failureMode: FailOpen", "failureMode: FailWide", "value must be one of"},
	{"inference-extension", "request: 300s", "request: 300 s", "does not match pattern"},
	{"inference-extension", "number: 9002", "number: 90020", "maximum: got 90,020"},

	// names and order
	{"cpu", "replicas: 1", "replicas: 0", "how many replicas"},
	{"gpu", "  replicas: 3\n", "", "how many replicas"},
	{"cpu", "containerPort: 8000", "containerPort: 8001", "documented port"},
	{"cpu", "name: inference-server\n", "name: proxy\n", "no container inference-server"},
	{"cpu", "restartPolicy: Always", "restartPolicy: Never", "not a sidecar"},
	{"copied models", "- args:\n        - serve", "- command: [\"true\"]\n        image: llm-models:1.0.0\n        name: early\n      - args:\n        - serve", "goes before the proxy"},
	{"two-containers", "name: inference-server\n", "name: inference-server\n        restartPolicy: Always\n", "plain container with a restart policy"},

	// selectors, ports, probes
	{"cpu", "matchLabels:\n      app: llm-inference\n  strategy", "matchLabels:\n      app: llm\n  strategy", "the Deployment selects app: llm,"},
	{"cpu", "labelSelector:\n          matchLabels:\n            app: llm-inference", "labelSelector:\n          matchLabels:\n            app: llm", "spread constraint selects"},
	{"cpu", "selector:\n    app: llm-inference", "selector:\n    app: llm", "Service llm-inference selects"},
	{"cpu", "targetPort: 8000", "targetPort: web", "names port web"},
	{"cpu", "targetPort: 8000", "targetPort: http", "Service llm-inference names its port"},
	{"cpu", "targetPort: 8000", "targetPort: 8001", "names port 8001"},
	{"cpu", "port: 8000\n    targetPort", "port: 80\n    targetPort", "has port 80, not 8000"},
	{"cpu", "clusterIP: None", "clusterIP: 10.0.0.1", "headless when it shouldn't be"},
	{"cpu", "name: llm-inference-headless", "name: llm-inference-pods", "no Service llm-inference-headless"},
	{"cpu", "path: /livez\n            port: http\n          periodSeconds: 1\n", "path: /readyz\n            port: http\n          periodSeconds: 1\n", "startup probe of the proxy asks /readyz"},
	{"cpu", "path: /readyz", "path: /ready", "readiness probe of the proxy asks /ready,"},
	{"cpu", "path: /livez\n            port: http", "path: /livez\n            port: web", "probe names port web"},
	{"cpu", "- --started", "- --start", "no probe healthcheck --started"},
	{"cpu", "periodSeconds: 20", "periodSeconds: 2", "starts a process every 2 s"},
	{"cpu", "failureThreshold: 1200\n          periodSeconds: 1\n", "failureThreshold: 120\n          periodSeconds: 10\n", "stays unready for up to 10 s"},
	{"cpu", "failureThreshold: 1200", "failureThreshold: 120", "MODEL_LOAD_WAIT"},
	{"cpu", "periodSeconds: 20\n          terminationGracePeriodSeconds: 5\n", "periodSeconds: 20\n", "a hung engine is given more than 5s"},
	{"cpu", "periodSeconds: 20\n          terminationGracePeriodSeconds: 5\n", "periodSeconds: 20\n          terminationGracePeriodSeconds: 150\n", "a hung engine is given more than 5s"},
	{"cpu", "periodSeconds: 10\n          terminationGracePeriodSeconds: 10\n", "periodSeconds: 10\n", "a hung inference-server is given more than 10s"},

	// volumes, paths, keys
	{"cpu", "mountPath: /tmp\n          name: tmp", "mountPath: /tmp\n          name: temp", "mounts volume temp, which isn't there"},
	{"cpu", "mountPath: /tmp\n          name: tmp", "mountPath: /temp\n          name: tmp", "CACHE_DIR=\"/tmp/cache\" of engine is on no volume"},
	{"cpu", "mountPath: /tmp\n          name: tmp", "mountPath: /tmp\n          name: tmp\n          readOnly: true", "no /tmp for its heartbeat"},
	{"cpu", "mountPath: /models", "mountPath: /tmp", "two volumes at /tmp"},
	{"cpu", "      volumes:\n", "      volumes:\n      - emptyDir: {}\n        name: spare\n", "volume spare is mounted nowhere"},
	{"cpu", "socket: /run/tandem/engine.sock", "socket: /run/engine.sock", "ENGINE_SOCKET=\"/run/engine.sock\" of inference-server is on no volume"},
	{"cpu", "- mountPath: /run/tandem\n          name: socket\n        - mountPath: /etc/tandem\n          name: config\n          readOnly: true\n        - mountPath: /models", "- mountPath: /run/tandem\n          name: tmp\n        - mountPath: /etc/tandem\n          name: config\n          readOnly: true\n        - mountPath: /models", "don't meet"},
	{"cpu", "mountPath: /etc/tandem\n          name: config\n          readOnly: true", "mountPath: /etc/tandem\n          name: config", "could write to its configuration"},
	{"cpu", "secretName: llm-inference-api-keys", "secretName: llm-keys", "isn't the key keys.yaml of Secret llm-inference-api-keys"},
	{"cpu", "api_keys_file: /etc/tandem-keys/keys.yaml", "api_keys_file: /etc/tandem-keys/keys", "isn't the key keys.yaml"},
	{"cpu", "secretName: llm-inference-api-keys", "secretName: llm-inference-api-keys\n          optional: true", "the Secret is optional"},
	{"cpu", "defaultMode: 288", "defaultMode: 292", "nobody else"},
	{"cpu", "- mountPath: /models", "- mountPath: /keys\n          name: api-keys\n        - mountPath: /models", "engine can read the API keys"},
	{"cpu", "    security:\n", "    security:\n      auth_disabled: true\n", "the server would be open"},
	{"cpu", "apiVersion: v1\ndata:\n  config.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\n---\napiVersion: v1\ndata:\n  config.yaml", "there is a Secret"},

	// settings, grace
	{"cpu", "drain_delay: 5s", "drain_delays: 5s", "server.drain_delays, which docs/settings.md doesn't know"},
	{"cpu", "name: CONFIG_FILE\n          value: /etc/tandem/config.yaml\n        - name: GOMEMLIMIT", "name: CONFIG\n          value: /etc/tandem/config.yaml\n        - name: GOMEMLIMIT", "CONFIG_FILE= of the proxy is on no volume"},
	{"cpu", "name: llm-inference-config-", "name: llm-inference-settings-", "which the volume config names, isn't there"},
	{"cpu", "  config.yaml: |", "  config.yml: |", "has no key config.yaml"},
	{"cpu", "- name: GOMEMLIMIT", "- name: GOMEMLIMITS", "GOMEMLIMITS, which it doesn't know"},
	{"cpu", "- supervise", "- serve", "not supervise"},
	{"cpu", "      drain_timeout: 120s", "      drain_timeout: 140s", "may need 2m34s to drain"},
	{"cpu", "terminationGracePeriodSeconds: 150", "terminationGracePeriodSeconds: 130", "killed after 2m10s"},
	{"cpu", "drain_delay: 5s", "drain_delay: 1s", "no time to notice"},
	{"cpu", "image: llm-inference-engine", "lifecycle: {preStop: {sleep: {seconds: 5}}}\n        image: llm-inference-engine", "its supervisor waits for itself"},
	{"cpu", "- drain\n", "- drains\n", "preStop hook of the proxy"},
	{"cpu", "name: CONFIG_FILE\n          value: /etc/tandem/config.yaml\n        image: llm-inference-engine", "name: CONFIG_FILE\n          value: /etc/tandem/config.yaml\n        - name: DRAIN_DELAY\n          value: 0s\n        image: llm-inference-engine", "DRAIN_DELAY is 5s for the proxy and 0s"},
	{"cpu", "    server:\n", "    monitoring: {metrics_addr: ':9000'}\n    server:\n", "METRICS_ADDR is set"},

	// security, resources, images
	{"cpu", "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"},
	{"cpu", "runAsUser: 10001", "runAsUser: 0", "may run as root"},
	{"cpu", "type: RuntimeDefault", "type: Unconfined", "no seccomp profile"},
	{"cpu", "fsGroup: 10001", "fsGroup: 10002", "don't belong to its group"},
	{"cpu", "automountServiceAccountToken: false", "automountServiceAccountToken: true", "has a token"},
	{"cpu", "automountServiceAccountToken: false", "automountServiceAccountToken: false\n      hostNetwork: true", "shares namespaces"},
	{"cpu", "- emptyDir: {}\n", "- hostPath: {path: /srv}\n", "directory of the host"},
	{"cpu", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "may gain privileges"},
	{"cpu", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "may write to its root"},
	{"cpu", "- ALL", "- NET_RAW", "keeps capabilities"},
	{"cpu", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: true\n          privileged: true", "departs from"},
	{"cpu", "memory: 2Gi", "nvidia.com/gpu: 0", "no memory limit"},
	{"cpu", "memory: 64Mi", "memory: 4Gi", "requests more memory"},
	{"cpu", "cpu: \"2\"", "cpu: 1500m", "no whole number"},
	{"cpu", "value: 900MiB", "value: 1100MiB", "isn't below"},
	{"cpu", "value: 900MiB", "value: 300MiB", "queue and journal"},
	{"cpu", "image: llm-inference:1.0.0", "image: llm-inference:latest", "proxy's image"},
	{"gpu", "1.0.0-cuda", "1.0.0-cpu", "engine's image"},
	{"gpu", "        - name: DEVICE\n          value: cuda\n", "", "DEVICE=auto"},
	{"cpu", "memory: 2Gi", "memory: 2Gi\n            nvidia.com/gpu: 1", "not llm-inference-engine:1.0.0-cuda"},
	{"copied models", "image: llm-models:1.0.0", "image: llm-weights:1.0.0", "doesn't name the image llm-weights"},

	// budget, scalers
	{"cpu", "maxUnavailable: 1\n  selector", "maxUnavailable: 3\n  selector", "3 pods may be away"},
	{"cpu", "    type: RollingUpdate\n", "", "each apply would report a change"},
	{"cpu", "maxUnavailable: 1\n  selector", "minAvailable: 1\n  selector", "no budget"},
	{"keda", "  selector:\n    matchLabels:\n      app: llm-inference\n  strategy", "  replicas: 3\n  selector:\n    matchLabels:\n      app: llm-inference\n  strategy", "each apply would set it back"},
	{"keda", "scaleTargetRef:\n    name: llm-inference", "scaleTargetRef:\n    name: llm", "target llm isn't there"},
	{"keda", "minReplicaCount: 3", "minReplicaCount: 0", "goes from 0"},
	{"keda", "sum(llm_requests_waiting{", "sum(llm_requests_queued{", "llm_requests_queued, which isn't measured"},
	{"keda", `sum(llm_requests_waiting{job="llm-inference"})`, `sum(llm_requests_waiting{job="llm"})`, "reads job llm"},
	{"keda", `threshold: "24"`, `threshold: "64"`, "more requests than PARALLEL=32"},
	{"keda", `ignoreNullValues: "false"`, `ignoreNullValues: "true"`, "missing answer"},
	{"keda", "metricType: AverageValue", "metricType: Value", "value per replica"},
	{"keda", "apiVersion: keda.sh/v1alpha1", "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\n---\napiVersion: keda.sh/v1alpha1", "two scalers"},
	{"hpa", "name: llm_requests_running", "name: llm_requests_run", "llm_requests_run, which isn't one series"},
	{"hpa", "name: llm_requests_running", "name: api_requests_total", "isn't one series"},
	{"hpa", `averageValue: "24"`, `averageValue: "240"`, "PARALLEL=32"},
	{"hpa", "kind: Deployment\n    name", "kind: StatefulSet\n    name", "target StatefulSet"},
	{"hpa", "minReplicas: 3", "minReplicas: 30", "no range"},

	// monitor, network, pool, picker
	{"prometheus-operator", "jobLabel: app", "jobLabel: job", "the PodMonitor gives the value of label"},
	{"prometheus-operator", "scrapeClassicHistograms: true", "scrapeClassicHistograms: false", "classic buckets"},
	{"prometheus-operator", "port: http\n    scrapeTimeout", "port: web\n    scrapeTimeout", "PodMonitor names a port"},
	{"prometheus-operator", "path: /prometheus", "path: /metrics", "PodMonitor asks /metrics"},
	{"prometheus-operator", "scrapeTimeout: 5s", "scrapeTimeout: 50s", "for up to 50s"},
	{"cpu", "- port: 8000\n      protocol: TCP", "- port: 8080\n      protocol: TCP", "NetworkPolicy names port 8080"},
	{"cpu", "- Egress\n", "", "leaves a direction open"},
	{"cpu", "- port: 8000\n      protocol: TCP", "- protocol: TCP", "opens every port"},
	{"inference-extension", "targetPorts:\n  - number: 8000", "targetPorts:\n  - number: 8001", "pool names port 8001"},
	{"inference-extension", "selector:\n    matchLabels:\n      app: llm-inference\n  targetPorts", "selector:\n    matchLabels:\n      app: llm\n  targetPorts", "InferencePool selects"},
	{"inference-extension", "kind: InferencePool\n      name: llm-inference", "kind: InferencePool\n      name: llm", "leads to llm,"},
	{"inference-extension", "request: 300s", "request: 30s", "before REQUEST_TIMEOUT"},
	{"inference-extension", "name: llm-inference-epp\n    port", "name: epp\n    port", "the picker epp has no configuration"},
	{"inference-extension", "path: /metrics/router", "path: /metrics", "the picker asks http /metrics"},
	{"inference-extension", "queuedRequestsSpec: llm_requests_waiting", "queuedRequestsSpec: llm_requests_in_flight", "isn't on /metrics/router"},
	{"inference-extension", "queuedRequestsSpec:", "queueRequestsSpec:", "unknown field"},
	{"inference-extension", "cacheBlockSizeLabelName: block_size", "cacheBlockSizeLabelName: size", `label "size"`},
	{"inference-extension", "pluginRef: queue-scorer", "pluginRef: queue-score", "queue-score, which it doesn't declare"},
	{"inference-extension", "llm-d.ai/engine-type: llm-inference", "llm-d.ai/engine-type: vllm", "knows no engine of the type"},
	{"inference-extension", "k8s.io/engine-type: llm-inference", "k8s.io/engine-type: vllm", "knows no engine of the type"},
	{"inference-extension", "apiVersion: llm-d.ai/v1alpha1", "apiVersion: llm-d.ai/v1", "version llm-d.ai/v1"},
}

func TestEveryCheckCanFail(t *testing.T) {
	all := render(t)
	for _, m := range mutations {
		text := all[m.overlay]
		if m.want == "" {
			t.Errorf("%s with %q expects nothing", m.overlay, m.new)
		}
		if !strings.Contains(text, m.old) {
			t.Errorf("%s has no %q to break", m.overlay, m.old)
			continue
		}
		found := problems(strings.Replace(text, m.old, m.new, 1))
		if !strings.Contains(strings.Join(found, "\n"), m.want) {
			t.Errorf("%s with %q instead of %q: %q, want %q", m.overlay, m.new, m.old, found, m.want)
		}
	}
}
