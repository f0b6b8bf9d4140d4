// Package openapi makes the OpenAPI document of the HTTP interface out of Go types and hand-written descriptions. Each
// dialect describes its endpoints beside its code: the members of a body come from the struct that it is decoded into,
// so that a field without a description, or a description without a field, is an error. scripts/docs writes the
// document, proxy/server serves it.
package openapi
