// Package infer is the dialect of POST /infer: one prompt, one answer, and every field of this server's own. It is also
// the form of the errors of all endpoints that belong to no other dialect. What carries the request is not known here.
package infer

import "tandem/proxy/api"

// Dialect is an api.Dialect.
type Dialect struct{}

var _ api.Dialect = Dialect{}

// Decode checks the body of POST /infer. The error is a 400 that names the field in Param.
func (Dialect) Decode(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	return decode(body, limits)
}

// AppendError appends the body of an error reply. param is null when no single field is to blame.
func (Dialect) AppendError(dst []byte, e *api.Error, requestID string) []byte {
	return appendError(dst, e, requestID)
}

// NewEncoder makes the encoder of one reply. Everything that it writes is in the result, so the start only has the id.
func (Dialect) NewEncoder(start api.ReplyStart) api.Encoder {
	return encoder{requestID: start.RequestID}
}
