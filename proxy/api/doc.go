// Package api defines what clients send and receive whatever the dialect: the checked request, the result, the errors
// that a client may see, how a requested model name is resolved, and the replies of the endpoints for monitoring. A
// dialect (see Dialect) is a package below this one, which uses the JSON helpers here. It knows no HTTP library, no
// engine and no clock.
package api
