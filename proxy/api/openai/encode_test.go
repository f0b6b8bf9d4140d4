package openai

import (
	"math"
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

func replyOf(results ...api.Result) *api.Reply {
	return &api.Reply{Results: results, Usage: results[0].Metadata}
}

func startOf(version string, includeUsage bool) api.ReplyStart {
	return api.ReplyStart{
		Request: &api.Request{IncludeUsage: includeUsage}, RequestID: "r1", Created: time.Unix(1703123456, 789e6), ModelID: "org/demo:" + version,
	}
}

const answerUsage = `"usage":{"prompt_tokens":7,"completion_tokens":8,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}`

func TestChatReply(t *testing.T) {
	same(t, Chat.NewEncoder(startOf("v1.0", false)).AppendReply(nil, replyOf(answer)),
		`{"id":"chatcmpl-r1","object":"chat.completion","created":1703123456,"model":"org/demo:v1.0","choices":[`+
			`{"index":0,"message":{"role":"assistant","content":"Paris\n\"é\"","refusal":null},"logprobs":null,"finish_reason":"stop"}],`+answerUsage+`}`)
}

func TestCompletionReply(t *testing.T) {
	cut := answer
	cut.Metadata.FinishReason, cut.Metadata.CachedTokens = api.FinishLength, 5
	same(t, Completions.NewEncoder(startOf("base", false)).AppendReply(nil, replyOf(cut)),
		`{"id":"cmpl-r1","object":"text_completion","created":1703123456,"model":"org/demo:base","choices":[`+
			`{"text":"Paris\n\"é\"","index":0,"logprobs":null,"finish_reason":"length"}],`+
			`"usage":{"prompt_tokens":7,"completion_tokens":8,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":5},"completion_tokens_details":{"reasoning_tokens":0}}}`)
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
	for _, text := range []string{"Paris", "", "\n\"é\"\u2028"} {
		b = e.AppendDelta(b, &api.Delta{Text: []byte(text)})
	}
	b = e.AppendChoiceEnd(b, 0, &answer)
	return e.AppendEnd(b, replyOf(answer))
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

// toolAnswer thought, said something and calls two tools.
var toolAnswer = api.Result{
	Reasoning: "Look.", Text: "Wait",
	ToolCalls: []api.ToolCall{{ID: "call_a", Name: "get_weather", Arguments: `{"city":"Pa"}`}, {ID: "call_b", Name: "f", Arguments: `{}`}},
	Metadata:  api.Metadata{TokensGenerated: 20, ReasoningTokens: 3, FinishReason: api.FinishStop, PromptTokens: 7},
}

func TestChatReplyWithToolsAndReasoning(t *testing.T) {
	e := Chat.NewEncoder(startOf("v1.0", false))
	same(t, e.AppendReply(nil, replyOf(toolAnswer)),
		`{"id":"chatcmpl-r1","object":"chat.completion","created":1703123456,"model":"org/demo:v1.0","choices":[`+
			`{"index":0,"message":{"role":"assistant","content":"Wait","reasoning_content":"Look.","tool_calls":[`+
			`{"id":"call_a","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Pa\"}"}},`+
			`{"id":"call_b","type":"function","function":{"name":"f","arguments":"{}"}}],"refusal":null},"logprobs":null,"finish_reason":"tool_calls"}],`+
			`"usage":{"prompt_tokens":7,"completion_tokens":20,"total_tokens":27,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":3}}}`)
	silent := toolAnswer
	silent.Text, silent.Reasoning, silent.ToolCalls = "", "", silent.ToolCalls[1:]
	silent.Metadata.FinishReason = api.FinishLength
	got := string(e.AppendReply(nil, replyOf(silent)))
	if !strings.Contains(got, `"content":null,"tool_calls":[`) || !strings.Contains(got, `"finish_reason":"length"`) {
		t.Errorf("without text and cut off: %s", got)
	}
}

func TestChatStreamWithToolsAndReasoning(t *testing.T) {
	e := Chat.NewEncoder(startOf("v1.0", false))
	b := e.AppendStart(nil)
	for _, d := range []api.Delta{
		{Kind: api.DeltaReasoning, Text: []byte("Look.")}, {Text: []byte("Wait")},
		{Kind: api.DeltaToolCall, ToolCall: &toolAnswer.ToolCalls[0]}, {Kind: api.DeltaToolArguments, Text: []byte(`{"city":`)},
		{Kind: api.DeltaToolArguments, Text: []byte(`"Pa"}`)}, {Kind: api.DeltaToolCall, CallAt: 1, ToolCall: &toolAnswer.ToolCalls[1]},
		{Kind: api.DeltaToolArguments, CallAt: 1, Text: []byte(`{}`)},
	} {
		b = e.AppendDelta(b, &d)
	}
	b = e.AppendEnd(e.AppendChoiceEnd(b, 0, &toolAnswer), replyOf(toolAnswer))
	chunk := func(delta string) string {
		return `{"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1703123456,"model":"org/demo:v1.0","choices":[{"index":0,"delta":` + delta + `,"logprobs":null,"finish_reason":null}]}`
	}
	wantEvents(t, b,
		chunk(`{"role":"assistant","content":""}`), chunk(`{"reasoning_content":"Look."}`), chunk(`{"content":"Wait"}`),
		chunk(`{"tool_calls":[{"index":0,"id":"call_a","type":"function","function":{"name":"get_weather","arguments":""}}]}`),
		chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]}`), chunk(`{"tool_calls":[{"index":0,"function":{"arguments":"\"Pa\"}"}}]}`),
		chunk(`{"tool_calls":[{"index":1,"id":"call_b","type":"function","function":{"name":"f","arguments":""}}]}`),
		chunk(`{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}`),
		strings.Replace(chunk(`{}`), `"finish_reason":null`, `"finish_reason":"tool_calls"`, 1), "[DONE]")
}

func startOfChoices(n int, r api.Request) api.ReplyStart {
	start := startOf("v1.0", false)
	r.Choices = n
	start.Request, start.Revision = &r, strings.Repeat("0a", 32)
	return start
}

func TestSeveralChoices(t *testing.T) {
	second := answer
	second.Text, second.Metadata.FinishReason = "Lyon", api.FinishLength
	for _, dialect := range []api.Dialect{Chat, Completions} {
		e := dialect.NewEncoder(startOfChoices(2, api.Request{}))
		whole := string(e.AppendReply(nil, replyOf(answer, second)))
		checkJSON(t, []byte(whole))
		for _, part := range []string{`"index":0`, `"index":1`, `Lyon`, `"length"`, `"stop"`, `"system_fingerprint":"fp_0a0a0a0a0a0a0a0a"`} {
			if strings.Count(whole, part) != 1 {
				t.Errorf("%q isn't there once: %s", part, whole)
			}
		}
		b := e.AppendStart(nil)
		b = e.AppendDelta(b, &api.Delta{Choice: 1, Text: []byte("Lyon")})
		b = e.AppendChoiceEnd(e.AppendChoiceEnd(b, 1, &second), 0, &answer)
		list := events(t, e.AppendEnd(b, replyOf(answer, second)))
		n := len(list)
		if list[n-1] != "[DONE]" || !strings.Contains(list[n-2], `"index":0`) || !strings.Contains(list[n-3], `"index":1`) || !strings.Contains(list[n-4], "Lyon") {
			t.Errorf("events\n%s", strings.Join(list, "\n"))
		}
	}
}

func logprobs() []api.TokenLogprob {
	return []api.TokenLogprob{
		{Token: 5, Bytes: []byte("Pa"), Logprob: -0.5, Top: []api.TopLogprob{{Token: 5, Bytes: []byte("Pa"), Logprob: -0.5}, {Token: 9, Bytes: []byte("\xc3"), Logprob: float32(math.Inf(-1))}}},
		{Token: 6, Bytes: []byte("\xc3"), Logprob: -1, Top: []api.TopLogprob{{Token: 6, Bytes: []byte("\xc3"), Logprob: -1}}},
		{Token: 2, Logprob: -0.1}, // the end token has no text
	}
}

func TestChatLogprobs(t *testing.T) {
	result := answer
	result.Logprobs = logprobs()
	e := Chat.NewEncoder(startOfChoices(1, api.Request{Logprobs: true, TopLogprobs: 2}))
	const want = `"logprobs":{"content":[{"token":"Pa","logprob":-0.5,"bytes":[80,97],"top_logprobs":[` +
		`{"token":"Pa","logprob":-0.5,"bytes":[80,97]},{"token":"\uFFFD","logprob":-9999,"bytes":[195]}]},` +
		`{"token":"\uFFFD","logprob":-1,"bytes":[195],"top_logprobs":[{"token":"\uFFFD","logprob":-1,"bytes":[195]}]}],"refusal":null}`
	literal := strings.ReplaceAll(want, `\uFFFD`, "\uFFFD")
	if got := string(e.AppendReply(nil, replyOf(result))); !strings.Contains(got, literal) {
		t.Errorf("got %s", got)
	}
	event := events(t, e.AppendDelta(nil, &api.Delta{Text: []byte("Pa"), Logprobs: logprobs()}))
	if len(event) != 1 || !strings.Contains(event[0], literal) {
		t.Errorf("event %q", event)
	}
}

// What lm-eval reads: the prompt's tokens first, the first of them without a log-probability.
func TestCompletionLogprobsWithEcho(t *testing.T) {
	result := answer
	result.Text, result.Logprobs = "Pa", logprobs()[:1]
	result.PromptLogprobs = []api.TokenLogprob{{Token: 1, Bytes: []byte("é"), Logprob: float32(math.NaN())}, {Token: 3, Bytes: []byte(" is"), Logprob: -2,
		Top: []api.TopLogprob{{Token: 3, Bytes: []byte(" is"), Logprob: -2}}}}
	request := api.Request{Prompt: "é is", Raw: true, Echo: true, Logprobs: true, TopLogprobs: 2, PromptLogprobs: true}
	e := Completions.NewEncoder(startOfChoices(1, request))
	const want = `{"text":"é isPa","index":0,"logprobs":{"tokens":["é"," is","Pa"],"token_logprobs":[null,-2,-0.5],` +
		`"top_logprobs":[null,{" is":-2},{"Pa":-0.5,"bytes:\\xc3":-9999}],"text_offset":[0,1,4]},"finish_reason":"stop"}`
	if got := string(e.AppendReply(nil, replyOf(result))); !strings.Contains(got, want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
	request.Extra = completionExtra{promptOnly: true}
	e = Completions.NewEncoder(startOfChoices(1, request))
	if got := string(e.AppendReply(nil, replyOf(result))); !strings.Contains(got, `"text":"é is","index":0,"logprobs":{"tokens":["é"," is"],`) {
		t.Errorf("of the prompt only: %s", got)
	}
	e = Completions.NewEncoder(startOfChoices(1, api.Request{Prompt: "é is", Raw: true, Echo: true, Stream: true, Extra: completionExtra{promptOnly: true}}))
	stream := e.AppendDelta(e.AppendStart(nil), &api.Delta{Text: []byte("Pa"), Tokens: 1})
	if list := events(t, stream); len(list) != 1 || !strings.Contains(list[0], `"text":"é is"`) {
		t.Errorf("of the prompt only: %s", stream)
	}
}

func TestTimings(t *testing.T) {
	result := answer
	m := &result.Metadata
	m.CachedTokens, m.QueueTime, m.PrefillTime, m.DecodeTime = 4, 1500*time.Microsecond, 20*time.Millisecond, 70*time.Millisecond
	const whole = `,"timings":{"queue_ms":1.5,"cache_n":4,"prompt_n":3,"prompt_ms":20,"predicted_n":8,"predicted_ms":70}`
	for _, dialect := range []api.Dialect{Chat, Completions} {
		for _, wanted := range []bool{true, false} {
			e := dialect.NewEncoder(startOfChoices(1, api.Request{Timings: wanted}))
			reply := string(e.AppendReply(nil, replyOf(result)))
			checkJSON(t, []byte(reply))
			b := e.AppendDelta(nil, &api.Delta{Text: []byte("Pa"), Tokens: 2, Took: 12500 * time.Microsecond})
			list := events(t, e.AppendChoiceEnd(b, 0, &result))
			got := []bool{strings.HasSuffix(reply, whole+"}"), strings.HasSuffix(list[0], `],"timings":{"predicted_n":2,"predicted_ms":12.5}}`), strings.HasSuffix(list[1], whole+"}")}
			if got[0] != wanted || got[1] != wanted || got[2] != wanted {
				t.Errorf("wanted %v: %v\n%s\n%s", wanted, got, reply, strings.Join(list, "\n"))
			}
		}
	}
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
	buffer, delta := make([]byte, 0, 1024), &api.Delta{Text: []byte("Grüße \"world\"\n\xff")}
	for _, dialect := range []api.Dialect{Chat, Completions} {
		e := dialect.NewEncoder(startOf("v1.0", true))
		if n := testing.AllocsPerRun(100, func() { buffer = e.AppendDelta(buffer[:0], delta) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func BenchmarkText(b *testing.B) {
	buffer, delta := make([]byte, 0, 1024), &api.Delta{Text: []byte(" capital")}
	e := Chat.NewEncoder(startOf("v1.0", false))
	b.ReportAllocs()
	for b.Loop() {
		buffer = e.AppendDelta(buffer[:0], delta)
	}
}
