package server

import (
	"strings"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api/anthropic"
)

const (
	// anthropicVersionHeader is on every request of Anthropic's clients.
	anthropicVersionHeader = "Anthropic-Version"

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
	metrics := s.routes[modelsPath].metrics
	s.anthropicModelsRoute = &route{path: modelsPath, dialect: anthropic.Messages, idHeader: anthropicIDHeader, serve: s.anthropicModels, metrics: metrics}
	s.anthropicModelRoute = &route{path: modelPathForm, dialect: anthropic.Messages, idHeader: anthropicIDHeader, serve: s.anthropicModel, metrics: metrics}
}

// findAnthropicRoute finds the route of paths below /v1/messages that no route has exactly; nil: it's no such path.
func (s *Server) findAnthropicRoute(path string) *route {
	if strings.HasPrefix(path, messagesPath+"/") {
		return s.otherAnthropicRoute
	}
	return nil
}

// forClient returns the route of a path that OpenAI's and Anthropic's APIs both have, in the form of the client.
func (s *Server) forClient(ctx *fasthttp.RequestCtx, r *route) *route {
	if r != s.modelRoute && r.path != modelsPath || len(ctx.Request.Header.Peek(anthropicVersionHeader)) == 0 {
		return r
	}
	if r == s.modelRoute {
		return s.anthropicModelRoute
	}
	return s.anthropicModelsRoute
}

func (s *Server) anthropicModels(x *exchange) {
	query := x.ctx.QueryArgs()
	page, err := anthropic.ParseModelsPage(string(query.Peek("limit")), string(query.Peek("before_id")), string(query.Peek("after_id")))
	if err != nil {
		x.replyError(err)
		return
	}
	x.replyModels(anthropic.AppendModels(nil, s.installedModels(), page, s.madeAt))
}

func (s *Server) anthropicModel(x *exchange) {
	x.replyModels(anthropic.AppendModel(nil, s.installedModels(), x.modelID(), s.madeAt))
}
