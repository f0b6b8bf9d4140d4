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

// addAnthropicRoutes adds the endpoints for Anthropic's clients.
func (s *Server) addAnthropicRoutes() {
	s.addRoute(&route{path: messagesPath, description: "inference for Anthropic's clients; with an API key", inference: true, dialect: anthropic.Messages,
		idHeader: anthropicIDHeader, serve: s.infer})
	s.addRoute(&route{path: messagesPath + "/count_tokens", description: "how many tokens a message has; with an API key", post: true,
		dialect: anthropic.Messages, idHeader: anthropicIDHeader, serve: s.inputTokens(anthropic.DecodeCount, anthropic.AppendCount)})
	s.otherAnthropicRoute = &route{path: "other", dialect: anthropic.Messages, idHeader: anthropicIDHeader, metrics: s.opts.Metrics.Endpoint("other")}
}

// findAnthropicRoute finds the route of paths below the endpoint that no route has exactly; nil: it's no such path.
func (s *Server) findAnthropicRoute(path string) *route {
	if strings.HasPrefix(path, messagesPath+"/") {
		return s.otherAnthropicRoute
	}
	return nil
}
