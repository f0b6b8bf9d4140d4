package responses

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
)

func same(t *testing.T, got []byte, want string) {
	t.Helper()
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The members of a response behind its usage, for testRequest.
const echoed = `,"instructions":"Be\u2028brief.","max_output_tokens":null,"max_tool_calls":null,"metadata":{"a":"b"},"parallel_tool_calls":true,` +
	`"previous_response_id":null,"prompt":null,"prompt_cache_key":null,"reasoning":{"effort":null,"summary":null},"safety_identifier":null,` +
	`"service_tier":"default","store":false,"temperature":null,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[` +
	`{"type":"function","name":"f","description":null,"parameters":null,"strict":false},` +
	`{"type":"function","name":"f","namespace":"n","description":null,"parameters":null,"strict":false},` +
	`{"type":"custom","name":"p","description":null}],"top_logprobs":0,"top_p":null,"truncation":"disabled","user":null}`

const usage = `{"input_tokens":7,"input_tokens_details":{"cache_write_tokens":0,"cached_tokens":4},"output_tokens":8,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":15}`

const responseStart = `{"id":"resp_r1","object":"response","created_at":1703123456,"status":`

func TestReply(t *testing.T) {
	f := func(finish api.FinishReason, status, output string, steps ...step) {
		t.Helper()
		same(t, wholeReply(Dialect.NewEncoder(startOf(testRequest(t))), steps, finish),
			responseStart+status+`,"model":"org/demo:v1.0","output":[`+output+`],"usage":`+usage+echoed)
	}
	const (
		isCompleted  = `"completed","background":false,"completed_at":1703123458,"error":null,"incomplete_details":null`
		isIncomplete = `"incomplete","background":false,"completed_at":null,"error":null,"incomplete_details":{"reason":"max_output_tokens"}`
	)
	f(api.FinishStop, isCompleted, `{"id":"msg_r1_0","type":"message","status":"completed","role":"assistant","content":[`+
		`{"type":"output_text","text":"Paris\n\"é\"","annotations":[],"logprobs":[]}]}`, say("Paris\n\"é\""))
	f(api.FinishStop, isCompleted, `{"id":"msg_r1_0","type":"message","status":"completed","role":"assistant","content":[`+
		`{"type":"output_text","text":"","annotations":[],"logprobs":[]}]}`)
	f(api.FinishLength, isIncomplete, `{"id":"rs_r1_0","type":"reasoning","status":"incomplete","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]}`, think("hm"))
	f(api.FinishLength, isIncomplete, `{"id":"rs_r1_0","type":"reasoning","status":"completed","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},`+
		`{"id":"msg_r1_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]},`+
		`{"id":"fc_r1_2","type":"function_call","status":"completed","call_id":"call_0","name":"f","namespace":"n","arguments":"{\"a\":1}"},`+
		`{"id":"fc_r1_3","type":"function_call","status":"completed","call_id":"call_1","name":"f","arguments":"{}"},`+
		`{"id":"ctc_r1_4","type":"custom_tool_call","status":"completed","call_id":"call_2","name":"p","input":"a\nb"},`+
		`{"id":"fc_r1_5","type":"function_call","status":"incomplete","call_id":"call_3","name":"other","arguments":""}`,
		think("hm"), say("a"), calls("n.f"), args(`{"a":1}`), calls("f"), calls("p"), args(`{"input":"a\nb"}`), calls("other"))
}

func TestStream(t *testing.T) {
	event := func(name, data string) string {
		return "event: " + name + "\ndata: {\"type\":\"" + name + "\"," + data + "}\n\n"
	}
	const (
		begun   = responseStart + `"in_progress","background":false,"completed_at":null,"error":null,"incomplete_details":null,"model":"org/demo:v1.0","output":[],"usage":null` + echoed
		thought = `{"id":"rs_r1_0","type":"reasoning","status":"completed","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]}`
		message = `{"id":"msg_r1_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Paris.","annotations":[],"logprobs":[]}]}`
		called  = `{"id":"fc_r1_2","type":"function_call","status":"completed","call_id":"call_0","name":"f","namespace":"n","arguments":"{\"a\":1}"}`
		patched = `{"id":"ctc_r1_3","type":"custom_tool_call","status":"completed","call_id":"call_1","name":"p","input":"\"a\""}`
		final   = responseStart + `"completed","background":false,"completed_at":1703123458,"error":null,"incomplete_details":null,"model":"org/demo:v1.0","output":[` +
			thought + "," + message + "," + called + "," + patched + `],"usage":` + usage + echoed
	)
	steps := []step{think("hm"), say("Par"), say("is."), calls("n.f"), args(`{"a":`), args(`1}`), calls("p"), args(`{"input":`), args(`"\"a\""}`)}
	same(t, wholeStream(Dialect.NewEncoder(startOf(testRequest(t))), steps, api.FinishStop), ""+
		event("response.created", `"sequence_number":0,"response":`+begun)+
		event("response.in_progress", `"sequence_number":1,"response":`+begun)+
		event("response.output_item.added", `"sequence_number":2,"output_index":0,"item":{"id":"rs_r1_0","type":"reasoning","status":"in_progress","summary":[],"content":[]}`)+
		event("response.content_part.added", `"sequence_number":3,"item_id":"rs_r1_0","output_index":0,"content_index":0,"part":{"type":"reasoning_text","text":""}`)+
		event("response.reasoning_text.delta", `"sequence_number":4,"item_id":"rs_r1_0","output_index":0,"content_index":0,"delta":"hm"`)+
		event("response.reasoning_text.done", `"sequence_number":5,"item_id":"rs_r1_0","output_index":0,"content_index":0,"text":"hm"`)+
		event("response.content_part.done", `"sequence_number":6,"item_id":"rs_r1_0","output_index":0,"content_index":0,"part":{"type":"reasoning_text","text":"hm"}`)+
		event("response.output_item.done", `"sequence_number":7,"output_index":0,"item":`+thought)+
		event("response.output_item.added", `"sequence_number":8,"output_index":1,"item":{"id":"msg_r1_1","type":"message","status":"in_progress","role":"assistant","content":[]}`)+
		event("response.content_part.added", `"sequence_number":9,"item_id":"msg_r1_1","output_index":1,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}`)+
		event("response.output_text.delta", `"sequence_number":10,"item_id":"msg_r1_1","output_index":1,"content_index":0,"delta":"Par","logprobs":[]`)+
		event("response.output_text.delta", `"sequence_number":11,"item_id":"msg_r1_1","output_index":1,"content_index":0,"delta":"is.","logprobs":[]`)+
		event("response.output_text.done", `"sequence_number":12,"item_id":"msg_r1_1","output_index":1,"content_index":0,"text":"Paris.","logprobs":[]`)+
		event("response.content_part.done", `"sequence_number":13,"item_id":"msg_r1_1","output_index":1,"content_index":0,"part":{"type":"output_text","text":"Paris.","annotations":[],"logprobs":[]}`)+
		event("response.output_item.done", `"sequence_number":14,"output_index":1,"item":`+message)+
		event("response.output_item.added", `"sequence_number":15,"output_index":2,"item":{"id":"fc_r1_2","type":"function_call","status":"in_progress","call_id":"call_0","name":"f","namespace":"n","arguments":""}`)+
		event("response.function_call_arguments.delta", `"sequence_number":16,"item_id":"fc_r1_2","output_index":2,"delta":"{\"a\":"`)+
		event("response.function_call_arguments.delta", `"sequence_number":17,"item_id":"fc_r1_2","output_index":2,"delta":"1}"`)+
		event("response.function_call_arguments.done", `"sequence_number":18,"item_id":"fc_r1_2","output_index":2,"name":"f","arguments":"{\"a\":1}"`)+
		event("response.output_item.done", `"sequence_number":19,"output_index":2,"item":`+called)+
		event("response.output_item.added", `"sequence_number":20,"output_index":3,"item":{"id":"ctc_r1_3","type":"custom_tool_call","status":"in_progress","call_id":"call_1","name":"p","input":""}`)+
		event("response.custom_tool_call_input.delta", `"sequence_number":21,"item_id":"ctc_r1_3","output_index":3,"delta":"\"a\""`)+
		event("response.custom_tool_call_input.done", `"sequence_number":22,"item_id":"ctc_r1_3","output_index":3,"input":"\"a\""`)+
		event("response.output_item.done", `"sequence_number":23,"output_index":3,"item":`+patched)+
		event("response.completed", `"sequence_number":24,"response":`+final))
}

// Each event with text has the time of the tokens since the last such event, and the response at the end that of all.
func TestTimings(t *testing.T) {
	result := resultOf([]step{say("Paris."), calls("p"), args(`{"input":"a"}`)}, api.FinishStop)
	m := &result.Metadata
	m.QueueTime, m.PrefillTime, m.DecodeTime = 1500*time.Microsecond, 20*time.Millisecond, 70*time.Millisecond
	reply := &api.Reply{Results: []api.Result{result}, Usage: *m}
	const all = `,"timings":{"queue_ms":1.5,"cache_n":4,"prompt_n":3,"prompt_ms":20,"predicted_n":8,"predicted_ms":70}`
	for _, wanted := range []bool{true, false} {
		request := testRequest(t)
		request.Timings = wanted
		if got := string(Dialect.NewEncoder(startOf(request)).AppendReply(nil, reply)); strings.HasSuffix(got, all+"}") != wanted || strings.Contains(got, "timings") != wanted {
			t.Errorf("wanted %v: %s", wanted, got)
		}
		e := Dialect.NewEncoder(startOf(request))
		stream := e.AppendStart(nil)
		for _, d := range []api.Delta{
			{Tokens: 1, Took: time.Millisecond}, // no text yet
			{Text: []byte("Par"), Tokens: 2, Took: 12500 * time.Microsecond},
			{Text: []byte("is.")}, // of the same write
			{Kind: api.DeltaToolCall, ToolCall: &api.ToolCall{ID: "call_0", Name: "p"}, Tokens: 3, Took: 30 * time.Millisecond},
			{Kind: api.DeltaToolArguments, Text: []byte(`{"input":"a"}`), Tokens: 1, Took: 10 * time.Millisecond},
		} {
			stream = e.AppendDelta(stream, &d)
		}
		stream = e.AppendEnd(e.AppendChoiceEnd(stream, 0, &result), reply)
		if !wanted { // what reads it takes the members of OpenAI's API only
			readStream(t, stream)
		}
		want := map[string]string{
			`"delta":"Par","logprobs":[]`: `,"timings":{"predicted_n":3,"predicted_ms":13.5}`, `"delta":"is.","logprobs":[]`: "",
			`"output_index":1,"delta":"a"`: `,"timings":{"predicted_n":4,"predicted_ms":40}`, `"user":null`: all,
		}
		for before, timings := range want {
			if !wanted {
				timings = ""
			}
			if end := strings.Repeat("}", strings.Count(before, "user")+1) + "\n\n"; !strings.Contains(string(stream), before+timings+end) {
				t.Errorf("wanted %v: %s%s isn't in\n%s", wanted, before, timings, stream)
			}
		}
		if strings.Contains(string(stream), "timings") != wanted {
			t.Errorf("wanted %v:\n%s", wanted, stream)
		}
	}
}

// What a response repeats of its request.
func TestEcho(t *testing.T) {
	for fields, want := range map[string]string{
		`"temperature":0.7,"top_p":0,"max_output_tokens":2e9`:                                                 `"temperature":0.7 "top_p":0 "max_output_tokens":2000000000`,
		`"metadata":{ "a" : "b" , "c":"\u2028` + "\u2029\u0085" + `\n"}`:                                      `"metadata":{"a":"b","c":"\u2028\u2029\u0085\n"}`,
		`"metadata":null,"instructions":"a\nb"`:                                                               `"metadata":{} "instructions":"a\nb"`,
		`"user":"u","safety_identifier":"s","prompt_cache_key":"k"`:                                           `"user":"u" "safety_identifier":"s" "prompt_cache_key":"k"`,
		`"store":true,"truncation":"auto","service_tier":"flex"`:                                              `"store":false "truncation":"disabled" "service_tier":"default"`,
		`"reasoning":{"effort":"low","summary":"detailed"}`:                                                   `"reasoning":{"effort":"low","summary":null}`,
		`"parallel_tool_calls":false`:                                                                         `"parallel_tool_calls":false "tool_choice":"auto"`,
		`"text":{"format":{"type":"json_object"}}`:                                                            `"text":{"format":{"type":"json_object"}}`,
		`"text":{"format":{"type":"json_schema","name":"n","description":"d","schema":{ "type" : "array" }}}`: `"text":{"format":{"type":"json_schema","name":"n","description":"d","schema":{"type":"array"},"strict":true}}`,
		`"include":["message.output_text.logprobs"],"top_logprobs":3`:                                         `"top_logprobs":3`,
		`"tools":[{"type":"function","name":"f","description":"d","parameters":{ "type" : "object" }},{"type":"web_search"}],"tool_choice":"required"`:                              `"tools":[{"type":"function","name":"f","description":"d","parameters":{"type":"object"},"strict":false}] "tool_choice":"required"`,
		`"tools":[{"type":"function","name":"f"},{"type":"custom","name":"p"}],"tool_choice":{"type":"custom","name":"p"}`:                                                          `"tool_choice":{"type":"custom","name":"p"}`,
		`"tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}],"tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"g"}]}`: `"tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"g"}]}`,
		`"tools":[{"type":"function","name":"f"}],"tool_choice":"none"`:                                                                                                             `"tool_choice":"none"`,
	} {
		r, err := Dialect.Decode([]byte(bodyStart+","+fields+"}"), api.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", fields, err)
		}
		body := wholeReply(Dialect.NewEncoder(startOf(r)), nil, api.FinishStop)
		checkJSON(t, body)
		for member := range strings.SplitSeq(want, ` "`) {
			if member = `"` + strings.TrimPrefix(member, `"`); !strings.Contains(string(body), ","+member+",") && !strings.Contains(string(body), ","+member+"}") {
				t.Errorf("%s: no %s in %s", fields, member, body)
			}
		}
	}
}

func token(text string) api.TokenLogprob { return api.TokenLogprob{Bytes: []byte(text), Logprob: -0.5} }

const logprobsBody = bodyStart + `,"include":["message.output_text.logprobs"],"top_logprobs":2}`

func TestLogprobs(t *testing.T) {
	r, failure := Dialect.Decode([]byte(logprobsBody), api.Limits{})
	if failure != nil {
		t.Fatal(failure)
	}
	unlikely := token("is")
	unlikely.Logprob = float32(math.Inf(-1))
	unlikely.Top = []api.TopLogprob{{Bytes: []byte("is"), Logprob: -1}, {Bytes: []byte{0xc3}, Logprob: -2}}
	result := api.Result{Text: "Paris", Logprobs: []api.TokenLogprob{token("Par"), unlikely, token("")}, Metadata: api.Metadata{FinishReason: api.FinishStop}}
	const (
		first  = `{"token":"Par","bytes":[80,97,114],"logprob":-0.5,"top_logprobs":[]}`
		second = `{"token":"is","bytes":[105,115],"logprob":-9999,"top_logprobs":[{"token":"is","bytes":[105,115],"logprob":-1},{"token":"` + "\uFFFD" + `","bytes":[195],"logprob":-2}]}`
		part   = `{"type":"output_text","text":"Paris","annotations":[],"logprobs":[` + first + "," + second + `]}`
	)
	reply := &api.Reply{Results: []api.Result{result}, Usage: result.Metadata}
	if body := Dialect.NewEncoder(startOf(r)).AppendReply(nil, reply); !strings.Contains(string(body), part) {
		t.Errorf("%s", body)
	}
	e := Dialect.NewEncoder(startOf(r))
	stream := e.AppendStart(nil)
	for i, text := range []string{"Par", "is", ""} {
		stream = e.AppendDelta(stream, &api.Delta{Text: []byte(text), Logprobs: result.Logprobs[i : i+1]})
	}
	stream = e.AppendEnd(e.AppendChoiceEnd(stream, 0, &result), reply)
	readStream(t, stream)
	for _, want := range []string{`"delta":"Par","logprobs":[` + first + `]}`, `"delta":"is","logprobs":[` + second + `]}`, `"text":"Paris","logprobs":[` + first + "," + second + `]}`, part + `}`, `"content":[` + part + `]`} {
		if !strings.Contains(string(stream), want) {
			t.Errorf("no %s in %s", want, stream)
		}
	}
}

// tokensOf lists the tokens of the last message of a response.
func tokensOf(t *testing.T, body []byte) []string {
	t.Helper()
	var r struct {
		Output []struct {
			Content []struct{ Logprobs []struct{ Token string } }
		}
	}
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	var tokens []string
	for _, it := range r.Output {
		for _, part := range it.Content {
			for _, l := range part.Logprobs {
				tokens = append(tokens, l.Token)
			}
		}
	}
	return tokens
}

// Tokens of reasoning and calls are not those of the message, also where they come without text.
func TestLogprobsAreThoseOfTheMessage(t *testing.T) {
	r, failure := Dialect.Decode([]byte(logprobsBody), api.Limits{})
	if failure != nil {
		t.Fatal(failure)
	}
	type piece struct {
		kind   api.DeltaKind
		text   string
		tokens string // separated by |
	}
	for _, c := range []struct {
		pieces []piece
		want   string
	}{
		{[]piece{{text: "a", tokens: "a"}, {text: " b", tokens: " b"}}, "a| b"},
		// The server gives the tokens of a piece without a message to a delta without text.
		{[]piece{{kind: api.DeltaReasoning, text: "hm"}, {tokens: "<think>|hm"}, {text: "a", tokens: "</think>|a"}}, "a"},
		{[]piece{{kind: api.DeltaReasoning, text: "a"}, {tokens: "<think>|a"}, {tokens: "</think>"}, {text: "aa", tokens: "aa"}}, "aa"},
		{[]piece{{kind: api.DeltaReasoning, text: "a"}, {tokens: "<think>|a|</think>"}, {text: "a", tokens: "a"}}, "a"},
		// A text that could have become a stop string is held back, its tokens aren't.
		{[]piece{{tokens: "St"}, {tokens: "op"}, {text: "Stopped", tokens: "ped"}}, "St|op|ped"},
		{[]piece{{kind: api.DeltaReasoning, text: "hm"}, {tokens: "hm|</think>"}, {tokens: "St"}, {text: "Stop", tokens: "op"}}, "St|op"},
		// Characters of several tokens.
		{[]piece{{tokens: "\xe2\x82"}, {text: "€", tokens: "\xac"}}, "\uFFFD\uFFFD|\uFFFD"},
		{[]piece{{text: "a", tokens: "a"}, {kind: api.DeltaToolCall}, {tokens: "<call>"}}, "a"},
	} {
		e := Dialect.NewEncoder(startOf(r))
		stream := e.AppendStart(nil)
		result := api.Result{Metadata: api.Metadata{FinishReason: api.FinishStop}}
		for _, p := range c.pieces {
			d := api.Delta{Kind: p.kind, Text: []byte(p.text)}
			switch p.kind {
			case api.DeltaContent:
				result.Text += p.text
			case api.DeltaReasoning:
				result.Reasoning += p.text
			case api.DeltaToolCall:
				d.ToolCall = &api.ToolCall{ID: "c", Name: "f"}
				result.ToolCalls = append(result.ToolCalls, *d.ToolCall)
			}
			if p.tokens != "" {
				for text := range strings.SplitSeq(p.tokens, "|") {
					d.Logprobs = append(d.Logprobs, token(text))
				}
			}
			result.Logprobs = append(result.Logprobs, d.Logprobs...)
			stream = e.AppendDelta(stream, &d)
		}
		reply := &api.Reply{Results: []api.Result{result}, Usage: result.Metadata}
		stream = e.AppendEnd(e.AppendChoiceEnd(stream, 0, &result), reply)
		_, final, _ := readStream(t, stream)
		if got := strings.Join(tokensOf(t, final), "|"); got != c.want {
			t.Errorf("%+v: the stream has %s", c.pieces, got)
		}
		if got := strings.Join(tokensOf(t, Dialect.NewEncoder(startOf(r)).AppendReply(nil, reply)), "|"); got != c.want {
			t.Errorf("%+v: the reply has %s", c.pieces, got)
		}
	}
}

// What is held back is bounded, however long a model thinks.
func TestHeldTokensAreBounded(t *testing.T) {
	var h heldTokens
	for range 10 * maxHeldTokens {
		h.add([]api.TokenLogprob{token("ab")})
	}
	if len(h.entries) != maxHeldTokens || len(h.ends) != maxHeldTokens || len(h.text) != 2*maxHeldTokens {
		t.Errorf("%d tokens, %d bytes", len(h.entries), len(h.text))
	}
	if got, _ := h.take([]byte("abc"), []api.TokenLogprob{token("c")}); strings.Count(string(got), `"token":`) != 1 {
		t.Errorf("%s", got)
	}
}

func TestDeltasDoNotAllocate(t *testing.T) {
	e := Dialect.NewEncoder(startOf(testRequest(t)))
	buffer := e.AppendStart(make([]byte, 0, 1<<16))
	for _, d := range []*api.Delta{
		{Kind: api.DeltaReasoning, Text: []byte("Grüße")},
		{Text: []byte("Grüße \"world\"\n\xff")},
		{Kind: api.DeltaToolCall, ToolCall: &api.ToolCall{ID: "c", Name: "f"}},
		{Kind: api.DeltaToolArguments, Text: []byte(`{"a"`)},
	} {
		buffer = e.AppendDelta(buffer[:0], d) // begins the item
		if d.ToolCall != nil {
			continue
		}
		if n := testing.AllocsPerRun(1000, func() { buffer = e.AppendDelta(buffer[:0], d) }); n != 0 {
			t.Errorf("%v allocations for %s", n, d.Text)
		}
	}
}

func BenchmarkText(b *testing.B) {
	buffer, delta := make([]byte, 0, 1024), &api.Delta{Text: []byte(" capital")}
	e := Dialect.NewEncoder(startOf(testRequest(b)))
	b.ReportAllocs()
	for b.Loop() {
		buffer = e.AppendDelta(buffer[:0], delta)
	}
}
