package openai

import (
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

func checkJSON(t *testing.T, body []byte) {
	t.Helper()
	if !jsontext.Value(body).IsValid() { // also without members of the same name
		t.Errorf("not valid JSON: %q", body)
	}
}

func same(t *testing.T, got []byte, want string) {
	t.Helper()
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	checkJSON(t, got)
}

var answer = api.Result{Text: "Paris\n\"é\"", Metadata: api.Metadata{
	Model: "org/demo", Version: "v1.0", TokensGenerated: 8, FinishReason: api.FinishStop, PromptTokens: 7, Seed: 42,
}}

func startOf(version string, includeUsage bool) api.ReplyStart {
	return api.ReplyStart{
		Request: &api.Request{IncludeUsage: includeUsage}, RequestID: "r1", Created: time.Unix(1703123456, 789e6), Model: "org/demo", Version: version,
	}
}

const answerUsage = `"usage":{"prompt_tokens":7,"completion_tokens":8,"total_tokens":15}`

func TestChatReply(t *testing.T) {
	same(t, Chat.NewEncoder(startOf("v1.0", false)).AppendReply(nil, &answer),
		`{"id":"chatcmpl-r1","object":"chat.completion","created":1703123456,"model":"org/demo:v1.0","choices":[`+
			`{"index":0,"message":{"role":"assistant","content":"Paris\n\"é\"","refusal":null},"logprobs":null,"finish_reason":"stop"}],`+answerUsage+`}`)
}

func TestCompletionReply(t *testing.T) {
	cut := answer
	cut.Metadata.FinishReason, cut.Metadata.CachedTokens = api.FinishLength, 5
	same(t, Completions.NewEncoder(startOf("base", false)).AppendReply(nil, &cut),
		`{"id":"cmpl-r1","object":"text_completion","created":1703123456,"model":"org/demo","choices":[`+
			`{"text":"Paris\n\"é\"","index":0,"logprobs":null,"finish_reason":"length"}],`+
			`"usage":{"prompt_tokens":7,"completion_tokens":8,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":5}}}`)
}

// events checks the framing of a stream and returns the data of its events.
func events(t *testing.T, stream []byte) []string {
	t.Helper()
	body, ok := strings.CutSuffix(string(stream), "\n\n")
	if !ok {
		t.Fatalf("the last event doesn't end: %q", stream)
	}
	var list []string
	for event := range strings.SplitSeq(body, "\n\n") {
		data, ok := strings.CutPrefix(event, "data: ")
		if !ok || strings.ContainsAny(data, "\n\r\u2028\u2029\u0085") {
			t.Errorf("not one line of data: %q", event)
		}
		if data != "[DONE]" {
			checkJSON(t, []byte(data))
		}
		list = append(list, data)
	}
	return list
}

func wholeStream(e api.Encoder) []byte {
	b := e.AppendStart(nil)
	b = e.AppendText(b, []byte("Paris"))
	b = e.AppendText(b, nil)
	b = e.AppendText(b, []byte("\n\"é\"\u2028"))
	return e.AppendEnd(b, &answer)
}

func wantEvents(t *testing.T, stream []byte, want ...string) {
	t.Helper()
	got := events(t, stream)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestChatStream(t *testing.T) {
	const head = `{"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1703123456,"model":"org/demo:v1.0","choices":[`
	chunk := func(delta, finish, rest string) string {
		return head + `{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":` + finish + `}]` + rest + `}`
	}
	f := func(usage bool, rest string, last ...string) {
		t.Helper()
		wantEvents(t, wholeStream(Chat.NewEncoder(startOf("v1.0", usage))), append([]string{
			chunk(`{"role":"assistant","content":""}`, "null", rest),
			chunk(`{"content":"Paris"}`, "null", rest),
			chunk(`{"content":"\n\"é\"\u2028"}`, "null", rest),
			chunk(`{}`, `"stop"`, rest),
		}, last...)...)
	}
	f(false, "", "[DONE]")
	f(true, `,"usage":null`, head+`],`+answerUsage+`}`, "[DONE]")
}

func TestCompletionStream(t *testing.T) {
	const head = `{"id":"cmpl-r1","object":"text_completion","created":1703123456,"model":"org/demo:v1.0","choices":[`
	chunk := func(text, finish, rest string) string {
		return head + `{"text":` + text + `,"index":0,"logprobs":null,"finish_reason":` + finish + `}]` + rest + `}`
	}
	f := func(usage bool, rest string, last ...string) {
		t.Helper()
		wantEvents(t, wholeStream(Completions.NewEncoder(startOf("v1.0", usage))), append([]string{
			chunk(`"Paris"`, "null", rest),
			chunk(`"\n\"é\"\u2028"`, "null", rest),
			chunk(`""`, `"stop"`, rest),
		}, last...)...)
	}
	f(false, "", "[DONE]")
	f(true, `,"usage":null`, head+`],`+answerUsage+`}`, "[DONE]")
}

// An answer that failed isn't complete, so no [DONE] follows.
func TestErrorEvent(t *testing.T) {
	for _, dialect := range []api.Dialect{Chat, Completions} {
		stream := dialect.NewEncoder(startOf("base", true)).AppendErrorEvent(nil, api.DeadlineExceeded(5*time.Minute))
		wantEvents(t, stream, `{"error":{"message":"the answer was not complete within 5m0s; ask for fewer tokens or allow more time",`+
			`"type":"server_error","param":null,"code":"deadline_exceeded"}}`)
	}
}

func TestTextDoesNotAllocate(t *testing.T) {
	buffer, text := make([]byte, 0, 1024), []byte("Grüße \"world\"\n\xff")
	for _, dialect := range []api.Dialect{Chat, Completions} {
		e := dialect.NewEncoder(startOf("v1.0", true))
		if n := testing.AllocsPerRun(100, func() { buffer = e.AppendText(buffer[:0], text) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func BenchmarkText(b *testing.B) {
	buffer, text := make([]byte, 0, 1024), []byte(" capital")
	e := Chat.NewEncoder(startOf("v1.0", false))
	b.ReportAllocs()
	for b.Loop() {
		buffer = e.AppendText(buffer[:0], text)
	}
}
