package manifest

import (
	"bytes"
	stdjson "encoding/json"
	"errors"
	"fmt"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	pool "sigs.k8s.io/gateway-api-inference-extension/api/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Set is the resources of one kustomization.
type Set struct {
	Deployment *apps.Deployment
	Services   []*core.Service
	ConfigMaps []*core.ConfigMap
	Secrets    []*core.Secret
	Budget     *policy.PodDisruptionBudget
	Network    *networking.NetworkPolicy
	Scaler     *autoscaling.HorizontalPodAutoscaler
	Keda       *scaledObject
	Monitor    *monitoring.PodMonitor
	Pool       *pool.InferencePool
	Route      *gateway.HTTPRoute
}

// scaledObject is what the checks read of KEDA's ScaledObject, which is validated against KEDA's own schema. KEDA's Go
// types need a whole Kubernetes client, which takes longer to compile than everything else here together.
type scaledObject struct {
	Spec struct {
		ScaleTargetRef  struct{ Name string }
		MinReplicaCount int32
		MaxReplicaCount int32
		Fallback        struct{ Replicas int32 }
		Triggers        []struct {
			Type       string
			MetricType string
			Metadata   map[string]string
		}
	}
}

// typeMeta is the type and name of a document.
type typeMeta struct {
	APIVersion, Kind string
	Metadata         struct{ Name string }
}

// Decode decodes YAML documents. Unknown and repeated fields, wrong types and unknown kinds are errors, and so are
// values that a custom resource's schema forbids.
func Decode(text []byte) (*Set, error) {
	s := &Set{}
	var problems []error
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		data, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			problems = append(problems, fmt.Errorf("read YAML: %w", err))
			continue
		}
		var h typeMeta
		if err := stdjson.Unmarshal(data, &h); err != nil {
			problems = append(problems, fmt.Errorf("read kind: %w", err))
			continue
		}
		if err := s.add(h, data); err != nil {
			problems = append(problems, fmt.Errorf("%s %s: %w", h.Kind, h.Metadata.Name, err))
		}
	}
	if s.Deployment == nil {
		problems = append(problems, errors.New("there is no Deployment"))
	}
	return s, errors.Join(problems...)
}

func (s *Set) add(h typeMeta, data []byte) error {
	var into any
	switch h.APIVersion + " " + h.Kind {
	case "apps/v1 Deployment":
		into = newIfUnset(&s.Deployment)
	case "v1 Service":
		into = appendNew(&s.Services)
	case "v1 ConfigMap":
		into = appendNew(&s.ConfigMaps)
	case "v1 Secret":
		into = appendNew(&s.Secrets)
	case "policy/v1 PodDisruptionBudget":
		into = newIfUnset(&s.Budget)
	case "networking.k8s.io/v1 NetworkPolicy":
		into = newIfUnset(&s.Network)
	case "autoscaling/v2 HorizontalPodAutoscaler":
		into = newIfUnset(&s.Scaler)
	case "monitoring.coreos.com/v1 PodMonitor":
		into = newIfUnset(&s.Monitor)
	case "inference.networking.k8s.io/v1 InferencePool":
		into = newIfUnset(&s.Pool)
	case "gateway.networking.k8s.io/v1 HTTPRoute":
		into = newIfUnset(&s.Route)
	case "keda.sh/v1alpha1 ScaledObject":
		s.Keda = &scaledObject{}
		return errors.Join(validate(h, data), stdjson.Unmarshal(data, s.Keda))
	default:
		return fmt.Errorf("no type is known for %s", h.APIVersion)
	}
	if into == nil {
		return errors.New("there is another one")
	}
	strict, err := json.UnmarshalStrict(data, into)
	if err != nil {
		return err
	}
	return errors.Join(append(strict, validate(h, data))...)
}

// newIfUnset sets an empty field to a new value and returns that. It returns nil for a field that is set.
func newIfUnset[T any](field **T) any {
	if *field != nil {
		return nil
	}
	*field = new(T)
	return *field
}

// appendNew appends a new value to a list and returns it.
func appendNew[T any](list *[]*T) any {
	*list = append(*list, new(T))
	return (*list)[len(*list)-1]
}
