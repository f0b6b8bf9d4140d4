package openapi

import (
	"maps"
	"net/http"
	"slices"

	"tandem/proxy/api"
)

// Endpoint describes one method of one path.
type Endpoint struct {
	Method     string // get or post
	Path       string
	ID         string // operationId, and the name of the files of its examples
	Tag        string
	Summary    string
	Doc        string
	Key        bool // needs an API key
	Parameters []Parameter
	Body       *Schema // nil: none
	Examples   []Example
	Replies    []Reply // besides errors
	Errors     ErrorForm
	ErrorTypes []api.Type // that the endpoint can give
}

// Example is a request whose reply is captured from a running server.
type Example struct {
	Name    string
	Summary string
	Body    string // empty where there is none
	Path    string // empty: that of the endpoint
}

// Reply is an answer of an endpoint.
type Reply struct {
	Status  int
	Doc     string
	Content []Content
	Headers []string // names of headers, see Headers
}

// Content is one form of a reply.
type Content struct {
	Type   string
	Schema *Schema
	// Events are the data of a stream of server-sent events; nil: it isn't one.
	Events *Events
}

// Events describe a stream.
type Events struct {
	Data   *Schema            `json:"data,omitempty"`   // of events without a name
	Last   string             `json:"last,omitempty"`   // the data of the last event, where that isn't JSON
	Failed string             `json:"failed,omitempty"` // the name of an event with an error; empty: they have none
	Named  map[string]*Schema `json:"named,omitempty"`  // of events with a name, where each kind has its own
	Final  []string           `json:"final,omitempty"`  // names of the last event, unless it is an error
}

// Parameter is a header, or a part of path or query.
type Parameter struct {
	Name        string  `json:"name"`
	In          string  `json:"in"`
	Description string  `json:"description"`
	Required    bool    `json:"required,omitzero"`
	Schema      *Schema `json:"schema"`
}

// ErrorForm is how a dialect writes errors.
type ErrorForm struct {
	Schema *Schema
	Code   func(api.Type) string // what tells errors apart
	Member string                // in which Code stands
}

// InferenceErrors are the types of errors that any endpoint for inference can give: all but those of other paths and
// methods, and those that nobody reads.
func InferenceErrors() []api.Type {
	return slices.DeleteFunc(api.Types(), func(t api.Type) bool {
		return t == api.TypeNotFound || t == api.TypeMethodNotAllowed || t == api.TypeCancelled
	})
}

// ConnectionErrors are the types of errors that any endpoint can give.
func ConnectionErrors(others ...api.Type) []api.Type {
	return append([]api.Type{api.TypeInvalidRequest, api.TypeRequestTimeout, api.TypeHeaderTooLarge, api.TypeInternal, api.TypeQueueFull}, others...)
}

// errorReply is what an endpoint says with one status.
type errorReply struct {
	status int
	codes  []string
}

// errorReplies are the endpoint's, by status.
func (e *Endpoint) errorReplies() []errorReply {
	byStatus := map[int][]string{}
	for _, t := range e.ErrorTypes {
		status, code := t.Outcome().Status, e.Errors.Code(t)
		if !slices.Contains(byStatus[status], code) {
			byStatus[status] = append(byStatus[status], code)
		}
	}
	list := make([]errorReply, 0, len(byStatus))
	for _, status := range slices.Sorted(maps.Keys(byStatus)) {
		slices.Sort(byStatus[status])
		list = append(list, errorReply{status, byStatus[status]})
	}
	return list
}

// errorHeaders are the headers of an error besides the request id.
func errorHeaders(status int) []string {
	switch status {
	case http.StatusUnauthorized:
		return []string{"WWW-Authenticate"}
	case http.StatusTooManyRequests:
		return append([]string{"Retry-After"}, RateLimitHeaders...)
	case http.StatusServiceUnavailable:
		return []string{"Retry-After"}
	case http.StatusUpgradeRequired:
		return []string{"Upgrade"}
	}
	return nil
}

// RateLimitHeaders are on replies of endpoints that count against a rate limit.
var RateLimitHeaders = []string{"X-Ratelimit-Limit-Requests", "X-Ratelimit-Remaining-Requests", "X-Ratelimit-Reset-Requests"}

type header struct {
	name   string
	doc    string
	schema *Schema
}

// headers are those of replies.
var headers = []header{
	{"X-Request-Id", "The request's id: the client's, if it is of [A-Za-z0-9._-]{1,64}, otherwise a new one.", Matching("^[A-Za-z0-9._-]{1,64}$")},
	{"X-Model-Revision", "Checksum of the files of the model that answered.", Matching("^[0-9a-f]+$")},
	{"Request-Id", "The same as X-Request-Id.", Matching("^[A-Za-z0-9._-]{1,64}$")},
	{"X-Stream-Id", "The id of a stream that can be resumed.", Text(1, 0)},
	{"traceresponse", "Trace and span of the request (W3C).", Text(0, 0)},
	{"Retry-After", "Seconds after which to try again.", IntegerFrom(1)},
	{"WWW-Authenticate", "How to send a key.", Text(0, 0)},
	{"Upgrade", "HTTP/1.1, which streams need.", Text(0, 0)},
	{RateLimitHeaders[0], "Requests that the limit allows. Absent where none applies.", Count()},
	{RateLimitHeaders[1], "Requests that are left.", Count()},
	{RateLimitHeaders[2], "Time until all are there again, such as 6m0s.", Text(0, 0)},
	{"ETag", "Names this form of the document.", Text(0, 0)},
	{"Cache-Control", "How long the reply may be kept.", Text(0, 0)},
}
