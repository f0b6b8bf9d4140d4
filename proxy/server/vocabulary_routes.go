package server

import (
	"context"

	"tandem/proxy/api"
	"tandem/proxy/api/openai"
	"tandem/proxy/api/vocabulary"
	"tandem/proxy/inflight"
)

// addVocabularyRoutes adds the endpoints that show what a model makes of a text. They need a key and don't count
// against its rate limit: nothing is computed.
func (s *Server) addVocabularyRoutes() {
	for _, r := range []*route{
		{path: "/tokenize", description: "a text as tokens of a model; with an API key", post: true, dialect: openAIErrors, serve: s.tokenize},
		{path: "/detokenize", description: "tokens as text; with an API key", post: true, dialect: openAIErrors, serve: s.detokenize},
		{path: "/apply-template", description: "a conversation as the model reads it; with an API key", post: true, dialect: openai.Chat, serve: s.applyTemplate},
		{path: "/v1/chat/completions/input_tokens", description: "how many tokens a conversation has; with an API key", post: true, dialect: openai.Chat,
			serve: s.inputTokens(openai.DecodeChatCount, openai.AppendInputTokens)},
	} {
		s.addRoute(r)
	}
}

func (s *Server) tokenize(x *exchange) {
	who, err := s.checkCaller(x)
	if err != nil {
		x.replyError(err)
		return
	}
	in, err := vocabulary.DecodeTokenize(x.ctx.Request.Body(), s.opts.RequestLimits)
	if err != nil {
		x.replyError(err)
		return
	}
	ctx, end := s.callContext(x)
	defer end()
	call := inflight.ModelCall{Model: in.Model, Version: in.Version, Models: who.models()}
	tokens, err := s.opts.Requests.Tokenize(ctx, call, in.Content, in.AddSpecial)
	switch {
	case err != nil:
		x.replyError(err)
	case in.WithPieces:
		s.replyPieces(ctx, x, call, tokens)
	default:
		x.reply(vocabulary.AppendTokens(nil, tokens))
	}
}

// maxPieces bounds how many tokens are shown with their texts, each of which is a call.
const maxPieces = 4096

// replyPieces replies with the text of each token.
func (s *Server) replyPieces(ctx context.Context, x *exchange, call inflight.ModelCall, tokens []int32) {
	if len(tokens) > maxPieces {
		x.replyError(api.Invalid("with_pieces", "content has %d tokens, but their pieces are shown of %d at most; shorten it", len(tokens), maxPieces))
		return
	}
	known := make(map[int32][]byte)
	pieces := make([][]byte, len(tokens))
	for i, t := range tokens {
		if _, ok := known[t]; !ok {
			text, err := s.opts.Requests.Detokenize(ctx, call, tokens[i:i+1])
			if err != nil {
				x.replyError(err)
				return
			}
			known[t] = text
		}
		pieces[i] = known[t]
	}
	x.reply(vocabulary.AppendPieces(nil, tokens, pieces))
}

func (s *Server) detokenize(x *exchange) {
	who, err := s.checkCaller(x)
	if err != nil {
		x.replyError(err)
		return
	}
	in, err := vocabulary.DecodeDetokenize(x.ctx.Request.Body())
	if err != nil {
		x.replyError(err)
		return
	}
	ctx, end := s.callContext(x)
	defer end()
	text, err := s.opts.Requests.Detokenize(ctx, inflight.ModelCall{Model: in.Model, Version: in.Version, Models: who.models()}, in.Tokens)
	if err != nil {
		x.replyError(err)
		return
	}
	x.reply(vocabulary.AppendContent(nil, text))
}

func (s *Server) applyTemplate(x *exchange) {
	rendered, err := s.render(x, openai.DecodeChatCount)
	if err != nil {
		x.replyError(err)
		return
	}
	x.reply(vocabulary.AppendPrompt(nil, rendered.Text))
}

// countDecoder reads the body of a request whose tokens are to be counted.
type countDecoder func(body []byte, limits api.Limits) (*api.Request, *api.Error)

// inputTokens makes the handler that counts the tokens of a dialect's requests.
func (s *Server) inputTokens(decode countDecoder, appendCount func(dst []byte, tokens int) []byte) func(*exchange) {
	return func(x *exchange) {
		rendered, err := s.render(x, decode)
		if err != nil {
			x.replyError(err)
			return
		}
		x.reply(appendCount(nil, len(rendered.Tokens)))
	}
}

// render has the prompt of a request rendered.
func (s *Server) render(x *exchange, decode countDecoder) (inflight.RenderedText, *api.Error) {
	who, err := s.checkCaller(x)
	if err != nil {
		return inflight.RenderedText{}, err
	}
	request, err := decode(x.ctx.Request.Body(), s.opts.RequestLimits)
	if err != nil {
		return inflight.RenderedText{}, err
	}
	ctx, end := s.callContext(x)
	defer end()
	return s.opts.Requests.Render(ctx, inflight.ModelCall{Model: request.Model, Version: request.Version, Models: who.models()}, request)
}

// checkCaller checks the key and the kind of body of a call.
func (s *Server) checkCaller(x *exchange) (caller, *api.Error) {
	who, err := s.authenticate(x)
	if err == nil {
		err = checkContentType(&x.ctx.Request.Header)
	}
	return who, err
}

// callContext ends when the client leaves or the time of a request is over.
func (s *Server) callContext(x *exchange) (context.Context, context.CancelFunc) {
	return context.WithTimeout(x.clientCtx, s.opts.RequestTimeout)
}
