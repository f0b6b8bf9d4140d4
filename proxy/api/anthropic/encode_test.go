package anthropic

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
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

func startOf(version string, promptTokens int) api.ReplyStart {
	return api.ReplyStart{
		Request: &api.Request{}, RequestID: "r1", Created: time.Unix(1703123456, 0), ModelID: "org/demo:" + version, PromptTokens: promptTokens,
	}
}

func metadata(finish api.FinishReason) api.Metadata {
	return api.Metadata{Model: "org/demo", Version: "v1.0", TokensGenerated: 8, FinishReason: finish, PromptTokens: 7, CachedTokens: 5}
}

func replyOf(r api.Result) *api.Reply { return &api.Reply{Results: []api.Result{r}, Usage: r.Metadata} }

const (
	replyHead  = `{"id":"msg_r1","type":"message","role":"assistant","model":"org/demo:v1.0","content":[`
	usageOfAll = `"usage":{"input_tokens":2,"cache_creation_input_tokens":0,"cache_read_input_tokens":5,"output_tokens":8}`
)

func TestReply(t *testing.T) {
	thinking := metadata(api.FinishStop)
	thinking.ReasoningTokens = 3
	stopped := metadata(api.FinishStop)
	stopped.Stop = "\n\"END"
	call := func(id, arguments string) api.ToolCall { return api.ToolCall{ID: id, Name: "f", Arguments: arguments} }
	for _, c := range []struct {
		result        api.Result
		content, stop string
	}{
		{api.Result{Text: "Paris\n\"é\"", Metadata: metadata(api.FinishStop)}, `{"type":"text","text":"Paris\n\"é\""}`, `"end_turn","stop_sequence":null`},
		{api.Result{Metadata: metadata(api.FinishStop)}, ``, `"end_turn","stop_sequence":null`},
		{api.Result{Text: "Par", Metadata: metadata(api.FinishLength)}, `{"type":"text","text":"Par"}`, `"max_tokens","stop_sequence":null`},
		{api.Result{Text: "Par", Metadata: stopped}, `{"type":"text","text":"Par"}`, `"stop_sequence","stop_sequence":"\n\"END"`},
		{api.Result{Reasoning: "Hm.", Metadata: metadata(api.FinishLength)}, `{"type":"thinking","thinking":"Hm.","signature":"unsigned"}`, `"max_tokens","stop_sequence":null`},
		{
			api.Result{Reasoning: "Hm.", Text: "So", ToolCalls: []api.ToolCall{call("a", `{"x": 1}`), call("b", "")}, Metadata: metadata(api.FinishStop)},
			`{"type":"thinking","thinking":"Hm.","signature":"unsigned"},{"type":"text","text":"So"},{"type":"tool_use","id":"a","name":"f","input":{"x": 1}},` +
				`{"type":"tool_use","id":"b","name":"f","input":{}}`, `"tool_use","stop_sequence":null`,
		},
		// Input is an object, whatever the model wrote.
		{
			api.Result{ToolCalls: []api.ToolCall{call("a", `{"x":"cut`), call("b", `[1]`)}, Metadata: metadata(api.FinishLength)},
			`{"type":"tool_use","id":"a","name":"f","input":{}},{"type":"tool_use","id":"b","name":"f","input":{}}`,
			`"max_tokens","stop_sequence":null`,
		},
	} {
		same(t, Messages.NewEncoder(startOf("v1.0", 0)).AppendReply(nil, replyOf(c.result)), replyHead+c.content+`],"stop_reason":`+c.stop+`,`+usageOfAll+`}`)
	}
	body := Messages.NewEncoder(startOf("base", 0)).AppendReply(nil, replyOf(api.Result{Metadata: thinking}))
	if !strings.Contains(string(body), `"model":"org/demo:base",`) || !strings.Contains(string(body), `"output_tokens":8,"output_tokens_details":{"thinking_tokens":3}}`) {
		t.Errorf("%s", body)
	}
}

// event is an event of a stream: its name and its data.
type event struct{ name, data string }

