// Package api defines what clients send and receive: the checked request, the reply of every documented endpoint, the
// errors that a client may see, and how a requested model name is resolved. Decode… turns bytes into a checked request
// or an *Error; Append… writes replies. It knows no HTTP library, no engine and no clock.
package api
