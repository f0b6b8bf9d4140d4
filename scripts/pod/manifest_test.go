package pod

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"testing"

	"go.yaml.in/yaml/v3"
)

// object is a part of a manifest.
type object = map[string]any

// plan is how one pod differs from what the overlay says.
type plan struct {
	name     string
	port     int               // on the loopback, for the proxy's port http
	keys     string            // folder with keys.yaml, in place of the Secret
	settings map[string]string // variables for both containers
}

// overlay is what kustomize made of the two-container overlay.
func overlay(t *testing.T) []object {
	t.Helper()
	path := os.Getenv("POD_MANIFEST")
	if path == "" {
		t.Skip("POD_MANIFEST names no manifest; scripts/test-pod.sh makes one")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []object
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	for {
		var o object
		if err := decoder.Decode(&o); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, o)
	}
}

// podOf makes the manifest of one pod from the overlay: the pod of the Deployment, and the ConfigMaps. It changes what podman 4 can't do
// and what two pods on one machine can't share, and nothing else. It gives the containers with what was left out, for the tests to do.
func podOf(all []object, p plan) (containers []object, manifest []byte, err error) {
	var out []object
	var spec object
	for _, o := range all {
		switch o["kind"] {
		case "ConfigMap":
			out = append(out, o)
		case "Deployment":
			spec = at(o, "spec", "template", "spec")
			spec["restartPolicy"] = "Never" // the tests restart what they kill
			p.changeVolumes(spec)
			containers = p.changeContainers(spec)
			metadata := at(o, "spec", "template", "metadata")
			metadata["name"] = p.name
			out = append(out, object{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
		}
	}
	if spec == nil {
		return nil, nil, errors.New("the manifest has no Deployment")
	}
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	for _, o := range out {
		if err := encoder.Encode(o); err != nil {
			return nil, nil, fmt.Errorf("write the manifest of pod %s: %w", p.name, err)
		}
	}
	return containers, b.Bytes(), encoder.Close()
}

// changeVolumes gives every emptyDir a name of the pod's own, since podman makes a volume of that name and shares it between pods, and
// puts a folder in the place of the Secret, whose data podman 4.3 mounts without decoding it.
func (p plan) changeVolumes(spec object) {
	renamed := map[any]string{}
	for _, v := range list(spec, "volumes") {
		if _, ok := v["emptyDir"]; ok {
			renamed[v["name"]] = fmt.Sprint(p.name, "-", v["name"])
			v["name"] = renamed[v["name"]]
		}
		if _, ok := v["secret"]; ok {
			delete(v, "secret")
			v["hostPath"] = object{"path": p.keys, "type": "Directory"}
		}
	}
	for _, c := range list(spec, "containers") {
		for _, mount := range list(c, "volumeMounts") {
			if name, ok := renamed[mount["name"]]; ok {
				mount["name"] = name
			}
		}
	}
}

// changeContainers names the local images, publishes the port on the loopback, adds the settings, and leaves out the liveness probes,
// which would take the place of the images' health checks.
func (p plan) changeContainers(spec object) (whole []object) {
	for _, c := range list(spec, "containers") {
		whole = append(whole, maps.Clone(c))
		delete(c, "livenessProbe")
		c["image"] = fmt.Sprint("localhost/", c["image"])
		c["imagePullPolicy"] = "Never"
		for _, port := range list(c, "ports") {
			port["hostIP"], port["hostPort"] = "127.0.0.1", p.port
		}
		env, _ := c["env"].([]any)
		for name, value := range p.settings {
			env = append(env, object{"name": name, "value": value})
		}
		c["env"] = env
	}
	return whole
}

func at(o object, path ...string) object {
	for _, name := range path {
		o, _ = o[name].(object)
	}
	return o
}

func list(o object, name string) (objects []object) {
	all, _ := o[name].([]any)
	for _, one := range all {
		if o, ok := one.(object); ok {
			objects = append(objects, o)
		}
	}
	return objects
}
