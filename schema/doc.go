// Package schema is the contract between proxy and engine: the Cap'n Proto schema in engine.capnp and the code
// generated from it. It says what travels, not how: framing, limits and deadlines are in schema/wire. Generated code is
// committed, so that building and testing need no capnp tool.
package schema

//go:generate sh -c "capnp compile -I \"$(go list -m -f '{{.Dir}}' capnproto.org/go/capnp/v3)/std\" -o\"$(go tool -n capnpc-go)\" engine.capnp"
