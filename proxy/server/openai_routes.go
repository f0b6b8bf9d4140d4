package server

import (
	"strings"

	"tandem/proxy/api"
	"tandem/proxy/api/openai"
)

const (
	openAIPrefix  = "/v1/"
	modelPrefix   = "/v1/models/" // a model's id follows, which may hold a slash
	modelsPath    = "/v1/models"
	modelPathForm = modelPrefix + "{id}" // how the route is listed
)

// openAIErrors is the dialect of errors where OpenAI's endpoints don't read a body.
var openAIErrors = openai.Chat

// addOpenAIRoutes adds the endpoints for OpenAI's clients. The list of models and its entries count as one endpoint.
func (s *Server) addOpenAIRoutes() {
	for _, r := range []*route{
		{path: "/v1/chat/completions", description: "inference for OpenAI's clients; with an API key", inference: true, dialect: openai.Chat, serve: s.infer},
		{path: "/v1/completions", description: "the same without chat template", inference: true, dialect: openai.Completions, serve: s.infer},
		{path: "/v1/embeddings", description: "embeddings of texts; with an API key", inference: true, dialect: openai.Embeddings, serve: s.infer},
		{path: "/v1/rerank", description: "how well documents fit a query; with an API key", inference: true, dialect: openai.Rerank, serve: s.infer},
		{path: modelsPath, description: "installed models for OpenAI's clients", dialect: openAIErrors, serve: s.openAIModels},
	} {
		s.addRoute(r)
	}
	s.modelRoute = &route{path: modelPathForm, description: "one of them", dialect: openAIErrors, serve: s.openAIModel, metrics: s.routes[modelsPath].metrics}
	s.routes[modelPathForm] = s.modelRoute
	s.streamRoute = &route{path: streamPathForm, description: "the rest of a stream that was begun with stream_options.resume", dialect: openAIErrors,
		serve: s.resumeStream, metrics: s.opts.Metrics.Endpoint(streamPathForm)}
	s.routes[streamPathForm] = s.streamRoute
	s.otherOpenAIRoute = &route{path: "other", dialect: openAIErrors, metrics: s.opts.Metrics.Endpoint("other")}
}

// findOpenAIRoute finds the routes of paths that no route has exactly; nil: it's not a path of OpenAI's.
func (s *Server) findOpenAIRoute(path string) *route {
	switch {
	case strings.HasPrefix(path, streamsPrefix) && path != streamsPrefix:
		return s.streamRoute
	case strings.HasPrefix(path, modelPrefix) && path != modelPrefix:
		return s.modelRoute
	case strings.HasPrefix(path, openAIPrefix):
		return s.otherOpenAIRoute
	}
	return nil
}

func (s *Server) openAIModels(x *exchange) {
	x.reply(openai.AppendModels(nil, s.installedModels(), s.madeAt))
}

func (s *Server) openAIModel(x *exchange) {
	x.replyModels(openai.AppendModel(nil, s.installedModels(), x.modelID(), s.madeAt))
}

// modelID is the last part of the path; fasthttp has decoded an escaped slash.
func (x *exchange) modelID() string { return strings.TrimPrefix(string(x.ctx.Path()), modelPrefix) }

func (x *exchange) replyModels(body []byte, err *api.Error) {
	if err != nil {
		x.replyError(err)
		return
	}
	x.reply(body)
}