// events checks the framing of a stream and returns its events.
func events(t *testing.T, stream []byte) []event {
	t.Helper()
	body, ok := strings.CutSuffix(string(stream), "\n\n")
	if !ok {
		t.Fatalf("the last event doesn't end: %q", stream)
	}
	var list []event
	for text := range strings.SplitSeq(body, "\n\n") {
		name, data, ok := strings.Cut(text, "\n")
		name, hasName := strings.CutPrefix(name, "event: ")
		data, hasData := strings.CutPrefix(data, "data: ")
		if !ok || !hasName || !hasData || strings.ContainsAny(data, "\n\r\u2028\u2029\u0085") {
			t.Fatalf("not a name and one line of data: %q", text)
		}
		if !strings.HasPrefix(data, `{"type":"`+name+`"`) {
			t.Errorf("the event %s has the data %s", name, data)
		}
		checkJSON(t, []byte(data))
		list = append(list, event{name, data})
	}
	return list
}

func wantStream(t *testing.T, stream []byte, want ...string) {
	t.Helper()
	var got []string
	for _, e := range events(t, stream) {
		got = append(got, e.data)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// part is one delta of a stream.
type part struct {
	kind api.DeltaKind
	text string // of DeltaToolCall: the id
}

const (
	content   = api.DeltaContent
	reasoning = api.DeltaReasoning
	toolCall  = api.DeltaToolCall
	arguments = api.DeltaToolArguments
)

// appendParts appends the deltas, and adds them to a result as the server does.
func appendParts(dst []byte, e api.Encoder, r *api.Result, parts []part) []byte {
	for _, p := range parts {
		d := api.Delta{Kind: p.kind, Text: []byte(p.text)}
		switch p.kind {
		case content:
			r.Text += p.text
		case reasoning:
			r.Reasoning += p.text
		case toolCall:
			d.Text, d.ToolCall = nil, &api.ToolCall{ID: p.text, Name: "f"}
			r.ToolCalls = append(r.ToolCalls, *d.ToolCall)
		case arguments:
			r.ToolCalls[len(r.ToolCalls)-1].Arguments += p.text
		}
		d.CallAt = len(r.ToolCalls) - 1
		dst = e.AppendDelta(dst, &d)
	}
	return dst
}

func streamOf(m api.Metadata, parts ...part) (stream []byte, r api.Result) {
	e := Messages.NewEncoder(startOf("v1.0", 7))
	r.Metadata = m
	stream = appendParts(e.AppendStart(nil), e, &r, parts)
	stream = e.AppendChoiceEnd(stream, 0, &r)
	return e.AppendEnd(stream, replyOf(r)), r
}

const (
	messageStart = `{"type":"message_start","message":` + replyHead + `],"stop_reason":null,"stop_sequence":null,` +
		`"usage":{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}`
	messageStop = `{"type":"message_stop"}`
)

func blockStart(i int, block string) string {
	return fmt.Sprintf(`{"type":"content_block_start","index":%d,"content_block":%s}`, i, block)
}

func blockDelta(i int, kind, member, text string) string {
	return fmt.Sprintf(`{"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":%s}}`, i, kind, member, text)
}

func blockStop(i int) string { return fmt.Sprintf(`{"type":"content_block_stop","index":%d}`, i) }

func messageDelta(stop string) string {
	return `{"type":"message_delta","delta":{"stop_reason":` + stop + `},` + usageOfAll + `}`
}

func TestStream(t *testing.T) {
	stream, _ := streamOf(metadata(api.FinishStop), part{content, "Paris"}, part{content, ""}, part{content, "\n\"é\"\u2028"})
	wantStream(t, stream, messageStart, blockStart(0, `{"type":"text","text":""}`), blockDelta(0, "text_delta", "text", `"Paris"`),
		blockDelta(0, "text_delta", "text", `"\n\"é\"\u2028"`), blockStop(0), messageDelta(`"end_turn","stop_sequence":null`), messageStop)
}

func TestStreamOfEverything(t *testing.T) {
	stream, _ := streamOf(metadata(api.FinishStop), part{reasoning, "Hm"}, part{reasoning, "."}, part{content, "So"},
		part{toolCall, "a"}, part{arguments, `{"x`}, part{arguments, `":1}`}, part{toolCall, "b"}, part{content, "Done"})
	wantStream(t, stream, messageStart,
		blockStart(0, `{"type":"thinking","thinking":"","signature":""}`), blockDelta(0, "thinking_delta", "thinking", `"Hm"`),
		blockDelta(0, "thinking_delta", "thinking", `"."`), blockDelta(0, "signature_delta", "signature", `"unsigned"`), blockStop(0),
		blockStart(1, `{"type":"text","text":""}`), blockDelta(1, "text_delta", "text", `"So"`), blockStop(1),
		blockStart(2, `{"type":"tool_use","id":"a","name":"f","input":{}}`), blockDelta(2, "input_json_delta", "partial_json", `"{\"x"`),
		blockDelta(2, "input_json_delta", "partial_json", `"\":1}"`), blockStop(2),
		blockStart(3, `{"type":"tool_use","id":"b","name":"f","input":{}}`), blockStop(3),
		blockStart(4, `{"type":"text","text":""}`), blockDelta(4, "text_delta", "text", `"Done"`), blockStop(4),
		messageDelta(`"tool_use","stop_sequence":null`), messageStop)
}

// Each event with text has the time of the tokens since the last such event, and the end that of all.
func TestTimings(t *testing.T) {
	const all = `,"timings":{"queue_ms":1.5,"cache_n":5,"prompt_n":2,"prompt_ms":20,"predicted_n":8,"predicted_ms":70}`
	m := metadata(api.FinishStop)
	m.QueueTime, m.PrefillTime, m.DecodeTime = 1500*time.Microsecond, 20*time.Millisecond, 70*time.Millisecond
	result := api.Result{Text: "So", ToolCalls: []api.ToolCall{{ID: "a", Name: "f", Arguments: "{}"}}, Metadata: m}
	for _, wanted := range []bool{true, false} {
		timings := func(text string) string {
			if !wanted {
				return ""
			}
			return text
		}
		start := startOf("v1.0", 7)
		start.Request.Timings = wanted
		same(t, Messages.NewEncoder(start).AppendReply(nil, replyOf(result)), replyHead+`{"type":"text","text":"So"},{"type":"tool_use","id":"a","name":"f","input":{}}],`+
			`"stop_reason":"tool_use","stop_sequence":null,`+usageOfAll+timings(all)+`}`)
		e := Messages.NewEncoder(start)
		stream := e.AppendStart(nil)
		for _, d := range []api.Delta{
			{Tokens: 1, Took: time.Millisecond}, // no text yet
			{Text: []byte("So"), Tokens: 2, Took: 12500 * time.Microsecond},
			{Text: []byte("."), Tokens: 0}, // of the same write
			{Kind: toolCall, ToolCall: &api.ToolCall{ID: "a", Name: "f"}, Tokens: 3, Took: 30 * time.Millisecond},
			{Kind: arguments, Text: []byte("{}"), Tokens: 1, Took: 10 * time.Millisecond},
		} {
			stream = e.AppendDelta(stream, &d)
		}
		part := func(i int, kind, member, text string, tokens int, took string) string {
			event := strings.TrimSuffix(blockDelta(i, kind, member, text), "}")
			if tokens > 0 {
				event += timings(fmt.Sprintf(`,"timings":{"predicted_n":%d,"predicted_ms":%s}`, tokens, took))
			}
			return event + "}"
		}
		wantStream(t, e.AppendEnd(e.AppendChoiceEnd(stream, 0, &result), replyOf(result)), messageStart,
			blockStart(0, `{"type":"text","text":""}`), part(0, "text_delta", "text", `"So"`, 3, "13.5"), part(0, "text_delta", "text", `"."`, 0, ""), blockStop(0),
			blockStart(1, `{"type":"tool_use","id":"a","name":"f","input":{}}`), part(1, "input_json_delta", "partial_json", `"{}"`, 4, "40"), blockStop(1),
			strings.TrimSuffix(messageDelta(`"tool_use","stop_sequence":null`), "}")+timings(all)+"}", messageStop)
	}
}

func TestStreamWithoutText(t *testing.T) {
	stream, _ := streamOf(metadata(api.FinishStop))
	wantStream(t, stream, messageStart, messageDelta(`"end_turn","stop_sequence":null`), messageStop)
}

func TestErrorEvents(t *testing.T) {
	late := `{"type":"error","error":{"type":"timeout_error","message":"the answer was not complete within 5m0s; ask for fewer tokens or allow more time"}}`
	e := Messages.NewEncoder(startOf("v1.0", 7))
	wantStream(t, e.AppendErrorEvent(nil, api.DeadlineExceeded(5*time.Minute)), late)

	e = Messages.NewEncoder(startOf("v1.0", 7))
	stream := appendParts(e.AppendStart(nil), e, &api.Result{}, []part{{content, "Par"}})
	wantStream(t, e.AppendErrorEvent(stream, api.DeadlineExceeded(5*time.Minute)), messageStart, blockStart(0, `{"type":"text","text":""}`),
		blockDelta(0, "text_delta", "text", `"Par"`), late)
}

// received is a message as a client puts it together.
type received struct {
	ID           string          `json:"id"`
	Type         string          `json:"type"`
	Role         string          `json:"role"`
	Model        string          `json:"model"`
	Content      []receivedBlock `json:"content"`
	StopReason   string          `json:"stop_reason"`
	StopSequence jsontext.Value  `json:"stop_sequence"`
	Usage        jsontext.Value  `json:"usage"`
}

type receivedBlock struct {
	Type      string         `json:"type"`
	Text      string         `json:"text"`
	Thinking  string         `json:"thinking"`
	Signature string         `json:"signature"`
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Input     jsontext.Value `json:"input"`
	partial   string
}

func parse(t *testing.T, body []byte) received {
	t.Helper()
	var m received
	if err := json.Unmarshal(body, &m, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return m
}

// reassemble does what a client library does with a stream, and refuses what one could stumble over.
func reassemble(t *testing.T, stream []byte) received {
	t.Helper()
	var m received
	open, ended := -1, false
	for i, e := range events(t, stream) {
		var data struct {
			Type         string        `json:"type"`
			Message      received      `json:"message"`
			Index        int           `json:"index"`
			ContentBlock receivedBlock `json:"content_block"`
			Delta        struct {
				Type         string         `json:"type"`
				Text         string         `json:"text"`
				Thinking     string         `json:"thinking"`
				Signature    string         `json:"signature"`
				PartialJSON  string         `json:"partial_json"`
				StopReason   string         `json:"stop_reason"`
				StopSequence jsontext.Value `json:"stop_sequence"`
			} `json:"delta"`
			Usage jsontext.Value `json:"usage"`
		}
		if err := json.Unmarshal([]byte(e.data), &data, json.RejectUnknownMembers(true)); err != nil {
			t.Fatalf("%s: %v", e.data, err)
		}
		if ended || (i == 0) != (e.name == "message_start") {
			t.Fatalf("event %d is %s: %s", i, e.name, stream)
		}
		switch e.name {
		case "message_start":
			m = data.Message
		case "content_block_start":
			if open >= 0 || data.Index != len(m.Content) {
				t.Fatalf("block %d begins, %d is open: %s", data.Index, open, stream)
			}
			open = data.Index
			m.Content = append(m.Content, data.ContentBlock)
		case "content_block_delta":
			if data.Index != open {
				t.Fatalf("a delta of block %d, %d is open: %s", data.Index, open, stream)
			}
			b := &m.Content[open]
			if wants := map[string]string{"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking", "input_json_delta": "tool_use"}[data.Delta.Type]; wants != b.Type {
				t.Fatalf("a %s in a block of the type %s", data.Delta.Type, b.Type)
			}
			b.Text, b.Thinking, b.partial = b.Text+data.Delta.Text, b.Thinking+data.Delta.Thinking, b.partial+data.Delta.PartialJSON
			b.Signature += data.Delta.Signature
		case "content_block_stop":
			if data.Index != open {
				t.Fatalf("block %d ends, %d is open: %s", data.Index, open, stream)
			}
			if b := &m.Content[open]; jsontext.Value(b.partial).IsValid() {
				b.Input = jsontext.Value(b.partial)
			}
			open = -1
		case "message_delta":
			m.StopReason, m.StopSequence, m.Usage = data.Delta.StopReason, data.Delta.StopSequence, data.Usage
		case "message_stop":
			ended = true
		default:
			t.Fatalf("unexpected event %s", e.name)
		}
	}
	if !ended || open >= 0 {
		t.Fatalf("the stream isn't complete: %s", stream)
	}
	return m
}

// merged is a message with the blocks of a whole reply: first what was thought, then the text, then the calls.
func merged(m received) received {
	var thought, text receivedBlock
	var calls []receivedBlock
	for _, b := range m.Content {
		b.partial = ""
		switch b.Type {
		case "thinking":
			b.Thinking = thought.Thinking + b.Thinking
			thought = b
		case "text":
			b.Text = text.Text + b.Text
			text = b
		default:
			calls = append(calls, b)
		}
	}
	m.Content = nil
	for _, b := range append([]receivedBlock{thought, text}, calls...) {
		if b.Type != "" {
			m.Content = append(m.Content, b)
		}
	}
	return m
}

// A stream put together is the same message as the whole reply, in whatever order its parts come.
func TestStreamIsTheReply(t *testing.T) {
	kinds := [][]part{
		{{content, "Pa"}, {content, ""}, {content, "ris"}},
		{{reasoning, "Hm"}, {reasoning, "."}},
		{{toolCall, "a"}, {arguments, `{"x"`}, {arguments, `:1}`}},
		{{toolCall, "b"}},
		{{toolCall, "c"}, {arguments, `{"cut`}},
	}
	stopped := metadata(api.FinishStop)
	stopped.Stop = "END"
	tried := 0
	var try func(parts []part, depth int)
	try = func(parts []part, depth int) {
		for _, m := range []api.Metadata{metadata(api.FinishStop), metadata(api.FinishLength), stopped} {
			stream, result := streamOf(m, parts...)
			got := fmt.Sprintf("%+v", merged(reassemble(t, stream)))
			want := fmt.Sprintf("%+v", merged(parse(t, Messages.NewEncoder(startOf("v1.0", 7)).AppendReply(nil, replyOf(result)))))
			if got != want {
				t.Fatalf("%v:\nstream %s\nreply  %s", parts, got, want)
			}
			tried++
		}
		for _, kind := range kinds {
			if depth > 0 {
				try(append(slices.Clip(parts), kind...), depth-1)
			}
		}
	}
	try(nil, 4)
	if tried != 3*(1+5+25+125+625) {
		t.Errorf("%d streams", tried)
	}
}

func TestDeltasDoNotAllocate(t *testing.T) {
	buffer, text := make([]byte, 0, 4096), []byte("Grüße \"world\"\n\xff")
	call := &api.ToolCall{ID: "a", Name: "f"}
	list := []api.Delta{{Text: text}, {Kind: reasoning, Text: text}, {Kind: toolCall, ToolCall: call}, {Kind: arguments, Text: text}}
	e := Messages.NewEncoder(startOf("v1.0", 7))
	if n := testing.AllocsPerRun(100, func() {
		buffer = buffer[:0]
		for i := range list {
			buffer = e.AppendDelta(buffer, &list[i])
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkText(b *testing.B) {
	buffer, delta := make([]byte, 0, 1024), &api.Delta{Text: []byte(" capital")}
	e := Messages.NewEncoder(startOf("v1.0", 7))
	b.ReportAllocs()
	for b.Loop() {
		buffer = e.AppendDelta(buffer[:0], delta)
	}
}

func TestEveryErrorHasAForm(t *testing.T) {
	if types := api.Types(); len(types) != len(kinds) {
		t.Errorf("%d types, %d forms", len(types), len(kinds))
	}
	byStatus := map[int][]string{
		400: {invalidRequest}, 401: {authentication}, 403: {permission}, 404: {notFound}, 405: {invalidRequest}, 408: {invalidRequest}, 413: {requestTooLarge},
		415: {invalidRequest}, 422: {invalidRequest}, 426: {invalidRequest}, 429: {rateLimit}, 431: {invalidRequest},
		499: {apiError}, 500: {apiError}, 503: {overloaded, apiError}, 504: {timeout},
	}
	for _, typ := range api.Types() {
		kind, ok := kinds[typ]
		if !ok || !slices.Contains(byStatus[typ.Outcome().Status], kind) {
			t.Errorf("%s with status %d is %q", typ, typ.Outcome().Status, kind)
		}
		var got struct {
			Type  string `json:"type"`
			Error struct {
				Type    string `json:"type"`
				Message string `json:"message"`
			} `json:"error"`
			RequestID string `json:"request_id"`
		}
		body := Messages.AppendError(nil, api.NewError(typ, "why"), "r1")
		if err := json.Unmarshal(body, &got, json.RejectUnknownMembers(true)); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if got.Type != "error" || got.Error.Type != kind || got.RequestID != "r1" || !strings.Contains(got.Error.Message, "why") {
			t.Errorf("%s: %s", typ, body)
		}
	}
	if kindOf("from_the_future") != apiError {
		t.Error("an unknown type isn't internal")
	}
}

// Errors that are made elsewhere speak of the fields of this dialect.
func TestErrorBodies(t *testing.T) {
	models := []api.Model{{Name: "demo", Versions: []string{"base", "v1"}}}
	_, _, noModel := api.Resolve(models, "", "", "base_model ", "")
	_, _, noDefault := api.Resolve(models, "gone", "", "", "")
	fromEngine := api.NewError(api.TypeContextExceeded, "%s", "whatever the engine writes")
	fromEngine.Param, fromEngine.PromptTokens, fromEngine.ContextTokens = "prompt", 8200, 8192
	unknown := api.NewError(api.TypeContextExceeded, "the prompt doesn't fit")
	for _, c := range []struct {
		err        *api.Error
		kind, text string
	}{
		{api.Invalid("top_k", "a \"b\"\u2028"), invalidRequest, `a \"b\"\u2028`},
		{api.ContextExceeded(9000, 8192), invalidRequest, `prompt is too long: 9000 tokens > 8192 maximum`},
		{fromEngine, invalidRequest, `prompt is too long: 8200 tokens > 8192 maximum`},
		{api.ContextExceeded(0, 8192), invalidRequest, `prompt is too long: the prompt is longer than the model's context of 8192 tokens; shorten it`},
		{unknown, invalidRequest, `prompt is too long: the prompt doesn't fit`},
		{noModel, notFound, `model \"base_model \" is not installed; installed: demo; add a model as <org>/<name>/model.gguf in MODELS_DIR, no restart needed`},
		{noDefault, notFound, `no model given, and the default model \"gone\" is not installed; installed: demo; ` +
			`add a model as <org>/<name>/model.gguf in MODELS_DIR, no restart needed`},
		{api.GrammarTooComplex("json_schema"), invalidRequest, `output_config.format is too complex to be followed in time; simplify it`},
		{api.GrammarTooComplex("tools"), invalidRequest, `tools are too complex to be followed in time; simplify their parameters`},
		{api.Invalid("max_new_tokens", "max_new_tokens is 9, ask for fewer"), invalidRequest, `max_tokens is 9, ask for fewer`},
		{api.Internal(errors.New("open /secret/path")), apiError, `internal error; the log has details under the request id r1`},
		{api.QueueFull(64, time.Second), overloaded, `all 64 waiting places are taken; try again later`},
	} {
		same(t, Messages.AppendError(nil, c.err, "r1"), `{"type":"error","error":{"type":"`+c.kind+`","message":"`+c.text+`"},"request_id":"r1"}`)
	}
}
