package server

import (
	"strings"

	"tandem/proxy/api/anthropic"
)

const (
	messagesPath = "/v1/messages"
	// anthropicIDHeader is where clients of Anthropic's API look for the id of their request.
	anthropicIDHeader = "Request-Id"
)

// addAnthropicRoutes adds the endpoints for Anthropic's clients. Counting tokens doesn't count against a rate limit:
// nothing is computed.
func (s *Server) addAnthropicRoutes() {
	for _, r := range []*route{
		{path: messagesPath, description: "inference for Anthropic's clients; with an API key", inference: true, serve: s.infer},
		{path: messagesPath + "/count_tokens", description: "how many tokens their conversation has; with an API key", post: true,
			serve: s.inputTokens(anthropic.DecodeCount, anthropic.AppendCount)},
	} {
		r.dialect, r.idHeader = anthropic.Messages, anthropicIDHeader
		s.addRoute(r)
	}
	s.otherAnthropicRoute = &route{path: "other", dialect: anthropic.Messages, idHeader: anthropicIDHeader, metrics: s.opts.Metrics.Endpoint("other")}
}

// findAnthropicRoute finds the route of paths below /v1/messages that no route has exactly; nil: it's no such path.
func (s *Server) findAnthropicRoute(path string) *route {
	if strings.HasPrefix(path, messagesPath+"/") {
		return s.otherAnthropicRoute
	}
	return nil
}
