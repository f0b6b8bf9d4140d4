package server

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/schema/parts"
	"tandem/scripts/await"
)

const responsesBody = `{"model":"demo:v1.0","instructions":"Be brief.","input":"What is the capital of France?","tools":[{"type":"function","name":"f"}]}`

// responsesTable answers with reasoning, text and a call.
func responsesTable() *fakeTable {
	text := parts.AppendText(nil, parts.Reasoning, []byte("hm"))
	text = parts.AppendText(text, parts.Content, []byte("Paris."))
	text = append(append(text, toolCallBytes("call_1", "f")...), argumentBytes(`{"a":1}`)...)
	return scriptedTable([]inflight.Piece{{Text: text, Tokens: 5}}, []inflight.Piece{lastPiece(0, 6, true)})
}

// eventNames lists the names of a stream's events, and returns the data of the last one.
func eventNames(t *testing.T, stream string) (names []string, last string) {
	t.Helper()
	for event := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		name, data, ok := strings.Cut(strings.TrimPrefix(event, "event: "), "\ndata: ")
		if !ok {
			t.Fatalf("not an event: %q", event)
		}
		names, last = append(names, strings.TrimPrefix(name, "response.")), data
	}
	return names, last
}

// checkResponse checks the object that a reply and the last event of a stream have.
func checkResponse(t *testing.T, body string) {
	t.Helper()
	var r struct {
		ID, Object, Status, Model, Instructions string
		CreatedAt                               int64 `json:"created_at"`
		Output                                  []struct {
			ID, Type, Status, Name, Arguments string
			Content                           []struct{ Text string }
		}
		Usage struct {
			Total int `json:"total_tokens"`
		}
	}
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	if r.ID != "resp_my-id" || r.Object != "response" || r.Status != "completed" || r.Model != "demo:v1.0" || r.Instructions != "Be brief." ||
		r.Usage.Total != 15 || time.Since(time.Unix(r.CreatedAt, 0)) > waitLimit || len(r.Output) != 3 {
		t.Fatalf("%s", body)
	}
	if r.Output[0].Content[0].Text != "hm" || r.Output[1].Content[0].Text != "Paris." || r.Output[2].Name != "f" || r.Output[2].Arguments != `{"a":1}` {
		t.Errorf("%s", body)
	}
}

func TestResponsesReply(t *testing.T) {
	ts := startTestServer(t, responsesTable(), nil)
	r := ts.do("POST", "/v1/responses", responsesBody, openAIHeaders()...)
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Request-Id") != "my-id" {
		t.Fatalf("status %d, %v: %s", r.StatusCode, r.Header, r.body)
	}
	checkResponse(t, r.body)
	ts.expectMetric(1, "api_requests_total", "endpoint", "/v1/responses", "status", "success")
}

func TestResponsesStream(t *testing.T) {
	ts := startTestServer(t, responsesTable(), nil)
	r := ts.do("POST", "/v1/responses", streamed(responsesBody), openAIHeaders()...)
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != eventStream {
		t.Fatalf("status %d, %v: %s", r.StatusCode, r.Header, r.body)
	}
	names, last := eventNames(t, r.body)
	want := "created in_progress output_item.added content_part.added reasoning_text.delta reasoning_text.done content_part.done output_item.done " +
		"output_item.added content_part.added output_text.delta output_text.done content_part.done output_item.done " +
		"output_item.added function_call_arguments.delta function_call_arguments.done output_item.done completed"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var event struct{ Response json.RawMessage }
	if err := json.Unmarshal([]byte(last), &event); err != nil {
		t.Fatal(err)
	}
	checkResponse(t, string(event.Response))
}

// Before the stream an error has a status of its own; later it is the last event.
func TestResponsesErrors(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	for _, c := range []struct {
		body   string
		status int
		param  string
	}{
		{`{"model":"demo"}`, 400, "input"},
		{`{"input":"Hi","previous_response_id":"resp_1"}`, 400, "previous_response_id"},
	} {
		r := ts.do("POST", "/v1/responses", c.body, openAIHeaders()...)
		if typ, _, param := decodeOpenAIError(t, r); r.StatusCode != c.status || typ != "invalid_request_error" || param != c.param {
			t.Errorf("%s: status %d, %s", c.body, r.StatusCode, r.body)
		}
	}
	if r := ts.do("POST", "/v1/responses", responsesBody, "Content-Type", "application/json"); r.StatusCode != 401 {
		t.Errorf("without a key: status %d", r.StatusCode)
	}
	done := make(chan reply, 1)
	go func() { done <- ts.do("POST", "/v1/responses", streamed(responsesBody), openAIHeaders()...) }()
	a := receiveWithin(t, "request", asked, waitLimit)
	a.addText("Par")
	await.Until(t, waitLimit, "the first text is written", func() bool { return a.tokensWritten() == 1 })
	a.fail(api.DeadlineExceeded(5*time.Minute), true)
	r := receiveWithin(t, "reply", done, waitLimit)
	names, last := eventNames(t, r.body)
	if r.StatusCode != 200 || names[len(names)-1] != "failed" || !strings.Contains(last, `"text":"Par"`) || !strings.Contains(last, `"type":"deadline_exceeded"`) {
		t.Errorf("status %d, %s", r.StatusCode, r.body)
	}
}

func TestResponsesInputTokens(t *testing.T) {
	ts := startTestServer(t, instantTable(), nil)
	r := ts.do("POST", "/v1/responses/input_tokens", `{"model":"demo","input":"Hi"}`, openAIHeaders()...)
	if r.StatusCode != 200 || r.body != `{"object":"response.input_tokens","input_tokens":8}` {
		t.Errorf("status %d, %s", r.StatusCode, r.body)
	}
	r = ts.do("POST", "/v1/responses/input_tokens", `{}`, openAIHeaders()...)
	if _, _, param := decodeOpenAIError(t, r); r.StatusCode != 400 || param != "input" {
		t.Errorf("status %d, %s", r.StatusCode, r.body)
	}
}

// Nothing is stored, which a client is told whatever it wants of a response.
func TestStoredResponses(t *testing.T) {
	ts := startTestServer(t, instantTable(), withOrigins(appOrigin))
	for _, c := range [][2]string{
		{"GET", "/v1/responses/resp_1"}, {"DELETE", "/v1/responses/resp_1"}, {"POST", "/v1/responses/resp_1/cancel"}, {"GET", "/v1/responses/resp_1/input_items"},
	} {
		r := ts.do(c[0], c[1], "", openAIHeaders()...)
		if typ, _, _ := decodeOpenAIError(t, r); r.StatusCode != 400 || typ != "invalid_request_error" || !strings.Contains(r.body, "not stored") {
			t.Errorf("%s %s: status %d, %s", c[0], c[1], r.StatusCode, r.body)
		}
	}
	r := ts.do("OPTIONS", "/v1/responses/resp_1", "", "Origin", appOrigin, "Access-Control-Request-Method", "DELETE")
	if got := r.Header.Get("Access-Control-Allow-Methods"); r.StatusCode != 204 || !strings.Contains(got, "DELETE") {
		t.Errorf("preflight: status %d, %q", r.StatusCode, got)
	}
	for path, status := range map[string]int{"/v1/responses": 405, "/v1/responses/input_tokens": 405, "/v1/responses/": 404, "/v1/responses/compact": 404} {
		if r := ts.get(path); r.StatusCode != status {
			t.Errorf("GET %s: status %d, %s", path, r.StatusCode, r.body)
		}
	}
}
