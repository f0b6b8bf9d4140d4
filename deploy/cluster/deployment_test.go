package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"
	"time"
)

const (
	proxyName  = "inference-server"
	engineName = "engine"
	apiKey     = "cluster-key"

	// startTimeout is for pods of the demo model to become ready, on a machine that others use, too.
	startTimeout = 3 * time.Minute
)

// variant is what a test changes of the base: little processor time requested, so that several pods fit on one node,
// and steps that are slow enough for answers to be under way when something happens.
type variant struct {
	replicas      int // 0: as the base and its components have it
	components    []string
	twoContainers bool
	proxy, engine map[string]string // settings of the containers
	patches       []string          // more of them, of the Deployment
}

// deployment is a variant in a namespace of its own.
type deployment struct {
	namespace string
	folder    string // of its kustomization
	url       string // of the Service
}

// deploy applies a variant, and waits until all of its pods are ready. The namespace goes with the test.
func deploy(t *testing.T, namespace string, v variant) *deployment {
	t.Helper()
	onCluster(t)
	d := newDeployment(t, namespace)
	d.apply(t, v)
	d.rolledOut(t)
	d.url = "http://" + d.kubectl(t, "get", "service", "llm-inference", "-o", "jsonpath={.spec.clusterIP}") + ":8000"
	eventually(t, "the Service leads to a pod", time.Minute, func() error { return wantStatus(d.url+"/readyz", 200) })
	return d
}

// newDeployment makes a namespace with the Secret that the pods need.
func newDeployment(t *testing.T, namespace string) *deployment {
	t.Helper()
	d := &deployment{namespace: namespace, folder: t.TempDir()}
	mustKubectl(t, "create", "namespace", namespace)
	t.Cleanup(func() { d.remove(t) })
	d.setKey(t, apiKey)
	return d
}

// remove ends its pods without their drain.
func (d *deployment) remove(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if t.Failed() {
		d.keepLogs(ctx, t)
	}
	for _, args := range [][]string{
		{"delete", "deployments,replicasets", "--all", "-n", d.namespace, "--cascade=orphan"},
		{"delete", "pods", "--all", "-n", d.namespace, "--grace-period", "0", "--force"},
		{"delete", "namespace", d.namespace, "--wait=false"},
	} {
		if _, err := kubectl(ctx, "", args...); err != nil {
			t.Logf("remove %s: %v", d.namespace, err) // nothing else is in it
		}
	}
}

// keepLogs writes what a failed test left into a file, since it is a lot.
func (d *deployment) keepLogs(ctx context.Context, t *testing.T) {
	file, err := os.Create(filepath.Join(os.Getenv("CLUSTER"), "run", "log", d.namespace+".txt"))
	if err != nil {
		t.Error(err)
		return
	}
	defer file.Close()
	for _, args := range [][]string{
		{"get", "pods,endpointslices", "-o", "wide"},
		{"get", "events", "--sort-by", ".lastTimestamp"},
		{"logs", "-l", "app=llm-inference", "--all-containers", "--prefix", "--tail", "500"},
	} {
		out, err := kubectl(ctx, "", append([]string{"-n", d.namespace}, args...)...)
		fmt.Fprintf(file, "kubectl %s: %v\n%s\n", strings.Join(args, " "), err, out)
	}
	t.Logf("pods, events and logs of %s: %s", d.namespace, file.Name())
}

// setKey makes or replaces the Secret with the key file.
func (d *deployment) setKey(t *testing.T, key string) {
	t.Helper()
	mustKubectlWith(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "llm-inference-api-keys", "namespace": %q},
		"stringData": {"keys.yaml": "keys: [{name: test, sha256: %x}]"}}`, d.namespace, sha256.Sum256([]byte(key))), "apply", "-f", "-")
}

var kustomization = template.Must(template.New("").Parse(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {{.Namespace}}
resources: [{{.Manifests}}/base]
components:
{{- range .Components}}
  - {{$.Manifests}}/components/{{.}}
{{- end}}
{{- if .Replicas}}
replicas: [{name: llm-inference, count: {{.Replicas}}}]
{{- end}}
patches:
  - patch: |-
      apiVersion: apps/v1
      kind: Deployment
      metadata: {name: llm-inference}
      spec:
        template:
          spec:
            {{if .TwoContainers}}containers:{{else}}initContainers:{{end}}
              - name: inference-server
                resources: {requests: {cpu: 50m, memory: 32Mi}}
                {{with .Proxy}}env:{{range .}}
                  - {{.}}{{end}}{{end}}
            {{- if not .TwoContainers}}
            containers:{{end}}
              - name: engine
                resources: {requests: {cpu: 100m, memory: 64Mi}}
                {{with .Engine}}env:{{range .}}
                  - {{.}}{{end}}{{end}}
{{- range .Patches}}
  - target: {kind: Deployment, name: llm-inference}
    patch: '{{.}}'
{{- end}}
`))

// apply writes the kustomization of a variant and applies it.
func (d *deployment) apply(t *testing.T, v variant) {
	t.Helper()
	// A kustomization names folders relative to its own.
	manifests, err := filepath.Abs("../kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	if manifests, err = filepath.Rel(d.folder, manifests); err != nil {
		t.Fatal(err)
	}
	values := map[string]any{
		"Namespace": d.namespace, "Manifests": manifests, "Components": v.components, "Replicas": v.replicas, "TwoContainers": v.twoContainers,
		"Proxy": variables(v.proxy, map[string]string{"RATE_LIMIT": "off"}), "Engine": variables(v.engine, nil), "Patches": v.patches,
	}
	if v.twoContainers {
		values["Components"] = append(slices.Clone(v.components), "two-containers")
	}
	var file bytes.Buffer
	if err := kustomization.Execute(&file, values); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.folder, "kustomization.yaml"), file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	mustKubectl(t, "apply", "-k", d.folder)
}

// variables are environment variables as a manifest has them. CONFIG_FILE is there already, and stays.
func variables(settings ...map[string]string) (lines []string) {
	all := map[string]string{}
	for _, one := range settings {
		maps.Copy(all, one)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		lines = append(lines, fmt.Sprintf("{name: %s, value: %q}", name, all[name]))
	}
	return lines
}

// rolledOut waits until every pod is the newest and ready.
func (d *deployment) rolledOut(t *testing.T) {
	t.Helper()
	d.kubectl(t, "rollout", "status", "deployment/llm-inference", "--timeout", startTimeout.String())
}
