package manifest

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"tandem/deploy/test/docs"
)

// Documented names.
const (
	appName    = "llm-inference"
	proxyName  = "inference-server"
	engineName = "engine"
	keysSecret = "llm-inference-api-keys"
	keysFile   = "keys.yaml"
	configFile = "config.yaml"
)

// workload is the pod and the settings of its programs.
type workload struct {
	set           *Set
	pod           *core.PodSpec
	labels        map[string]string
	proxy, engine *core.Container
	sidecar       bool // the proxy is a sidecar
	settings      map[string]docs.Setting
	config        map[string]string // of the configuration file, by variable
}

// findings collects what is wrong with the manifests.
type findings []string

func (f *findings) add(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// newWorkload finds the parts of the pod. It returns an error when one is missing: nothing else can be checked then.
func newWorkload(s *Set) (*workload, error) {
	settings, err := docs.Settings()
	if err != nil {
		return nil, err
	}
	w := &workload{set: s, pod: &s.Deployment.Spec.Template.Spec, labels: s.Deployment.Spec.Template.Labels, settings: settings}
	for c := range w.containers() {
		switch c.Name {
		case proxyName:
			w.proxy = c
		case engineName:
			w.engine = c
		}
	}
	if w.proxy == nil || w.engine == nil {
		return nil, fmt.Errorf("the pod has no container %s or none called %s", proxyName, engineName)
	}
	w.sidecar = slices.ContainsFunc(w.pod.InitContainers, func(c core.Container) bool { return c.Name == proxyName })
	if w.config, err = w.readConfig(); err != nil {
		return nil, err
	}
	return w, nil
}

// containers yields all containers of the pod, in the order in which they start.
func (w *workload) containers() func(func(*core.Container) bool) {
	return func(yield func(*core.Container) bool) {
		for _, list := range [][]core.Container{w.pod.InitContainers, w.pod.Containers} {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}

// readConfig returns the settings in the configuration file, which is the one that CONFIG_FILE of the proxy names.
func (w *workload) readConfig() (map[string]string, error) {
	text, err := w.configText()
	if err != nil {
		return nil, err
	}
	var tree map[string]map[string]any
	if err := yaml.UnmarshalStrict([]byte(text), &tree); err != nil {
		return nil, fmt.Errorf("read %s: %w", configFile, err)
	}
	byKey := make(map[string]string)
	for _, s := range w.settings {
		byKey[s.Key] = s.Env
	}
	config := make(map[string]string)
	for section, keys := range tree {
		for key, value := range keys {
			env := byKey[section+"."+key]
			if env == "" {
				return nil, fmt.Errorf("%s has the key %s.%s, which docs/settings.md doesn't know", configFile, section, key)
			}
			config[env] = fmt.Sprint(value)
		}
	}
	return config, nil
}

// configText follows CONFIG_FILE through mount, volume and ConfigMap.
func (w *workload) configText() (string, error) {
	file := env(w.proxy, "CONFIG_FILE")
	m := mountOf(w.proxy, file)
	if m == nil {
		return "", fmt.Errorf("CONFIG_FILE=%s of the proxy is on no volume", file)
	}
	v := w.volume(m.Name)
	if v == nil || v.ConfigMap == nil {
		return "", fmt.Errorf("CONFIG_FILE=%s is on the volume %s, which is no ConfigMap", file, m.Name)
	}
	for _, c := range w.set.ConfigMaps {
		if c.Name == v.ConfigMap.Name {
			if text, ok := c.Data[path.Base(file)]; ok {
				return text, nil
			}
			return "", fmt.Errorf("ConfigMap %s has no key %s", c.Name, path.Base(file))
		}
	}
	return "", fmt.Errorf("ConfigMap %s, which the volume %s names, isn't there", v.ConfigMap.Name, m.Name)
}

func (w *workload) volume(name string) *core.Volume {
	for i := range w.pod.Volumes {
		if w.pod.Volumes[i].Name == name {
			return &w.pod.Volumes[i]
		}
	}
	return nil
}

// value is the value of a setting in a container, as its program determines it.
func (w *workload) value(c *core.Container, name string) string {
	if v := env(c, name); v != "" {
		return v
	}
	if v, ok := w.config[name]; ok {
		return v
	}
	return w.settings[name].Default
}

func (w *workload) duration(c *core.Container, name string) time.Duration {
	d, _ := time.ParseDuration(w.value(c, name)) // the programs check their settings, and TestPod runs them
	return d
}

func env(c *core.Container, name string) string {
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// mountOf returns the innermost mount that contains a path.
func mountOf(c *core.Container, file string) *core.VolumeMount {
	var best *core.VolumeMount
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		if inside := file == m.MountPath || strings.HasPrefix(file, m.MountPath+"/"); inside && (best == nil || len(m.MountPath) > len(best.MountPath)) {
			best = m
		}
	}
	return best
}

// port returns the number of a container's port by its name, or 0.
func port(c *core.Container, name string) int32 {
	for _, p := range c.Ports {
		if p.Name == name {
			return p.ContainerPort
		}
	}
	return 0
}
