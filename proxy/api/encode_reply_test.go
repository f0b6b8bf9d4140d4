package api

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func checkJSON(t *testing.T, body []byte) {
	t.Helper()
	if !jsontext.Value(body).IsValid() {
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

var documentedTime = time.UnixMilli(1703123456789)

func TestHealthAsDocumented(t *testing.T) {
	same(t, AppendHealth(nil, Health{HealthOK, documentedTime}), `{"status":"ok","timestamp":1703123456.789}`)
	same(t, AppendHealth(nil, Health{HealthLoading, time.UnixMilli(1703123456007)}), `{"status":"loading","timestamp":1703123456.007}`)
}

func TestProbe(t *testing.T) {
	same(t, AppendProbe(nil, Probe{OK: true}), `{"status":"ok"}`)
	same(t, AppendProbe(nil, Probe{Reason: `default model "a/b" is not installed`}), `{"status":"unavailable","reason":"default model \"a/b\" is not installed"}`)
}

func TestStatusAsDocumented(t *testing.T) {
	s := Status{
		Status: ServiceHealthy, Timestamp: documentedTime, Prometheus: true, Device: "cuda",
		Cached:  []CachedModel{{"microsoft/DialoGPT-medium", "v1.0", true}, {"demo", "base", false}},
		Devices: []Device{{"NVIDIA H100", "cuda", 80 << 30, 7}},
	}
	same(t, AppendStatus(nil, &s), `{"service":"LLM Inference API","version":"1.0.0","status":"healthy","timestamp":1703123456.789,"prometheus_available":true,`+
		`"cached_models":2,"device":"cuda","cached_model_info":[{"base_model":"microsoft/DialoGPT-medium","version":"v1.0","loaded":true},`+
		`{"base_model":"demo","version":"base","loaded":false}],"devices":[{"name":"NVIDIA H100","backend":"cuda","memory_total":85899345920,"memory_free":7}]}`)
	same(t, AppendStatus(nil, &Status{Status: ServiceDegraded, Timestamp: documentedTime, Device: "unknown"}),
		`{"service":"LLM Inference API","version":"1.0.0","status":"degraded","timestamp":1703123456.789,"prometheus_available":false,`+
			`"cached_models":0,"device":"unknown","cached_model_info":[],"devices":[]}`)
}

func TestModelsAsDocumented(t *testing.T) {
	same(t, AppendModels(nil, nil), `{"models":[]}`)
	same(t, AppendModels(nil, []Model{
		{Name: "microsoft/DialoGPT-medium", Versions: []string{"v1.0", "v1.1"}, Description: "DialoGPT model for conversation"},
		{Name: "demo", Problems: []Problem{{"base", "model.gguf: cut off"}, {"v1", "no tensors"}}},
	}), `{"models":[{"base_model":"microsoft/DialoGPT-medium","versions":["v1.0","v1.1"],"description":"DialoGPT model for conversation"},`+
		`{"base_model":"demo","versions":[],"description":"","problems":{"base":"model.gguf: cut off","v1":"no tensors"}}]}`)
}

var answer = Result{"The capital of France is Paris.", Metadata{
	Model: "microsoft/DialoGPT-medium", Version: "v1.0", TokensGenerated: 8, ResponseTime: 245 * time.Millisecond,
	GenerationTime: 198 * time.Millisecond, FinishReason: FinishStop, PromptTokens: 7, Seed: 42,
}}

const answerJSON = `{"result":"The capital of France is Paris.","metadata":{"model":"microsoft/DialoGPT-medium","version":"v1.0","tokens_generated":8,` +
	`"response_time":0.245,"generation_time":0.198,"finish_reason":"stop","prompt_tokens":7,"seed":42}}`

func TestResultAsDocumented(t *testing.T) { same(t, AppendResult(nil, &answer), answerJSON) }

func TestEvents(t *testing.T) {
	f := func(got []byte, want string) {
		t.Helper()
		if string(got) != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	f(AppendTextEvent(nil, " Paris"), "data: {\"text\":\" Paris\"}\n\n")
	f(AppendTextEvent(nil, []byte("a\r\nb\n\ndata: x")), "data: {\"text\":\"a\\r\\nb\\n\\ndata: x\"}\n\n")
	f(AppendFinalEvent([]byte("x"), &answer), "xdata: "+answerJSON+"\n\n")
	f(AppendErrorEvent(nil, DeadlineExceeded(5*time.Minute), "r1"),
		"event: error\ndata: {\"error\":{\"type\":\"deadline_exceeded\",\"message\":\"the answer was not complete within 5m0s; ask for fewer tokens or allow more time\",\"param\":null,\"request_id\":\"r1\"}}\n\n")
}

func TestErrorBody(t *testing.T) {
	secret := errors.New("open /secret/path")
	same(t, AppendError(nil, Internal(secret), "r1"), `{"error":{"type":"internal","message":"internal error; the log has details under this request id","param":null,"request_id":"r1"}}`)
	same(t, AppendError(nil, Invalid("top_k", "no"), "r2"), `{"error":{"type":"invalid_request","message":"no","param":"top_k","request_id":"r2"}}`)
	same(t, AppendError(nil, NotFound("/\x00\xff<\u2028"), ""), `{"error":{"type":"not_found","message":"no endpoint \"/\\x00\\xff<\\u2028\"","param":null,"request_id":""}}`)
	if e := Internal(secret); !errors.Is(e, secret) || !strings.Contains(e.Error(), "/secret/path") {
		t.Errorf("the log doesn't get the cause: %v", e)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.000", -time.Second: "0.000", 245 * time.Millisecond: "0.245", 133 * time.Microsecond: "0.000133",
		1400 * time.Nanosecond: "0.000001", time.Hour + time.Millisecond: "3600.001", 999999600 * time.Nanosecond: "1.000",
	} {
		if got := string(AppendSeconds(nil, d)); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

var stringCases = map[string]string{
	"":                         `""`,
	"Grüße, 世界 😀":              `"Grüße, 世界 😀"`,
	"\"\\/\b\f\n\r\t\x00\x1f":  `"\"\\/\u0008\u000c\n\r\t\u0000\u001f"`,
	"a\u2028b\u2029":           `"a\u2028b\u2029"`,
	"a\u0085b":                 `"a\u0085b"`,
	"\v\x1c\x1d\x1e":           `"\u000b\u001c\u001d\u001e"`,
	"\u2027\u202a\u0084\u0086": "\"\u2027\u202a\u0084\u0086\"",
	"\xff":                     "\"\uFFFD\"",
	"a\xe4\xb8":                "\"a\uFFFD\uFFFD\"",
	"\xed\xa0\x80z":            "\"\uFFFD\uFFFD\uFFFDz\"",
	"\uFFFD":                   "\"\uFFFD\"",
	"<b> & '\x7f":              "\"<b> & '\x7f\"",
}

func TestString(t *testing.T) {
	for in, want := range stringCases {
		if got := string(AppendString(nil, in)); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
		if got := string(AppendString(nil, []byte(in))); got != want {
			t.Errorf("bytes %q: got %s, want %s", in, got, want)
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
			AppendTextEvent(nil, text), AppendFinalEvent(nil, &result), AppendErrorEvent(nil, Invalid("stop", "%s", text), text),
		} {
			body := strings.TrimPrefix(string(event), "event: error\n")
			if line := strings.TrimSuffix(body, "\n\n"); strings.ContainsAny(line, lineEnds) {
				t.Errorf("%U ends a line of %q", end, event)
			}
		}
	}
}

// FuzzString checks that every reader gets back the string, with U+FFFD for what isn't UTF-8, and that no line end is
// left in it.
func FuzzString(f *testing.F) {
	for in := range stringCases {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := AppendString(nil, in)
		var back string
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatalf("%q gives %q: %v", in, got, err)
		}
		if want := string([]rune(in)); back != want || !utf8.Valid(got) || strings.ContainsAny(string(got), lineEnds) {
			t.Fatalf("%q gives %q", in, got)
		}
	})
}

func TestTextEventDoesNotAllocate(t *testing.T) {
	buffer, text := make([]byte, 0, 1024), []byte("Grüße \"world\"\n\xff")
	if n := testing.AllocsPerRun(100, func() { buffer = AppendTextEvent(buffer[:0], text) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { buffer = AppendFinalEvent(buffer[:0], &answer) }); n != 0 {
		t.Errorf("final event: %v allocations", n)
	}
}

func BenchmarkTextEvent(b *testing.B) {
	buffer, text := make([]byte, 0, 1024), []byte(" capital")
	b.ReportAllocs()
	for b.Loop() {
		buffer = AppendTextEvent(buffer[:0], text)
	}
}

func BenchmarkResult(b *testing.B) {
	buffer := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buffer = AppendResult(buffer[:0], &answer)
	}
}
