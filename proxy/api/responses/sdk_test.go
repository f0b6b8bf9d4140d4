package responses

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"

	"tandem/proxy/api"
)

// replies is a transport that decodes what OpenAI's library sends and answers with an encoder.
type replies struct {
	t      *testing.T
	answer func(api.Encoder) []byte
}

func (r replies) RoundTrip(request *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return nil, err
	}
	decoded, failure := Dialect.Decode(body, api.Limits{})
	if failure != nil {
		r.t.Fatalf("%s: %v", body, failure)
	}
	contentType := "application/json"
	if decoded.Stream {
		contentType = "text/event-stream"
	}
	text := r.answer(Dialect.NewEncoder(startOf(decoded)))
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(bytes.NewReader(text)), Request: request,
	}, nil
}

func sdkClient(t *testing.T, answer func(api.Encoder) []byte) openai.Client {
	return openai.NewClient(option.WithAPIKey("k"), option.WithMaxRetries(0), option.WithHTTPClient(&http.Client{Transport: replies{t, answer}}))
}

// sdkRequest is a step of an agent: its tools, and what came before.
func sdkRequest() responses.ResponseNewParams {
	return responses.ResponseNewParams{
		Model: "org/demo", Instructions: openai.String("Be brief."),
		Tools: []responses.ToolUnionParam{
			responses.ToolParamOfFunction("f", map[string]any{"type": "object"}, true), responses.ToolParamOfCustom("p"),
			responses.ToolParamOfWebSearchPreview(responses.WebSearchPreviewToolTypeWebSearchPreview),
		},
		Input: responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{
			responses.ResponseInputItemParamOfMessage("Hi", responses.EasyInputMessageRoleUser),
			responses.ResponseInputItemParamOfFunctionCall("{}", "c1", "f"),
			{OfFunctionCallOutput: &responses.ResponseInputItemFunctionCallOutputParam{
				CallID: openai.String("c1"), Output: responses.ResponseInputItemFunctionCallOutputOutputUnionParam{OfString: openai.String("42")},
			}},
		}},
	}
}

var sdkAnswer = []step{think("hm"), say("Par"), say("is."), calls("f"), args(`{"a":`), args(`1}`), calls("p"), args(`{"input":"x"}`)}

func checkSDKResponse(t *testing.T, r *responses.Response) {
	t.Helper()
	if r.Status != responses.ResponseStatusCompleted || r.OutputText() != "Paris." || len(r.Output) != 4 || r.Usage.TotalTokens != 15 {
		t.Fatalf("%s", r.RawJSON())
	}
	thought, called, custom := r.Output[0].AsReasoning(), r.Output[2].AsFunctionCall(), r.Output[3].AsCustomToolCall()
	if thought.Content[0].Text != "hm" || called.Name != "f" || called.Arguments != `{"a":1}` || called.CallID != "call_0" || custom.Input != "x" {
		t.Errorf("%s", r.RawJSON())
	}
}

// OpenAI's library reads a reply, and a stream to its end.
func TestSDKReads(t *testing.T) {
	whole := sdkClient(t, func(e api.Encoder) []byte { return wholeReply(e, sdkAnswer, api.FinishStop) })
	r, err := whole.Responses.New(t.Context(), sdkRequest())
	if err != nil {
		t.Fatal(err)
	}
	checkSDKResponse(t, r)

	streaming := sdkClient(t, func(e api.Encoder) []byte { return wholeStream(e, sdkAnswer, api.FinishStop) })
	stream := streaming.Responses.NewStreaming(t.Context(), sdkRequest())
	var text, reasoning, arguments, input strings.Builder
	var final responses.Response
	for stream.Next() {
		switch e := stream.Current().AsAny().(type) {
		case responses.ResponseTextDeltaEvent:
			text.WriteString(e.Delta)
		case responses.ResponseReasoningTextDeltaEvent:
			reasoning.WriteString(e.Delta)
		case responses.ResponseFunctionCallArgumentsDeltaEvent:
			arguments.WriteString(e.Delta)
		case responses.ResponseCustomToolCallInputDeltaEvent:
			input.WriteString(e.Delta)
		case responses.ResponseCompletedEvent:
			final = e.Response
		}
	}
	if got := []string{text.String(), reasoning.String(), arguments.String(), input.String()}; stream.Err() != nil || strings.Join(got, "|") != `Paris.|hm|{"a":1}|x` {
		t.Errorf("%q, %v", got, stream.Err())
	}
	checkSDKResponse(t, &final)
}

func TestSDKReadsFailure(t *testing.T) {
	client := sdkClient(t, func(e api.Encoder) []byte {
		return e.AppendErrorEvent(appendSteps(e.AppendStart(nil), e, sdkAnswer[:2]), api.DeadlineExceeded(time.Minute))
	})
	stream := client.Responses.NewStreaming(t.Context(), sdkRequest())
	var last responses.ResponseStreamEventUnion
	for stream.Next() {
		last = stream.Current()
	}
	e, isFailure := last.AsAny().(responses.ResponseFailedEvent)
	if stream.Err() != nil || !isFailure || e.Response.Error.Code != "server_error" || e.Response.OutputText() != "Par" {
		t.Errorf("%s, %v", last.RawJSON(), stream.Err())
	}
}
