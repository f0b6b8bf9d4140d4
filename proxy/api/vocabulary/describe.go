package vocabulary

import (
	"errors"
	"fmt"
	"math"

	"tandem/proxy/openapi"
)

// Endpoints describes the endpoints of the vocabulary. chat is the body of a conversation.
func Endpoints(chat *openapi.Schema, form openapi.ErrorForm) ([]openapi.Endpoint, error) {
	const modelDoc = "The name of a model, or name and version with a colon between them. Default: DEFAULT_MODEL."
	tokenize, err1 := openapi.BodyOf(tokenizeBody{}, openapi.Fields{
		"model":         {Doc: modelDoc, Schema: openapi.ModelNames()},
		"content":       {Doc: "The text.", Required: true},
		"add_special":   {Doc: "The tokens that the model has around every text, too.", Default: false},
		"with_pieces":   {Doc: "The text of each token, too; not of very long texts.", Default: false},
		"parse_special": {Doc: "Only false is supported: text never becomes a control token.", Schema: openapi.OnlyFalse()},
	})
	detokenize, err2 := openapi.BodyOf(detokenizeBody{}, openapi.Fields{
		"model":  {Doc: modelDoc, Schema: openapi.ModelNames()},
		"tokens": {Doc: "Token ids.", Required: true, Schema: openapi.List(openapi.Integer(0, math.MaxInt32), 0, MaxTokens)},
	})
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("describe the bodies of the vocabulary: %w", err)
	}
	id := openapi.Integer(0, math.MaxInt32)
	piece := openapi.AnyOf(openapi.Text(0, 0), openapi.List(openapi.Integer(0, 255), 1, 0)).About("Its text, or the bytes of a part of a character.")
	list := []openapi.Endpoint{
		{
			Path: "/tokenize", ID: "tokenize", Summary: "A text as tokens of a model", Body: tokenize.Named("TokenizeRequest"),
			Examples: []openapi.Example{
				{Name: "tokens", Summary: "A text", Body: `{"model":"demo","content":"Hello, world"}`},
				{Name: "pieces", Summary: "With the text of each token", Body: `{"model":"demo","content":"Hi","with_pieces":true}`},
			},
			Replies: openapi.JSONReply("The tokens.", openapi.Object(openapi.Has("tokens", openapi.AnyOf(
				openapi.List(id, 0, 0), openapi.List(openapi.Object(openapi.Has("id", id), openapi.Has("piece", piece)), 0, 0),
			))).Named("TokenizeReply")),
		},
		{
			Path: "/detokenize", ID: "detokenize", Summary: "Tokens as text", Body: detokenize.Named("DetokenizeRequest"),
			Examples: []openapi.Example{{Name: "text", Summary: "Two tokens", Body: `{"model":"demo","tokens":[72,105]}`}},
			Replies:  openapi.JSONReply("The text.", openapi.Object(openapi.Has("content", openapi.Text(0, 0))).Named("DetokenizeReply")),
		},
		{
			Path: "/apply-template", ID: "applyTemplate", Summary: "A conversation as the model reads it", Body: chat,
			Examples: []openapi.Example{{Name: "prompt", Summary: "A question", Body: `{"model":"demo:v1.0","messages":[{"role":"user","content":"What is the capital of France?"}]}`}},
			Replies:  openapi.JSONReply("The prompt.", openapi.Object(openapi.Has("prompt", openapi.Text(0, 0))).Named("AppliedTemplate")),
		},
	}
	for i := range list {
		list[i].Tag, list[i].Errors = "vocabulary", form
		list[i] = list[i].Call()
	}
	return list, nil
}
