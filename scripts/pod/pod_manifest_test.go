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

// object is a YAML mapping of a manifest.
type object = map[string]any

// podConfig says how one pod differs from the overlay.
type podConfig struct {
	name        string
	port        int               // on the loopback interface, for the proxy's port http
	keys        string            // folder with keys.yaml, in place of the Secret
	settings    map[string]string // variables for both containers
	engineImage string            // empty: that of the overlay
}

// overlayManifests returns what kustomize built from the two-container overlay.
func overlayManifests(t *testing.T) []object {
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

// podManifest makes the manifest of one pod from the overlay: the pod of the Deployment, and the ConfigMaps. It changes
// only what podman 4 can't do and what two pods on one machine can't share. It also returns the containers as the
// overlay has them, since the tests do what is left out.
func podManifest(all []object, config podConfig) (containers []object, manifest []byte, err error) {
	var out []object
	var spec object
	for _, o := range all {
		switch o["kind"] {
		case "ConfigMap":
			out = append(out, o)
		case "Deployment":
			spec = field(o, "spec", "template", "spec")
			spec["restartPolicy"] = "Never" // the tests restart what they kill
			config.changeVolumes(spec)
			containers = config.changeContainers(spec)
			metadata := field(o, "spec", "template", "metadata")
			metadata["name"] = config.name
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
			return nil, nil, fmt.Errorf("write the manifest of pod %s: %w", config.name, err)
		}
	}
	return containers, b.Bytes(), encoder.Close()
}

// changeVolumes gives every emptyDir a name of its pod, since podman makes a volume of that name and shares it between
// pods, and replaces the Secret by a folder, since podman 4.3 mounts a Secret's data without decoding it.
func (config podConfig) changeVolumes(spec object) {
	renamed := map[any]string{}
	for _, v := range objectList(spec, "volumes") {
		if _, ok := v["emptyDir"]; ok {
			renamed[v["name"]] = fmt.Sprint(config.name, "-", v["name"])
			v["name"] = renamed[v["name"]]
		}
		if _, ok := v["secret"]; ok {
			delete(v, "secret")
			v["hostPath"] = object{"path": config.keys, "type": "Directory"}
		}
	}
	for _, c := range objectList(spec, "containers") {
		for _, mount := range objectList(c, "volumeMounts") {
			if name, ok := renamed[mount["name"]]; ok {
				mount["name"] = name
			}
		}
	}
}

// changeContainers sets the local images, publishes the port on the loopback interface, adds the settings, and leaves
// out the liveness probes, which would replace the images' health checks. It returns the containers as they were.
func (config podConfig) changeContainers(spec object) (unchanged []object) {
	for _, c := range objectList(spec, "containers") {
		unchanged = append(unchanged, maps.Clone(c))
		delete(c, "livenessProbe")
		c["image"] = fmt.Sprint("localhost/", c["image"])
		if c["name"] == engineName && config.engineImage != "" {
			c["image"] = config.engineImage
		}
		c["imagePullPolicy"] = "Never"
		for _, port := range objectList(c, "ports") {
			port["hostIP"], port["hostPort"] = "127.0.0.1", config.port
		}
		env, _ := c["env"].([]any)
		for name, value := range config.settings {
			env = append(env, object{"name": name, "value": value})
		}
		c["env"] = env
	}
	return unchanged
}

func field(o object, path ...string) object {
	for _, name := range path {
		o, _ = o[name].(object)
	}
	return o
}

func objectList(o object, name string) (objects []object) {
	all, _ := o[name].([]any)
	for _, one := range all {
		if o, ok := one.(object); ok {
			objects = append(objects, o)
		}
	}
	return objects
}
