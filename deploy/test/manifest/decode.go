package manifest

import (
	"bytes"
	loose "encoding/json"
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

// Set is what one kustomization gives.
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

// scaledObject is what the checks read of KEDA's kind. It is validated against KEDA's own schema; its Go types need a whole Kubernetes
// client, which takes longer to compile than everything else here together.
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

// head names what a document is.
type head struct {
	APIVersion, Kind string
	Metadata         struct{ Name string }
}

// Decode reads documents. Unknown and repeated fields, wrong types and unknown kinds are errors, as are values that a custom resource's
// schema forbids.
func Decode(text []byte) (*Set, error) {
	s := &Set{}
	var problems []error
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		data, err := yaml.YAMLToJSONStrict(document)
		if err != nil {
			problems = append(problems, fmt.Errorf("read YAML: %w", err))
			continue
		}
		var h head
		if err := loose.Unmarshal(data, &h); err != nil {
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

func (s *Set) add(h head, data []byte) error {
	var into any
	switch h.APIVersion + " " + h.Kind {
	case "apps/v1 Deployment":
		into = once(&s.Deployment)
	case "v1 Service":
		into = another(&s.Services)
	case "v1 ConfigMap":
		into = another(&s.ConfigMaps)
	case "v1 Secret":
		into = another(&s.Secrets)
	case "policy/v1 PodDisruptionBudget":
		into = once(&s.Budget)
	case "networking.k8s.io/v1 NetworkPolicy":
		into = once(&s.Network)
	case "autoscaling/v2 HorizontalPodAutoscaler":
		into = once(&s.Scaler)
	case "monitoring.coreos.com/v1 PodMonitor":
		into = once(&s.Monitor)
	case "inference.networking.k8s.io/v1 InferencePool":
		into = once(&s.Pool)
	case "gateway.networking.k8s.io/v1 HTTPRoute":
		into = once(&s.Route)
	case "keda.sh/v1alpha1 ScaledObject":
		s.Keda = &scaledObject{}
		return errors.Join(validate(h, data), loose.Unmarshal(data, s.Keda))
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

// once gives a new value for a field that must be empty, or nil.
func once[T any](field **T) any {
	if *field != nil {
		return nil
	}
	*field = new(T)
	return *field
}

func another[T any](list *[]*T) any {
	*list = append(*list, new(T))
	return (*list)[len(*list)-1]
}
