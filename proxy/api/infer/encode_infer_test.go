package infer

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

func same(t *testing.T, got []byte, want string) {
	t.Helper()
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	checkJSON(t, got)
}

func checkJSON(t *testing.T, body []byte) {
	t.Helper()
	if !jsontext.Value(body).IsValid() {
		t.Errorf("not valid JSON: %q", body)
	}
}

var answer = api.Result{Text: "The capital of France is Paris.", Metadata: api.Metadata{
	Model: "microsoft/DialoGPT-medium", Version: "v1.0", TokensGenerated: 8, ResponseTime: 245 * time.Millisecond,
	GenerationTime: 198 * time.Millisecond, FinishReason: api.FinishStop, PromptTokens: 7, CachedTokens: 5, Seed: 42,
}}

func replyOf(r *api.Result) *api.Reply {
	return &api.Reply{Results: []api.Result{*r}, Usage: r.Metadata}
}

func delta(text string) *api.Delta { return &api.Delta{Text: []byte(text)} }

const answerJSON = `{"result":"The capital of France is Paris.","metadata":{"model":"microsoft/DialoGPT-medium","version":"v1.0","tokens_generated":8,` +
	`"response_time":0.245,"generation_time":0.198,"finish_reason":"stop","prompt_tokens":7,"cached_tokens":5,"seed":42}}`

func TestResultAsDocumented(t *testing.T) {
	same(t, encoder{}.AppendReply(nil, replyOf(&answer)), answerJSON)
}

func TestEvents(t *testing.T) {
	f := func(got []byte, want string) {
		t.Helper()
		if string(got) != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	f(encoder{}.AppendStart(nil), "")
	f(encoder{}.AppendDelta(nil, delta(" Paris")), "data: {\"text\":\" Paris\"}\n\n")
	f(encoder{}.AppendDelta(nil, delta("a\r\nb\n\ndata: x")), "data: {\"text\":\"a\\r\\nb\\n\\ndata: x\"}\n\n")
	f(encoder{}.AppendDelta(nil, &api.Delta{Kind: api.DeltaReasoning, Text: []byte("hm")}), "")
	f(encoder{}.AppendEnd([]byte("x"), replyOf(&answer)), "xdata: "+answerJSON+"\n\n")
	f(encoder{"r1"}.AppendErrorEvent(nil, api.DeadlineExceeded(5*time.Minute)),
		"event: error\ndata: {\"error\":{\"type\":\"deadline_exceeded\",\"message\":\"the answer was not complete within 5m0s; ask for fewer tokens or allow more time\",\"param\":null,\"request_id\":\"r1\"}}\n\n")
}

func TestErrorBody(t *testing.T) {
	secret := errors.New("open /secret/path")
	same(t, Dialect{}.AppendError(nil, api.Internal(secret), "r1"), `{"error":{"type":"internal","message":"internal error; the log has details under this request id","param":null,"request_id":"r1"}}`)
	same(t, Dialect{}.AppendError(nil, api.Invalid("top_k", "no"), "r2"), `{"error":{"type":"invalid_request","message":"no","param":"top_k","request_id":"r2"}}`)
	same(t, Dialect{}.AppendError(nil, api.NotFound("/\x00\xff<\u2028"), ""), `{"error":{"type":"not_found","message":"no endpoint \"/\\x00\\xff<\\u2028\"","param":null,"request_id":""}}`)
	if e := api.Internal(secret); !errors.Is(e, secret) || !strings.Contains(e.Error(), "/secret/path") {
		t.Errorf("the log doesn't get the cause: %v", e)
	}
}

// Every error of the table in its form, as a reply and as the last event of a stream.
func TestEveryErrorHasAForm(t *testing.T) {
	for _, typ := range api.Types() {
		for _, param := range []string{"", "prompt"} {
			e := api.NewError(typ, "why")
			e.Param = param
			field := "null"
			if param != "" {
				field = `"` + param + `"`
			}
			want := `{"error":{"type":"` + string(typ) + `","message":"why","param":` + field + `,"request_id":"r1"}}`
			same(t, Dialect{}.AppendError(nil, e, "r1"), want)
			event := Dialect{}.NewEncoder(api.ReplyStart{RequestID: "r1"}).AppendErrorEvent(nil, e)
			if string(event) != "event: error\ndata: "+want+"\n\n" {
				t.Errorf("%s: %q", typ, event)
			}
		}
	}
}

// The page lists every type with its status, but for that of a client that has left.
func TestPageHasEveryError(t *testing.T) {
	page, err := os.ReadFile("../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## Errors\n")
	for _, typ := range api.Types() {
		if typ == api.TypeCancelled {
			continue
		}
		listed := slices.ContainsFunc(strings.Split(table, "\n"), func(row string) bool {
			statuses, types, _ := strings.Cut(strings.TrimPrefix(row, "| "), " | ")
			return strings.Contains(statuses, strconv.Itoa(typ.Outcome().Status)) && strings.Contains(types, "`"+string(typ)+"`")
		})
		if !listed {
			t.Errorf("docs/api.md doesn't list %s with status %d", typ, typ.Outcome().Status)
		}
	}
}

// lineEnds are the characters at which a reader of lines may cut: HTML's, and those of Python's str.splitlines.
const lineEnds = "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029"

func TestEventsStayOneLine(t *testing.T) {
	for _, end := range lineEnds {
		text := "a" + string(end) + "b"
		result := answer
		result.Text = text
		for _, event := range [][]byte{
			encoder{}.AppendDelta(nil, delta(text)), encoder{}.AppendEnd(nil, replyOf(&result)), encoder{text}.AppendErrorEvent(nil, api.Invalid("stop", "%s", text)),
		} {
			body := strings.TrimPrefix(string(event), "event: error\n")
			if line := strings.TrimSuffix(body, "\n\n"); strings.ContainsAny(line, lineEnds) {
				t.Errorf("%U ends a line of %q", end, event)
			}
		}
	}
}

func TestTextEventDoesNotAllocate(t *testing.T) {
	e, buffer, text := Dialect{}.NewEncoder(api.ReplyStart{}), make([]byte, 0, 1024), delta("Grüße \"world\"\n\xff")
	whole := replyOf(&answer)
	if n := testing.AllocsPerRun(100, func() { buffer = e.AppendDelta(buffer[:0], text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { buffer = e.AppendEnd(buffer[:0], whole) }); n != 0 {
		t.Errorf("final event: %v allocations", n)
	}
}

func BenchmarkTextEvent(b *testing.B) {
	e, buffer, text := Dialect{}.NewEncoder(api.ReplyStart{}), make([]byte, 0, 1024), delta(" capital")
	b.ReportAllocs()
	for b.Loop() {
		buffer = e.AppendDelta(buffer[:0], text)
	}
}

func BenchmarkResult(b *testing.B) {
	e, buffer, whole := Dialect{}.NewEncoder(api.ReplyStart{}), make([]byte, 0, 1024), replyOf(&answer)
	b.ReportAllocs()
	for b.Loop() {
		buffer = e.AppendReply(buffer[:0], whole)
	}
}
