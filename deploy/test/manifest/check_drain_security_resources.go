package manifest

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"tandem/deploy/test/docs"
)

// shutdownAfterDrain is what both programs take at most after DRAIN_TIMEOUT: the engine's supervisor starts a second
// late and gives its engine five to close, then the proxy takes one for its last answers and two for its last spans.
const shutdownAfterDrain = 9 * time.Second

func checkGrace(w *workload, f *findings) {
	var grace time.Duration
	if s := w.pod.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	for _, c := range []*core.Container{w.proxy, w.engine} {
		if need := w.duration(c, "DRAIN_DELAY") + w.duration(c, "DRAIN_TIMEOUT") + shutdownAfterDrain; grace < need {
			f.add("the pod is killed after %v, while %s may need %v to drain", grace, c.Name, need)
		}
	}
	if p, e := w.value(w.proxy, "DRAIN_DELAY"), w.value(w.engine, "DRAIN_DELAY"); p != e {
		f.add("DRAIN_DELAY is %s for the proxy and %s for the engine, which must outlast it", p, e)
	}
	if w.duration(w.proxy, "DRAIN_DELAY") < 5*time.Second {
		f.add("DRAIN_DELAY leaves load balancers no time to notice that a pod goes")
	}
	stop := func(c *core.Container) []string {
		if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Exec == nil {
			return nil
		}
		return c.Lifecycle.PreStop.Exec.Command
	}
	if got := strings.Join(stop(w.proxy), " "); got != "/usr/local/bin/tandem-proxy drain" {
		f.add("the preStop hook of the proxy is %q; a sidecar would hear of its end only when the engine is gone", got)
	}
	if w.engine.Lifecycle != nil {
		f.add("the engine has a hook; its supervisor waits for itself")
	}
}

// checkSecurity checks the Pod Security Standard "restricted", and a read-only root.
func checkSecurity(w *workload, f *findings) {
	s := w.pod.SecurityContext
	switch {
	case s == nil:
		f.add("the pod has no security context")
		return
	case s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0:
		f.add("the pod may run as root")
	case s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault:
		f.add("the pod has no seccomp profile")
	case s.FSGroup == nil || s.RunAsGroup == nil || *s.FSGroup != *s.RunAsGroup:
		f.add("the pod's volumes don't belong to its group")
	}
	if w.pod.HostNetwork || w.pod.HostPID || w.pod.HostIPC {
		f.add("the pod shares namespaces with its host")
	}
	if t := w.pod.AutomountServiceAccountToken; t == nil || *t {
		f.add("the pod has a token for the API server, which nothing here needs")
	}
	for _, v := range w.pod.Volumes {
		if v.HostPath != nil {
			f.add("volume %s is a directory of the host", v.Name)
		}
	}
	for c := range w.containers() {
		sc := c.SecurityContext
		switch {
		case sc == nil || sc.AllowPrivilegeEscalation == nil || *sc.AllowPrivilegeEscalation:
			f.add("%s may gain privileges", c.Name)
		case sc.ReadOnlyRootFilesystem == nil || !*sc.ReadOnlyRootFilesystem:
			f.add("%s may write to its root", c.Name)
		case sc.Capabilities == nil || len(sc.Capabilities.Drop) != 1 || sc.Capabilities.Drop[0] != "ALL" || len(sc.Capabilities.Add) > 0:
			f.add("%s keeps capabilities", c.Name)
		case sc.Privileged != nil || sc.RunAsUser != nil || sc.RunAsNonRoot != nil || sc.SeccompProfile != nil:
			f.add("%s departs from the pod's security context", c.Name)
		}
	}
}

func checkResources(w *workload, f *findings) {
	for c := range w.containers() {
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			f.add("%s has no memory limit, or requests nothing", c.Name)
		}
		for name, request := range c.Resources.Requests {
			if limit, ok := c.Resources.Limits[name]; ok && request.Cmp(limit) > 0 {
				f.add("%s requests more %s than its limit", c.Name, name)
			}
		}
	}
	// The engine's threads are the whole cores of the limit; without a limit, all cores of the node.
	if cpu := w.engine.Resources.Limits.Cpu(); cpu.IsZero() || cpu.MilliValue()%1000 != 0 {
		f.add("the engine's CPU limit is no whole number of cores")
	}
	limit := env(w.proxy, "GOMEMLIMIT")
	bytes, err := resource.ParseQuantity(strings.TrimSuffix(limit, "B")) // MiB is Mi here
	if err != nil || bytes.Cmp(*w.proxy.Resources.Limits.Memory()) >= 0 {
		f.add("GOMEMLIMIT=%s isn't below the proxy's memory limit", limit)
	}
	mayHold := int64(0)
	for _, name := range []string{"QUEUE_MAX_BYTES", "JOURNAL_MAX_BYTES"} {
		q, err := resource.ParseQuantity(strings.TrimSuffix(w.value(w.proxy, name), "B"))
		if err != nil {
			f.add("%s: %v", name, err)
		}
		mayHold += q.Value()
	}
	if mayHold >= bytes.Value() {
		f.add("queue and journal may hold %d bytes, more than GOMEMLIMIT=%s", mayHold, limit)
	}
}

var versionLine = regexp.MustCompile(`(?m)^VERSION \?= (\S+)$`)

func checkImages(w *workload, f *findings) {
	text, err := docs.Read("Makefile")
	if err != nil {
		f.add("%v", err)
		return
	}
	m := versionLine.FindStringSubmatch(text)
	if m == nil {
		f.add("the Makefile names no version")
		return
	}
	kind := "cpu"
	if gpus := w.engine.Resources.Limits["nvidia.com/gpu"]; !gpus.IsZero() {
		kind = "cuda"
	}
	if device := w.value(w.engine, "DEVICE"); (device == "cuda") != (kind == "cuda") {
		f.add("an engine of the kind %s has DEVICE=%s", kind, device)
	}
	if want := "llm-inference:" + m[1]; w.proxy.Image != want {
		f.add("the proxy's image is %s, not %s", w.proxy.Image, want)
	}
	if want := fmt.Sprintf("llm-inference-engine:%s-%s", m[1], kind); w.engine.Image != want {
		f.add("the engine's image is %s, not %s", w.engine.Image, want)
	}
	page, err := docs.Read("docs/deploy.md")
	if err != nil {
		f.add("%v", err)
		return
	}
	for c := range w.containers() {
		if !strings.Contains(page, c.Image) {
			f.add("docs/deploy.md doesn't name the image %s", c.Image)
		}
	}
}

func checkBudget(w *workload, f *findings) {
	b := w.set.Budget
	if b == nil || b.Spec.MaxUnavailable == nil || b.Spec.MinAvailable != nil {
		f.add("no budget says how many pods may be away")
		return
	}
	if n := b.Spec.MaxUnavailable.IntValue(); n != 1 {
		f.add("%d pods may be away", n)
	}
	if kind := w.set.Deployment.Spec.Strategy.Type; kind != apps.RollingUpdateDeploymentStrategyType {
		f.add("the strategy's type is %q: the server fills it in, and each apply would report a change", kind)
	}
	if u := w.set.Deployment.Spec.Strategy.RollingUpdate; u == nil || u.MaxUnavailable == nil || u.MaxUnavailable.IntValue() != 1 {
		f.add("a roll-out takes more than one pod away at a time, or none")
	}
}

// parallel is how many requests an engine runs at once.
func (w *workload) parallel() int64 {
	n, _ := strconv.ParseInt(w.value(w.engine, "PARALLEL"), 10, 64) // the program checks it
	return n
}
