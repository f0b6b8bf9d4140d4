package manifest

import (
	"path"
	"regexp"
	"slices"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Check returns everything that is wrong with a set.
func Check(s *Set) []string {
	w, err := newWorkload(s)
	if err != nil {
		return []string{err.Error()}
	}
	var f findings
	for _, check := range []func(*workload, *findings){
		checkNames, checkOrder, checkSelectors, checkServices, checkProbes, checkVolumes, checkPaths, checkKeys, checkSettings, checkGrace,
		checkSecurity, checkResources, checkImages, checkBudget, checkScalers, checkMonitor, checkNetwork, checkPool, checkPicker,
	} {
		check(w, &f)
	}
	return f
}

func checkNames(w *workload, f *findings) {
	d := w.set.Deployment
	if d.Name != appName || d.Labels["app"] != appName || w.labels["app"] != appName {
		f.add("Deployment %s and its pods must be called and labelled app: %s", d.Name, appName)
	}
	if scaled := w.set.Scaler != nil || w.set.Keda != nil; !scaled && (d.Spec.Replicas == nil || *d.Spec.Replicas < 1) {
		f.add("without a scaler nothing says how many replicas there are")
	}
	if got := port(w.proxy, "http"); got != 8000 {
		f.add("the documented port of %s is 8000, not %d", proxyName, got)
	}
}

// checkOrder checks that a sidecar proxy is the first init container and always restarts, or it would have to end
// before the others start, and that a plain proxy has no restart policy.
func checkOrder(w *workload, f *findings) {
	if !w.sidecar {
		if w.proxy.RestartPolicy != nil {
			f.add("%s is a plain container with a restart policy", proxyName)
		}
		return
	}
	if first := w.pod.InitContainers[0]; first.Name != proxyName {
		f.add("init container %s goes before the proxy", first.Name)
	}
	if r := w.proxy.RestartPolicy; r == nil || *r != core.ContainerRestartPolicyAlways {
		f.add("%s is an init container that has to end, not a sidecar", proxyName)
	}
}

func checkSelectors(w *workload, f *findings) {
	match := func(what string, selector map[string]string) {
		if len(selector) == 0 {
			f.add("the selector of %s takes every pod", what)
		}
		for k, v := range selector {
			if w.labels[k] != v {
				f.add("%s selects %s: %s, which the pods don't have", what, k, v)
			}
		}
	}
	labels := func(what string, s *meta.LabelSelector) {
		if s == nil || len(s.MatchExpressions) > 0 {
			f.add("%s has no selector by labels alone", what)
			return
		}
		match(what, s.MatchLabels)
	}
	labels("the Deployment", w.set.Deployment.Spec.Selector)
	for _, s := range w.set.Services {
		match("Service "+s.Name, s.Spec.Selector)
	}
	for _, c := range w.pod.TopologySpreadConstraints {
		labels("a spread constraint", c.LabelSelector)
	}
	if b := w.set.Budget; b != nil {
		labels("the PodDisruptionBudget", b.Spec.Selector)
	}
	if n := w.set.Network; n != nil {
		labels("the NetworkPolicy", &n.Spec.PodSelector)
	}
	if m := w.set.Monitor; m != nil {
		labels("the PodMonitor", &m.Spec.Selector)
	}
	if p := w.set.Pool; p != nil {
		selector := make(map[string]string)
		for k, v := range p.Spec.Selector.MatchLabels {
			selector[string(k)] = string(v)
		}
		match("the InferencePool", selector)
	}
}

func checkServices(w *workload, f *findings) {
	headless := map[string]bool{appName: false, appName + "-headless": true}
	for _, s := range w.set.Services {
		want, known := headless[s.Name]
		if !known || want != (s.Spec.ClusterIP == core.ClusterIPNone) {
			f.add("Service %s is unknown, or headless when it shouldn't be, or the other way round", s.Name)
		}
		delete(headless, s.Name)
		for _, p := range s.Spec.Ports {
			if p.Port != 8000 {
				f.add("Service %s has port %d, not 8000", s.Name, p.Port)
			}
			if p.TargetPort.Type != intstr.Int {
				f.add("Service %s names its port, which not every tool finds in a sidecar", s.Name)
			}
			f.target("Service "+s.Name, w.proxy, p.TargetPort)
		}
	}
	for name := range headless {
		f.add("there is no Service %s", name)
	}
}

// target checks that a port, by name or number, is one of the container's.
func (f *findings) target(what string, c *core.Container, p intstr.IntOrString) {
	switch {
	case p.Type == intstr.String && port(c, p.StrVal) == 0:
		f.add("%s names port %s, which %s doesn't have", what, p.StrVal, c.Name)
	case p.Type == intstr.Int && !slices.ContainsFunc(c.Ports, func(x core.ContainerPort) bool { return x.ContainerPort == p.IntVal }):
		f.add("%s names port %d, which %s doesn't have", what, p.IntVal, c.Name)
	}
}

func checkProbes(w *workload, f *findings) {
	for what, p := range map[string]*core.Probe{"startup": w.proxy.StartupProbe, "liveness": w.proxy.LivenessProbe, "readiness": w.proxy.ReadinessProbe} {
		if p == nil || p.HTTPGet == nil {
			f.add("the proxy has no %s probe over HTTP", what)
			continue
		}
		f.target("the "+what+" probe", w.proxy, p.HTTPGet.Port)
		want := "/livez" // passes without an engine
		if what == "readiness" {
			want = "/readyz"
		}
		if p.HTTPGet.Path != want {
			f.add("the %s probe of the proxy asks %s, not %s", what, p.HTTPGet.Path, want)
		}
	}
	for flag, p := range map[string]*core.Probe{"--started": w.engine.StartupProbe, "--live": w.engine.LivenessProbe} {
		if p == nil || p.Exec == nil || !slices.Equal(p.Exec.Command, []string{"/usr/local/bin/tandem-engine", "healthcheck", flag}) {
			f.add("the engine has no probe healthcheck %s", flag)
			continue
		}
	}
	if p := w.engine.LivenessProbe; p != nil && p.PeriodSeconds < 10 {
		f.add("the liveness probe of the engine starts a process every %d s", p.PeriodSeconds)
	}
	for c, most := range map[*core.Container]time.Duration{w.proxy: 10 * time.Second, w.engine: 5 * time.Second} {
		if p := c.LivenessProbe; p != nil && (p.TerminationGracePeriodSeconds == nil || time.Duration(*p.TerminationGracePeriodSeconds)*time.Second > most) {
			f.add("a hung %s is given more than %v to end, in which it does nothing", c.Name, most)
		}
	}
	if p := w.engine.StartupProbe; p != nil {
		if p.PeriodSeconds != 1 {
			f.add("a pod whose engine is there again stays unready for up to %d s", p.PeriodSeconds)
		}
		if budget, load := time.Duration(p.PeriodSeconds*p.FailureThreshold)*time.Second, w.duration(w.engine, "MODEL_LOAD_WAIT"); budget < load {
			f.add("the engine is killed after %v, while a load may take MODEL_LOAD_WAIT=%v", budget, load)
		}
	}
	if p := w.engine.ReadinessProbe; p != nil {
		f.add("the engine has a readiness probe; the proxy's says more")
	}
}

// checkVolumes checks that every mounted volume exists and every volume is mounted.
func checkVolumes(w *workload, f *findings) {
	used := make(map[string]bool)
	for c := range w.containers() {
		mountedAt := make(map[string]bool)
		for _, m := range c.VolumeMounts {
			if w.volume(m.Name) == nil {
				f.add("%s mounts volume %s, which isn't there", c.Name, m.Name)
			}
			if mountedAt[m.MountPath] {
				f.add("%s mounts two volumes at %s", c.Name, m.MountPath)
			}
			used[m.Name], mountedAt[m.MountPath] = true, true
		}
	}
	for _, v := range w.pod.Volumes {
		if !used[v.Name] {
			f.add("volume %s is mounted nowhere", v.Name)
		}
	}
}

// checkPaths checks that every path that a program reads or writes is on a volume, since the root is read-only and
// empty.
func checkPaths(w *workload, f *findings) {
	for _, want := range []struct {
		c     *core.Container
		name  string
		write bool
	}{
		{w.proxy, "CONFIG_FILE", false}, {w.engine, "CONFIG_FILE", false}, {w.proxy, "ENGINE_SOCKET", true}, {w.engine, "ENGINE_SOCKET", true},
		{w.engine, "MODELS_DIR", false}, {w.engine, "CACHE_DIR", true}, {w.proxy, "API_KEYS_FILE", false},
	} {
		file := w.value(want.c, want.name)
		m := mountOf(want.c, file)
		if file == "" || m == nil {
			f.add("%s=%q of %s is on no volume", want.name, file, want.c.Name)
			continue
		}
		if want.write && m.ReadOnly {
			f.add("%s=%s of %s is on a read-only mount", want.name, file, want.c.Name)
		}
		if want.name == "CONFIG_FILE" && !m.ReadOnly {
			f.add("%s could write to its configuration", want.c.Name)
		}
	}
	if m := mountOf(w.engine, "/tmp"); m == nil || m.ReadOnly {
		f.add("the engine has no /tmp for its heartbeat")
	}
	p, e := w.value(w.proxy, "ENGINE_SOCKET"), w.value(w.engine, "ENGINE_SOCKET")
	pm, em := mountOf(w.proxy, p), mountOf(w.engine, e)
	if p != e || pm == nil || em == nil || pm.Name != em.Name || w.volume(pm.Name) == nil || w.volume(pm.Name).EmptyDir == nil {
		f.add("proxy and engine don't meet: ENGINE_SOCKET is %s and %s", p, e)
	}
}

// checkKeys checks that the keys come from the Secret that docs/deploy.md creates, and from nowhere else.
func checkKeys(w *workload, f *findings) {
	if len(w.set.Secrets) > 0 {
		f.add("there is a Secret: everybody would have the same keys")
	}
	if w.value(w.proxy, "AUTH_DISABLED") != "false" || w.value(w.proxy, "API_KEYS") != "" {
		f.add("the server would be open, or its keys written in a manifest")
	}
	file := w.value(w.proxy, "API_KEYS_FILE")
	m := mountOf(w.proxy, file)
	if m == nil {
		return // checkPaths reports it
	}
	v := w.volume(m.Name)
	if v == nil || v.Secret == nil || v.Secret.SecretName != keysSecret || path.Base(file) != keysFile {
		f.add("API_KEYS_FILE=%s isn't the key %s of Secret %s", file, keysFile, keysSecret)
		return
	}
	if v.Secret.Optional != nil && *v.Secret.Optional {
		f.add("the Secret is optional")
	}
	if mode := v.Secret.DefaultMode; mode == nil || *mode&0o007 != 0 || *mode&0o040 == 0 {
		f.add("the mode of the key file must let the group read, and nobody else")
	}
	for c := range w.containers() {
		if c.Name != proxyName && slices.ContainsFunc(c.VolumeMounts, func(x core.VolumeMount) bool { return x.Name == m.Name }) {
			f.add("%s can read the API keys", c.Name)
		}
	}
}

// externalVariables matches variables that libraries and Go's runtime read.
var externalVariables = regexp.MustCompile(`^(GOMEMLIMIT|TMPDIR|CUDA_CACHE_PATH|NVIDIA_[A-Z_]+|OMP_[A-Z_]+)$`)

func checkSettings(w *workload, f *findings) {
	for c, uses := range map[*core.Container]func(string) bool{
		w.proxy:  func(name string) bool { return w.settings[name].Proxy },
		w.engine: func(name string) bool { return w.settings[name].Engine },
	} {
		for _, e := range c.Env {
			if !uses(e.Name) && !externalVariables.MatchString(e.Name) {
				f.add("%s is given %s, which it doesn't know", c.Name, e.Name)
			}
		}
	}
	for c, command := range map[*core.Container]string{w.proxy: "serve", w.engine: "supervise"} {
		if len(c.Command) > 0 || !slices.Equal(c.Args, []string{command}) {
			f.add("%s runs %s %s, not %s", c.Name, c.Command, c.Args, command)
		}
	}
	if w.value(w.proxy, "METRICS_ADDR") != "" {
		f.add("METRICS_ADDR is set: the manifests scrape the main port")
	}
}
