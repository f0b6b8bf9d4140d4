package server

import (
	"context"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

// failingTable refuses every request, or fails its answer, and every call.
type failingTable struct {
	*fakeTable
	err    *api.Error
	admits bool // requests fail later
}

func (f *failingTable) Admit(_ context.Context, r inflight.Request) (inflight.Answer, *api.Error) {
	if !f.admits {
		return nil, f.err
	}
	a := newAnswer(r)
	a.fail(f.err, true)
	return a, nil
}

func (f *failingTable) Tokenize(context.Context, inflight.ModelCall, string, bool) ([]int32, *api.Error) {
	return nil, f.err
}

func (f *failingTable) Detokenize(context.Context, inflight.ModelCall, []int32) ([]byte, *api.Error) {
	return nil, f.err
}

func (f *failingTable) Render(context.Context, inflight.ModelCall, *api.Request) (inflight.RenderedText, *api.Error) {
	return inflight.RenderedText{}, f.err
}

// modelPaths are the paths that ask a model, each with a good body.
var modelPaths = map[string]string{
	"/infer":                            inferBody,
	"/v1/chat/completions":              openAIEndpoints[0].body,
	"/v1/completions":                   openAIEndpoints[1].body,
	"/v1/embeddings":                    `{"input":"a"}`,
	"/v1/rerank":                        `{"query":"a","documents":["b"]}`,
	"/v1/responses":                     responsesBody,
	"/v1/messages":                      messagesBody,
	"/v1/responses/input_tokens":        responsesBody,
	"/v1/messages/count_tokens":         messagesBody,
	"/v1/chat/completions/input_tokens": openAIEndpoints[0].body,
	"/apply-template":                   openAIEndpoints[0].body,
	"/tokenize":                         `{"content":"a"}`,
	"/detokenize":                       `{"tokens":[1]}`,
}

// Every path of a model tells in its reply when to try again.
func TestClientsAreToldWhenToTryAgain(t *testing.T) {
	table := &failingTable{fakeTable: instantTable()}
	ts := startTestServer(t, table, nil)
	for _, kind := range api.Types() {
		if kind == api.TypeCancelled {
			continue // nobody reads the reply
		}
		for want, err := range map[string]*api.Error{"": api.NewError(kind, "why"), "3": api.NewError(kind, "why").After(3 * time.Second)} {
			table.err = err
			for path, body := range modelPaths {
				for _, sent := range []string{body, streamed(body)} {
					table.admits = sent != body
					r := ts.do("POST", path, sent, openAIHeaders()...)
					if after := r.Header.Get("Retry-After"); r.StatusCode != err.Status() || after != want {
						t.Errorf("%s %s: status %d, Retry-After %q; want %d, %q", kind, path, r.StatusCode, after, err.Status(), want)
					}
				}
			}
		}
	}
}
