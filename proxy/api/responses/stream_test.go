package responses

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// step is a delta of an answer.
type step struct {
	kind api.DeltaKind
	text string // of DeltaToolCall the function's name
}

func think(text string) step { return step{api.DeltaReasoning, text} }
func say(text string) step   { return step{api.DeltaContent, text} }
func calls(name string) step { return step{api.DeltaToolCall, name} }
func args(text string) step  { return step{api.DeltaToolArguments, text} }

// testRequest offers f, one of a namespace, and a custom tool.
func testRequest(t testing.TB) *api.Request {
	t.Helper()
	r, err := Dialect.Decode([]byte(`{"input":"Hi","instructions":"Be\u2028brief.","metadata":{"a":"b"},"tools":[{"type":"function","name":"f"},
		{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]},{"type":"custom","name":"p"}]}`), api.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func startOf(r *api.Request) api.ReplyStart {
	return api.ReplyStart{Request: r, RequestID: "r1", Created: time.Unix(1703123456, 789e6), ModelID: "org/demo:v1.0"}
}

// resultOf is the whole of an answer that came in steps.
func resultOf(steps []step, finish api.FinishReason) api.Result {
	r := api.Result{Metadata: api.Metadata{
		FinishReason: finish, PromptTokens: 7, CachedTokens: 4, TokensGenerated: 8, ReasoningTokens: 3, ResponseTime: 2 * time.Second,
	}}
	for _, s := range steps {
		switch s.kind {
		case api.DeltaContent:
			r.Text += s.text
		case api.DeltaReasoning:
			r.Reasoning += s.text
		case api.DeltaToolCall:
			r.ToolCalls = append(r.ToolCalls, api.ToolCall{ID: fmt.Sprintf("call_%d", len(r.ToolCalls)), Name: s.text})
		case api.DeltaToolArguments:
			r.ToolCalls[len(r.ToolCalls)-1].Arguments += s.text
		}
	}
	return r
}

// appendSteps appends the deltas of an answer, as the server makes them.
func appendSteps(dst []byte, e api.Encoder, steps []step) []byte {
	n := -1
	for _, s := range steps {
		d := api.Delta{Kind: s.kind, Text: []byte(s.text), CallAt: n}
		if s.kind == api.DeltaToolCall {
			n++
			d.Text, d.CallAt, d.ToolCall = nil, n, &api.ToolCall{ID: fmt.Sprintf("call_%d", n), Name: s.text}
		}
		dst = e.AppendDelta(dst, &d)
	}
	return dst
}

func wholeStream(e api.Encoder, steps []step, finish api.FinishReason) []byte {
	result := resultOf(steps, finish)
	dst := appendSteps(e.AppendStart(nil), e, steps)
	dst = e.AppendChoiceEnd(dst, 0, &result)
	return e.AppendEnd(dst, &api.Reply{Results: []api.Result{result}, Usage: result.Metadata})
}

func wholeReply(e api.Encoder, steps []step, finish api.FinishReason) []byte {
	result := resultOf(steps, finish)
	return e.AppendReply(nil, &api.Reply{Results: []api.Result{result}, Usage: result.Metadata})
}

// streamEvent is what any event has.
type streamEvent struct {
	Type           string          `json:"type"`
	SequenceNumber int             `json:"sequence_number"`
	ItemID         string          `json:"item_id"`
	OutputIndex    *int            `json:"output_index"`
	ContentIndex   *int            `json:"content_index"`
	Delta          string          `json:"delta"`
	Text           *string         `json:"text"`
	Name           string          `json:"name"`
	Arguments      *string         `json:"arguments"`
	Input          *string         `json:"input"`
	Part           jsontext.Value  `json:"part"`
	Item           jsontext.Value  `json:"item"`
	Response       jsontext.Value  `json:"response"`
	Logprobs       *jsontext.Value `json:"logprobs"`
}

type responseObject struct {
	ID                string           `json:"id"`
	Status            string           `json:"status"`
	Error             jsontext.Value   `json:"error"`
	IncompleteDetails jsontext.Value   `json:"incomplete_details"`
	Output            []jsontext.Value `json:"output"`
	Usage             jsontext.Value   `json:"usage"`
}

type itemObject struct {
	ID        string       `json:"id"`
	Type      string       `json:"type"`
	Status    string       `json:"status"`
	Content   []partObject `json:"content"`
	Summary   []string     `json:"summary"`
	Role      string       `json:"role"`
	CallID    string       `json:"call_id"`
	Name      string       `json:"name"`
	Namespace string       `json:"namespace"`
	Arguments string       `json:"arguments"`
	Input     string       `json:"input"`
}

type partObject struct {
	Type        string         `json:"type"`
	Text        string         `json:"text"`
	Annotations []string       `json:"annotations"`
	Logprobs    jsontext.Value `json:"logprobs"`
}

func (it *itemObject) text() string {
	if len(it.Content) > 0 {
		return it.Content[0].Text
	}
	return it.Arguments + it.Input
}

// events checks the framing of a stream and what every event has.
func events(t *testing.T, stream []byte) []streamEvent {
	t.Helper()
	body, ok := strings.CutSuffix(string(stream), "\n\n")
	if !ok {
		t.Fatalf("the last event doesn't end: %q", stream)
	}
	var list []streamEvent
	for text := range strings.SplitSeq(body, "\n\n") {
		head, data, ok := strings.Cut(text, "\ndata: ")
		name, named := strings.CutPrefix(head, "event: ")
		if !ok || !named {
			t.Fatalf("not a name and one line of data: %q", text)
		}
		checkJSON(t, []byte(data))
		var e streamEvent
		if err := json.Unmarshal([]byte(data), &e, json.RejectUnknownMembers(true)); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if e.Type != name || e.SequenceNumber != len(list) {
			t.Errorf("event %d has the name %s and is %s", len(list), name, data)
		}
		list = append(list, e)
	}
	return list
}

// reader puts a stream together as clients do, and checks that each event is where it may be.
type reader struct {
	t      *testing.T
	output []jsontext.Value // items that are done
	open   *itemObject      // the one in between
	text   string           // of its deltas
	parts  int
	ended  bool // its text is done
}

func (r *reader) check(holds bool, e *streamEvent) {
	r.t.Helper()
	if !holds {
		r.t.Errorf("event %d, %s: unexpected: %+v", e.SequenceNumber, e.Type, e)
	}
}

func (r *reader) readItem(v jsontext.Value) *itemObject {
	r.t.Helper()
	var it itemObject
	if err := json.Unmarshal(v, &it, json.RejectUnknownMembers(true)); err != nil {
		r.t.Fatalf("%s: %v", v, err)
	}
	return &it
}

func (r *reader) read(e *streamEvent) {
	r.t.Helper()
	switch e.Type {
	case "response.output_item.added":
		it := r.readItem(e.Item)
		r.check(r.open == nil && *e.OutputIndex == len(r.output) && it.Status == inProgress && it.text() == "", e)
		r.open, r.text, r.parts, r.ended = it, "", 0, false
		return
	case "response.output_item.done":
		it := r.readItem(e.Item)
		r.check(r.open != nil && r.ended && it.ID == r.open.ID && it.Type == r.open.Type && it.text() == r.text && it.CallID == r.open.CallID, e)
		r.output, r.open = append(r.output, e.Item), nil
		return
	}
	if r.open == nil {
		r.t.Fatalf("%s without an item", e.Type)
	}
	hasPart := r.open.Type == "reasoning" || r.open.Type == "message"
	r.check(e.ItemID == r.open.ID && *e.OutputIndex == len(r.output) && (e.ContentIndex != nil) == hasPart, e)
	switch e.Type {
	case "response.content_part.added":
		r.parts++
		r.check(hasPart && r.parts == 1 && !r.ended, e)
	case "response.content_part.done":
		var p partObject
		if err := json.Unmarshal(e.Part, &p); err != nil || p.Text != r.text || !r.ended {
			r.t.Errorf("%s: %v", e.Part, err)
		}
	case "response.output_text.delta", "response.reasoning_text.delta", "response.function_call_arguments.delta", "response.custom_tool_call_input.delta":
		r.check(!r.ended && (!hasPart || r.parts == 1), e)
		r.check((e.Logprobs != nil) == (r.open.Type == "message"), e)
		r.text += e.Delta
	case "response.output_text.done", "response.reasoning_text.done":
		r.check(*e.Text == r.text, e)
		r.ended = true
	case "response.function_call_arguments.done":
		r.check(*e.Arguments == r.text && e.Name == r.open.Name, e)
		r.ended = true
	case "response.custom_tool_call_input.done":
		r.check(*e.Input == r.text, e)
		r.ended = true
	default:
		r.t.Errorf("unexpected event %s", e.Type)
	}
}

// readStream reads a stream between its first two events and the last one, and returns the response of that.
func readStream(t *testing.T, stream []byte) (*reader, jsontext.Value, string) {
	t.Helper()
	list := events(t, stream)
	if len(list) < 3 || list[0].Type != "response.created" || list[1].Type != "response.in_progress" {
		t.Fatalf("begins with %+v", list[0])
	}
	r := &reader{t: t}
	last := &list[len(list)-1]
	for i := range list[2 : len(list)-1] {
		r.read(&list[2+i])
	}
	if string(list[0].Response) != string(list[1].Response) {
		t.Errorf("%s\n%s", list[0].Response, list[1].Response)
	}
	return r, last.Response, last.Type
}

// checkStream checks a whole stream against the whole reply to the same answer.
func checkStream(t *testing.T, steps []step, finish api.FinishReason) {
	t.Helper()
	request := testRequest(t)
	r, final, name := readStream(t, wholeStream(Dialect.NewEncoder(startOf(request)), steps, finish))
	want := map[api.FinishReason]string{api.FinishStop: "response.completed", api.FinishLength: "response.incomplete"}[finish]
	if name != want || r.open != nil {
		t.Errorf("%v: ends with %s, %+v open", steps, name, r.open)
	}
	var object responseObject
	if err := json.Unmarshal(final, &object); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(object.Output) != fmt.Sprint(r.output) {
		t.Errorf("%v: the items were\n%s\nand the last event has\n%s", steps, r.output, object.Output)
	}
	checkStatuses(t, r, object.Output, finish)
	whole := wholeReply(Dialect.NewEncoder(startOf(request)), steps, finish)
	checkJSON(t, whole)
	if inOrder(steps) {
		if string(whole) != string(final) {
			t.Errorf("%v:\nstream %s\nwhole  %s", steps, final, whole)
		}
		return
	}
	var other responseObject
	if err := json.Unmarshal(whole, &other); err != nil {
		t.Fatal(err)
	}
	if a, b := r.summary(object.Output), r.summary(other.Output); a != b {
		t.Errorf("%v:\nstream %s\nwhole  %s", steps, a, b)
	}
}

// checkStatuses checks that ids are unique and only the last item of an answer that was cut is incomplete.
func checkStatuses(t *testing.T, r *reader, output []jsontext.Value, finish api.FinishReason) {
	t.Helper()
	ids := map[string]bool{}
	for i, v := range output {
		it := r.readItem(v)
		cut := finish == api.FinishLength && i == len(output)-1
		if (it.Status == incomplete) != cut || ids[it.ID] {
			t.Errorf("item %d is %s", i, v)
		}
		ids[it.ID] = true
	}
}

// inOrder reports whether steps are reasoning, text and calls, in this order.
func inOrder(steps []step) bool {
	place := map[api.DeltaKind]int{api.DeltaReasoning: 0, api.DeltaContent: 1, api.DeltaToolCall: 2, api.DeltaToolArguments: 2}
	last := 0
	for _, s := range steps {
		if s.text == "" {
			continue
		}
		if place[s.kind] < last {
			return false
		}
		last = place[s.kind]
	}
	return true
}

// summary is what an output says, whatever the order of reasoning, text and calls among each other. A call without
// arguments has none when it is the one that was cut, which depends on the order.
func (r *reader) summary(output []jsontext.Value) string {
	text := map[string]string{}
	for _, v := range output {
		it := r.readItem(v)
		if it.Type == "message" || it.Type == "reasoning" {
			text[it.Type] += it.text()
			continue
		}
		text["calls"] += fmt.Sprintf("%s %s %s.%s(%s);", it.Type, it.CallID, it.Namespace, it.Name, it.text())
	}
	return strings.ReplaceAll(fmt.Sprintf("%q", text), "({})", "()")
}

func TestStreamIsTheReply(t *testing.T) {
	for _, steps := range [][]step{
		nil,
		{say("")},
		{say("Paris"), say(""), say("\n\"é\"\u2028\u0085.")},
		{think("hm"), think("m")},
		{think("hm"), say("Paris"), calls("f"), args(`{"a"`), args(`:1}`), calls("n.f"), args("{}")},
		{calls("f")},
		{calls("f"), args(`{"a":`)},
		{calls("p"), args(`{"input":"*** `), args(`Begin\n"}`)},
		{calls("p"), args(`{"input":"*** `)},
		{calls("p")},
		{calls("unknown"), args("{}")},
		{say("a"), calls("f"), args("{}"), say("b")},
		{calls("f"), args("{}"), say("b")},
		{say("a"), think("hm"), say("b"), think("hm")},
		{think("hm"), calls("f"), think("hm"), calls("f"), args("{}")},
	} {
		for _, finish := range []api.FinishReason{api.FinishStop, api.FinishLength} {
			checkStream(t, steps, finish)
		}
	}
}

// Answers of every order, cut into pieces anywhere.
func TestRandomStreams(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var steps []step
		for range random.IntN(8) {
			switch random.IntN(4) {
			case 0:
				steps = append(steps, think(strings.Repeat("h\n", random.IntN(3))))
			case 1:
				steps = append(steps, say(strings.Repeat("\"é", random.IntN(3))))
			case 2:
				steps = append(steps, calls([]string{"f", "n.f", "p"}[random.IntN(3)]))
			case 3: // arguments come right after their call
				if n := len(steps); n > 0 && steps[n-1].kind >= api.DeltaToolCall {
					steps = append(steps, args(`{"input"`), args(`:"a"}`))
				}
			}
		}
		checkStream(t, steps, []api.FinishReason{api.FinishStop, api.FinishLength}[random.IntN(2)])
	}
}

// A stream that fails ends with a response that says why and has what came before.
func TestFailedStream(t *testing.T) {
	failure := api.DeadlineExceeded(5 * time.Minute)
	for _, steps := range [][]step{
		nil,
		{think("hm")},
		{think("hm"), say("Par")},
		{say("a"), calls("f"), args(`{"a":`)},
		{calls("p"), args(`{"input":"a"}`)},
	} {
		e := Dialect.NewEncoder(startOf(testRequest(t)))
		var stream []byte
		if steps != nil { // otherwise it fails before the start
			stream = appendSteps(e.AppendStart(nil), e, steps)
		}
		r, final, name := readStream(t, e.AppendErrorEvent(stream, failure))
		var object responseObject
		if err := json.Unmarshal(final, &object); err != nil || name != "response.failed" || object.Status != failed {
			t.Fatalf("%v: %s %s, %v", steps, name, final, err)
		}
		const why = `{"code":"server_error","message":"the answer was not complete within 5m0s; ask for fewer tokens or allow more time","type":"deadline_exceeded"}`
		if string(object.Error) != why || string(object.Usage) != "null" || string(object.IncompleteDetails) != "null" {
			t.Errorf("%v: %s", steps, final)
		}
		want := Dialect.NewEncoder(startOf(testRequest(t))).AppendReply(nil, &api.Reply{Results: []api.Result{resultOf(steps, api.FinishLength)}})
		var other responseObject
		if err := json.Unmarshal(want, &other); err != nil {
			t.Fatal(err)
		}
		if steps == nil {
			other.Output = nil
		}
		if fmt.Sprint(object.Output) != fmt.Sprint(other.Output) {
			t.Errorf("%v:\ngot  %s\nwant %s", steps, object.Output, other.Output)
		}
		_ = r
	}
}
