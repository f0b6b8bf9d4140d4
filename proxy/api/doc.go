// Package api is what clients send and get: the checked request, the reply of every documented endpoint, the errors a client may
// be told, and the names by which models are asked for. Decode… turns bytes into a checked request or an *Error; Append… writes
// replies. It knows no HTTP library, no engine and no clock.
package api
