package api

import (
	"maps"
	"net/http"
	"slices"
)

// StatusLabel is a value of the label status of api_requests_total.
type StatusLabel string

// The closed set of status labels.
const (
	LabelSuccess     StatusLabel = "success"
	LabelError       StatusLabel = "error"
	LabelClientError StatusLabel = "client_error"
	LabelRateLimited StatusLabel = "rate_limited"
	LabelCancelled   StatusLabel = "cancelled"
)

// Values of the labels model and version that no model can have (see ValidModelName).
const (
	NameNone    = "none"    // answered before the engine accepted, or no model applies
	NameUnknown = "unknown" // the client asked for what isn't installed
	NameOther   = "other"
)

// StatusClientClosed is the status logged for a client that disconnected; it is never sent.
const StatusClientClosed = 499

// Outcome is the HTTP status of an error type and how it is counted in the metrics. A request is counted once: under
// Rejected when it is refused before the engine accepted it, under Failed after that. An empty value is not counted
// there.
type Outcome struct {
	Status   int         // HTTP
	Label    StatusLabel // api_requests_total{status}
	Rejected string      // llm_requests_rejected_total{reason}
	Failed   string      // failed_inferences_total{error_type}
}

// outcomes is the only place where error types, statuses, labels and metrics meet.
var outcomes = map[Type]Outcome{
	TypeInvalidRequest:    {http.StatusBadRequest, LabelClientError, "invalid_request", "internal"},
	TypeContextExceeded:   {http.StatusBadRequest, LabelClientError, "context_length_exceeded", "context_length_exceeded"},
	TypeGrammarTooComplex: {http.StatusBadRequest, LabelClientError, "invalid_request", "grammar_too_complex"},
	TypeUnauthorized:      {http.StatusUnauthorized, LabelClientError, "unauthorized", "internal"},
	TypeForbidden:         {http.StatusForbidden, LabelClientError, "forbidden", "internal"},
	TypeModelNotFound:     {http.StatusNotFound, LabelClientError, "model_not_found", "model_not_found"},
	TypeVersionNotFound:   {http.StatusNotFound, LabelClientError, "model_not_found", "model_not_found"},
	TypeModelBroken:       {http.StatusNotFound, LabelClientError, "model_load_failed", "model_load_failed"},
	TypeBodyTooLarge:      {http.StatusRequestEntityTooLarge, LabelClientError, "body_too_large", "internal"},
	TypeQuarantined:       {http.StatusUnprocessableEntity, LabelClientError, "quarantined", "quarantined"},
	TypeRateLimited:       {http.StatusTooManyRequests, LabelRateLimited, "rate_limited", "internal"},

	TypeUnsupportedMediaType: {http.StatusUnsupportedMediaType, LabelClientError, "invalid_request", "internal"},
	TypeUpgradeRequired:      {http.StatusUpgradeRequired, LabelClientError, "invalid_request", "internal"},
	TypeRequestTimeout:       {http.StatusRequestTimeout, LabelClientError, "", ""},
	TypeHeaderTooLarge:       {http.StatusRequestHeaderFieldsTooLarge, LabelClientError, "", ""},
	TypeNotFound:             {http.StatusNotFound, LabelClientError, "", ""},
	TypeMethodNotAllowed:     {http.StatusMethodNotAllowed, LabelClientError, "", ""},

	TypeQueueFull:         {http.StatusServiceUnavailable, LabelError, "queue_full", "queue_full"},
	TypeQueueTimeout:      {http.StatusGatewayTimeout, LabelError, "deadline", "queue_timeout"},
	TypeDeadlineExceeded:  {http.StatusGatewayTimeout, LabelError, "deadline", "deadline_exceeded"},
	TypeEngineUnavailable: {http.StatusServiceUnavailable, LabelError, "engine_unavailable", "engine_unavailable"},
	TypeEngineCrashed:     {http.StatusServiceUnavailable, LabelError, "engine_unavailable", "engine_crashed"},
	TypeModelLoadFailed:   {http.StatusServiceUnavailable, LabelError, "model_load_failed", "model_load_failed"},
	TypeModelBusy:         {http.StatusServiceUnavailable, LabelError, "model_busy", "model_busy"},
	TypeModelChanged:      {http.StatusServiceUnavailable, LabelError, "model_busy", "model_changed"},
	TypeOutOfMemory:       {http.StatusServiceUnavailable, LabelError, "out_of_memory", "out_of_memory"},
	TypeDraining:          {http.StatusServiceUnavailable, LabelError, "draining", "engine_unavailable"},
	TypeDecodeFailed:      {http.StatusInternalServerError, LabelError, "internal", "decode_failed"},
	TypeInternal:          {http.StatusInternalServerError, LabelError, "internal", "internal"},
	TypeCancelled:         {StatusClientClosed, LabelCancelled, "", "cancelled"},
}

// Outcome looks the type up; a type that isn't in the table counts as internal.
func (t Type) Outcome() Outcome {
	if o, ok := outcomes[t]; ok {
		return o
	}
	return outcomes[TypeInternal]
}

// Known reports whether t is one of the types above, for types that come from outside.
func (t Type) Known() bool {
	_, ok := outcomes[t]
	return ok
}

// Types are all types of errors, in alphabetical order.
func Types() []Type { return slices.Sorted(maps.Keys(outcomes)) }

// RejectedReasons is the closed set of llm_requests_rejected_total{reason}.
func RejectedReasons() []string { return distinctValues(func(o Outcome) string { return o.Rejected }) }

// FailedTypes is the closed set of failed_inferences_total{error_type}.
func FailedTypes() []string { return distinctValues(func(o Outcome) string { return o.Failed }) }

func distinctValues(pick func(Outcome) string) []string {
	var values []string
	for _, o := range outcomes {
		if v := pick(o); v != "" && !slices.Contains(values, v) {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return values
}
