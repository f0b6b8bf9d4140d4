package server

import (
	"strings"

	"tandem/proxy/api/responses"
)

const (
	responsesPath   = "/v1/responses"
	responsesPrefix = responsesPath + "/" // a response's id follows, and what is to be done with it
	compactPath     = responsesPrefix + "compact"
)

// addResponsesRoutes adds the endpoints for clients of OpenAI's Responses API.
func (s *Server) addResponsesRoutes() {
	for _, r := range []*route{
		{path: responsesPath, description: "inference for clients of OpenAI's Responses API; with an API key", inference: true, dialect: responses.Dialect,
			serve: s.infer},
		{path: responsesPrefix + "input_tokens", description: "how many tokens its input has; with an API key", post: true, dialect: responses.Dialect,
			serve: s.inputTokens(responses.DecodeCount, responses.AppendCount)},
	} {
		s.addRoute(r)
	}
	s.storedResponseRoute = &route{path: "other", everyMethod: true, dialect: responses.Dialect, serve: s.storedResponse, metrics: s.opts.Metrics.Endpoint("other")}
}

// findResponsesRoute finds the route of what is done with stored responses; nil: the path isn't about one.
func (s *Server) findResponsesRoute(path string) *route {
	if strings.HasPrefix(path, responsesPrefix) && path != responsesPrefix && path != compactPath {
		return s.storedResponseRoute
	}
	return nil
}

// storedResponse says that there are none, so that a client needn't look for a mistake in the id.
func (s *Server) storedResponse(x *exchange) { x.replyError(responses.ErrStored()) }
