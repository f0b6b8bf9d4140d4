package openapi

import (
	"fmt"
	"slices"

	"tandem/proxy/api"
)

// Inference is the endpoint as one of those that ask for inference.
func (e Endpoint) Inference() Endpoint {
	e.Method, e.Key = "post", true
	e.Parameters, e.ErrorTypes = InferenceParameters(), InferenceErrors()
	return e
}

// Call is the endpoint as one that asks a model for something without inference: it needs a key and counts against no
// limit.
func (e Endpoint) Call() Endpoint {
	e.Method, e.Key = "post", true
	e.Parameters = CommonParameters()
	e.ErrorTypes = slices.DeleteFunc(InferenceErrors(), func(t api.Type) bool {
		return t == api.TypeRateLimited || t == api.TypeUpgradeRequired || t == api.TypeQuarantined
	})
	return e
}

// JSONReply is one kind of reply.
func JSONReply(doc string, s *Schema) []Reply {
	return []Reply{{Status: 200, Doc: doc, Content: []Content{{Type: "application/json", Schema: s}}}}
}

// ModelNames is the form of a name of a model with its version. What is longer can't be the name of one.
func ModelNames() *Schema {
	return Matching(fmt.Sprintf(`^[^:]{0,%d}(:[\s\S]{0,%d})?$`, api.MaxNameBytes, api.MaxNameBytes))
}

// ToolNames is the form of a function's name.
func ToolNames() *Schema { return Matching(fmt.Sprintf("^[A-Za-z0-9_.-]{1,%d}$", api.MaxToolName)) }

// InferenceParameters are the request headers that every endpoint for inference takes.
func InferenceParameters() []Parameter {
	return append(CommonParameters(),
		Parameter{Name: "X-Request-Timeout", In: "header", Schema: Matching(`^([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?(ms|s|m|h))+)$`),
			Description: "Seconds, such as 2.5, or a duration such as 1m30s, within which the answer has to be complete. The smaller of it and REQUEST_TIMEOUT counts."},
		Parameter{Name: "X-Domain", In: "header", Description: "Label of the business metrics, if it is one of monitoring.domains.", Schema: Text(0, api.MaxDomainBytes)},
		Parameter{Name: "traceparent", In: "header", Description: "Trace and span of the caller (W3C).", Schema: Text(0, 0)},
	)
}

// CommonParameters are the request headers that every endpoint takes.
func CommonParameters() []Parameter {
	return []Parameter{{Name: "X-Request-Id", In: "header", Description: "An id for the request, which logs and the reply have, too.", Schema: Matching("^[A-Za-z0-9._-]{1,64}$")}}
}

// InferenceHeaders are the reply headers of a successful inference, besides the request id.
func InferenceHeaders() []string {
	return append([]string{"X-Model-Revision", "traceresponse"}, RateLimitHeaders...)
}

// EventStream is the media type of streams.
const EventStream = "text/event-stream"

// WholeOrStream are the two forms of an inference's reply.
func WholeOrStream(whole *Schema, events *Events) []Content {
	stream := &Schema{Type: types{"string"}, Description: "Server-sent events, with \"stream\": true. x-events says what their data is. Lines that begin with : are comments."}
	return []Content{{Type: "application/json", Schema: whole}, {Type: EventStream, Schema: stream, Events: events}}
}

// StopStrings is the form of api.StopStrings.
func StopStrings() *Schema {
	one := Text(1, api.MaxStopBytes)
	return AnyOf(one, List(one, 0, api.MaxStops))
}

// Unsupported is a field that is there only so that what asks for something can be refused: besides the values given,
// it may be null, false, or empty.
func Unsupported(harmless ...any) *Schema {
	return &Schema{Enum: append([]any{nil, false, []string{}, map[string]string{}}, harmless...)}
}

// Absent is a field that is there only so that it can be refused: it may be null or false.
func Absent() *Schema { return &Schema{Enum: []any{nil, false}} }
