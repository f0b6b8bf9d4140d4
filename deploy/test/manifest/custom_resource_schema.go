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

// crdFiles says where the CustomResourceDefinitions are, against whose schemas an API server validates resources.
var crdFiles = map[string]struct{ module, file string }{
	"keda.sh/v1alpha1 ScaledObject":                {"github.com/kedacore/keda/v2", "config/crd/bases/keda.sh_scaledobjects.yaml"},
	"gateway.networking.k8s.io/v1 HTTPRoute":       {"sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"},
	"inference.networking.k8s.io/v1 InferencePool": {"sigs.k8s.io/gateway-api-inference-extension", "config/crd/bases/inference.networking.k8s.io_inferencepools.yaml"},
}

var (
	compiledSchemas = make(map[string]*jsonschema.Schema)
	compiledMu      sync.Mutex
)

// validate validates a custom resource against its schema; other kinds have none.
func validate(h typeMeta, data []byte) error {
	name := h.APIVersion + " " + h.Kind
	if _, ok := crdFiles[name]; !ok {
		return nil
	}
	schema, err := compiledSchema(name, h)
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

func compiledSchema(name string, h typeMeta) (*jsonschema.Schema, error) {
	compiledMu.Lock()
	defer compiledMu.Unlock()
	if s := compiledSchemas[name]; s != nil {
		return s, nil
	}
	plain, err := readSchema(name, h)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", name, err)
	}
	forbidUnknownFields(plain)
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("crd.json", plain); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", name, err)
	}
	s, err := compiler.Compile("crd.json")
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", name, err)
	}
	compiledSchemas[name] = s
	return s, nil
}

// customResourceDefinition is what is read of one.
type customResourceDefinition struct {
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

func readSchema(name string, h typeMeta) (any, error) {
	dir, err := moduleDir(crdFiles[name].module)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(crdFiles[name].file)))
	if err != nil {
		return nil, err
	}
	var d customResourceDefinition
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

// forbidUnknownFields forbids fields that a schema doesn't name: an API server drops them, or refuses them where
// validation is strict.
func forbidUnknownFields(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		_, properties := s["properties"].(map[string]any)
		_, additional := s["additionalProperties"]
		if keep, _ := s["x-kubernetes-preserve-unknown-fields"].(bool); properties && !additional && !keep && s["type"] == "object" {
			s["additionalProperties"] = false
		}
		for _, child := range s {
			forbidUnknownFields(child)
		}
	case []any:
		for _, child := range s {
			forbidUnknownFields(child)
		}
	}
}
