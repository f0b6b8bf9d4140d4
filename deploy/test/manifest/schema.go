package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	_ "github.com/kedacore/keda/v2/version" // the module has the schema of ScaledObject; nothing else of it is compiled
	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"
)

// definitions says where the schemas of custom resources are: those that an API server holds a resource against.
var definitions = map[string]struct{ module, file string }{
	"keda.sh/v1alpha1 ScaledObject":                {"github.com/kedacore/keda/v2", "config/crd/bases/keda.sh_scaledobjects.yaml"},
	"gateway.networking.k8s.io/v1 HTTPRoute":       {"sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"},
	"inference.networking.k8s.io/v1 InferencePool": {"sigs.k8s.io/gateway-api-inference-extension", "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml"},
}

var (
	compiled   = make(map[string]*jsonschema.Schema)
	compiledMu sync.Mutex
)

// validate holds a custom resource against its schema; other kinds have none.
func validate(h head, data []byte) error {
	name := h.APIVersion + " " + h.Kind
	if _, ok := definitions[name]; !ok {
		return nil
	}
	schema, err := schemaOf(name, h)
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("read for its schema: %w", err)
	}
	if err := schema.Validate(value); err != nil {
		return fmt.Errorf("hold against its schema: %w", err)
	}
	return nil
}

func schemaOf(name string, h head) (*jsonschema.Schema, error) {
	compiledMu.Lock()
	defer compiledMu.Unlock()
	if s := compiled[name]; s != nil {
		return s, nil
	}
	plain, err := readSchema(name, h)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", name, err)
	}
	closeObjects(plain)
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("crd.json", plain); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", name, err)
	}
	s, err := compiler.Compile("crd.json")
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", name, err)
	}
	compiled[name] = s
	return s, nil
}

// definition is what is read of a CustomResourceDefinition.
type definition struct {
	Spec struct {
		Versions []struct {
			Name   string
			Served bool
			Schema struct {
				OpenAPIV3Schema json.RawMessage `json:"openAPIV3Schema"`
			}
		}
	}
}

func readSchema(name string, h head) (any, error) {
	dir, err := moduleDir(definitions[name].module)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(definitions[name].file)))
	if err != nil {
		return nil, err
	}
	var d definition
	if err := yaml.Unmarshal(text, &d); err != nil {
		return nil, err
	}
	for _, v := range d.Spec.Versions {
		if v.Served && h.APIVersion == filepath.Join(filepath.Dir(h.APIVersion), v.Name) {
			return jsonschema.UnmarshalJSON(bytes.NewReader(v.Schema.OpenAPIV3Schema))
		}
	}
	return nil, fmt.Errorf("%s isn't served", h.APIVersion)
}

// closeObjects forbids fields that a schema doesn't name: an API server drops them, or refuses them where validation is strict.
func closeObjects(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		_, properties := s["properties"].(map[string]any)
		_, additional := s["additionalProperties"]
		if keep, _ := s["x-kubernetes-preserve-unknown-fields"].(bool); properties && !additional && !keep && s["type"] == "object" {
			s["additionalProperties"] = false
		}
		for _, child := range s {
			closeObjects(child)
		}
	case []any:
		for _, child := range s {
			closeObjects(child)
		}
	}
}
