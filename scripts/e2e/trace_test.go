package e2e

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// receivedSpan is a span that the collector received, decoded.
type receivedSpan struct {
	program, service                          string
	traceID, spanID, parentSpanID, traceState string
	name                                      string
	kind                                      tracepb.Span_SpanKind
	failed                                    bool
	start, end                                uint64
	events                                    []string
	attributes                                map[string]string
}

// traceCollector is an OTLP collector that keeps everything it receives.
type traceCollector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []receivedSpan
	raw   bytes.Buffer
}

func startTraceCollector(t *testing.T) *traceCollector {
	c := &traceCollector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		var m collectorpb.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(raw, &m)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("POST %s: %v", r.URL.Path, err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.record(&m, raw)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *traceCollector) record(m *collectorpb.ExportTraceServiceRequest, raw []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.Write(raw)
	for _, resource := range m.GetResourceSpans() {
		about := attributeStrings(resource.GetResource().GetAttributes())
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				got := receivedSpan{
					program: about["tandem.program"], service: about["service.name"], name: s.GetName(), kind: s.GetKind(), traceState: s.GetTraceState(),
					traceID: hex.EncodeToString(s.GetTraceId()), spanID: hex.EncodeToString(s.GetSpanId()), parentSpanID: hex.EncodeToString(s.GetParentSpanId()),
					failed: s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR,
					start:  s.GetStartTimeUnixNano(), end: s.GetEndTimeUnixNano(), attributes: attributeStrings(s.GetAttributes()),
				}
				for _, e := range s.GetEvents() {
					got.events = append(got.events, e.GetName())
				}
				c.spans = append(c.spans, got)
			}
		}
	}
}

func attributeStrings(attributes []*commonpb.KeyValue) map[string]string {
	out := make(map[string]string)
	for _, a := range attributes {
		switch v := a.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			out[a.GetKey()] = v.StringValue
		default:
			raw, _ := json.Marshal(v)
			out[a.GetKey()] = string(raw)
		}
	}
	return out
}

// spansOf returns the spans of a program in a trace, in the order of their start.
func (c *traceCollector) spansOf(program, trace string) []receivedSpan {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []receivedSpan
	for _, s := range c.spans {
		if s.program == program && s.traceID == trace {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b receivedSpan) int { return int(int64(a.start) - int64(b.start)) })
	return found
}

// requestLogLines returns the decoded log lines about ended requests with an id.
func (p *process) requestLogLines(t *testing.T, requestID string) []map[string]any {
	t.Helper()
	var found []map[string]any
	lines := bufio.NewScanner(strings.NewReader(p.log.String()))
	for lines.Scan() {
		var line map[string]any
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue // written by the Go runtime, not by the logger
		}
		if line["msg"] == "request" && line["request_id"] == requestID {
			found = append(found, line)
		}
	}
	return found
}

const (
	callerTraceID     = "0af7651916cd43dd8448eb211c80319c"
	callerSpanID      = "b7ad6b7169203331"
	callerTraceparent = "00-" + callerTraceID + "-" + callerSpanID + "-01"
)

func TestTraceSurvivesTheEngine(t *testing.T) {
	for name, test := range map[string]struct {
		signal        syscall.Signal
		finishReasons []string // finish reasons of the attempts whose engine could still send its span
	}{
		"killed":  {syscall.SIGKILL, []string{"stop,length"}}, // the killed engine's spans are lost
		"renewed": {syscall.SIGTERM, []string{"movedAway", "stop,length"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startTraceCollector(t)
			s := startServer(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "OTEL_SERVICE_NAME=answers", "LOG_FORMAT=json", "LOG_LEVEL=debug",
				"MOCK_TOKEN_DELAY=50ms", "STEP_DELAY=50ms")
			id := "traced-" + name
			events := 0
			// the answer lasts some seconds, so that the signal comes before its end
			body := strings.Replace(question(longPrompt, "v1.0"), "{", `{"stream":true,`, 1)
			_, err := s.stream(t.Context(), body, func(event) bool {
				if events++; events == 2 {
					s.signalEngine(test.signal)
				}
				return true
			}, "X-Request-Id", id, "traceparent", callerTraceparent, "tracestate", "shop=7")
			if err != nil {
				t.Fatal(err)
			}
			s.engine.stop(t)
			s.proxy.stop(t)

			proxySpans := c.spansOf("proxy", callerTraceID)
			if len(proxySpans) != 1 {
				t.Fatalf("%d spans of the proxy, want 1: %+v", len(proxySpans), proxySpans)
			}
			checkProxySpan(t, &proxySpans[0], id)
			engineSpans := c.spansOf("engine", callerTraceID)
			if len(engineSpans) != len(test.finishReasons) {
				t.Fatalf("%d spans of the engine, want %d: %+v", len(engineSpans), len(test.finishReasons), engineSpans)
			}
			for i := range engineSpans {
				checkEngineSpan(t, &engineSpans[i], &proxySpans[0], test.finishReasons[i])
			}
			if last := engineSpans[len(engineSpans)-1]; last.attributes["tandem.attempt"] != `{"IntValue":1}` {
				t.Errorf("the last span's attempt is %s", last.attributes["tandem.attempt"])
			}
			checkRequestLogLines(t, s, id, c)
		})
	}
}

func checkProxySpan(t *testing.T, p *receivedSpan, id string) {
	t.Helper()
	if p.name != "POST /infer" || p.kind != tracepb.Span_SPAN_KIND_SERVER || p.parentSpanID != callerSpanID || p.traceState != "shop=7" || p.service != "answers" || p.failed {
		t.Errorf("the proxy's span: %+v", p)
	}
	for name, want := range map[string]string{
		"http.request.method": "POST", "http.route": "/infer", "http.response.status_code": `{"IntValue":200}`, "url.scheme": "http",
		"tandem.request_id": id, "tandem.key": "test", "tandem.model": "demo", "tandem.version": "v1.0", "tandem.attempts": `{"IntValue":2}`,
	} {
		if got := p.attributes[name]; got != want {
			t.Errorf("the proxy's span has %s %q, want %q", name, got, want)
		}
	}
	if !slices.Equal(p.events, []string{"requeued"}) {
		t.Errorf("events of the proxy's span: %v", p.events)
	}
}

func checkEngineSpan(t *testing.T, e, proxySpan *receivedSpan, finishReasons string) {
	t.Helper()
	if e.name != "text_completion demo" || e.kind != tracepb.Span_SPAN_KIND_INTERNAL || e.parentSpanID != proxySpan.spanID || e.service != "answers" || e.failed {
		t.Errorf("an engine's span: %+v", e)
	}
	if e.start < proxySpan.start || e.start > e.end || e.end > proxySpan.end+uint64(10*time.Second) {
		t.Errorf("an engine's span lasts from %d to %d, the proxy's from %d to %d", e.start, e.end, proxySpan.start, proxySpan.end)
	}
	if want := []string{"queued", "scheduled", "first_token", "finished"}; !slices.Equal(e.events, want) {
		t.Errorf("events of an engine's span: %v, want %v", e.events, want)
	}
	if e.attributes["gen_ai.operation.name"] != "text_completion" || e.attributes["gen_ai.request.model"] != "demo" || e.attributes["gen_ai.provider.name"] != "llama.cpp" {
		t.Errorf("attributes of an engine's span: %v", e.attributes)
	}
	reason := e.attributes["gen_ai.response.finish_reasons"]
	if !slices.ContainsFunc(strings.Split(finishReasons, ","), func(want string) bool { return strings.Contains(reason, `"`+want+`"`) }) {
		t.Errorf("an engine's span ended with %s, want one of %s", reason, finishReasons)
	}
}

// checkRequestLogLines asserts that the log lines of both programs have the same ids and nowhere a secret.
func checkRequestLogLines(t *testing.T, s *testServer, id string, c *traceCollector) {
	t.Helper()
	proxyLines, engineLines := s.proxy.requestLogLines(t, id), s.engine.requestLogLines(t, id)
	if len(proxyLines) != 1 || len(engineLines) == 0 {
		t.Fatalf("%d lines of the proxy and %d of the engine", len(proxyLines), len(engineLines))
	}
	for _, line := range append(engineLines, proxyLines...) {
		if line["trace_id"] != callerTraceID || line["model"] != "demo" || line["version"] != "v1.0" {
			t.Errorf("a line about the request: %v", line)
		}
		if took, _ := line["seconds"].(float64); took <= 0 {
			t.Errorf("seconds are %v", line["seconds"])
		}
	}
	if proxyLines[0]["key"] != "test" || proxyLines[0]["attempts"] != 2.0 {
		t.Errorf("the proxy's line: %v", proxyLines[0])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for where, text := range map[string]string{"proxy's log": s.proxy.log.String(), "engine's log": s.engine.log.String(), "spans": c.raw.String()} {
		for _, secret := range []string{s.key, "golden key", "uthorization"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s hold %q", where, secret)
			}
		}
	}
}

func TestTraceIDsWithoutACollector(t *testing.T) {
	onceWithMock(t)
	s := startServer(t, "LOG_FORMAT=json")
	a := s.mustInfer(question("Hi", "v1.0"))
	id := a.Header.Get("X-Request-Id")
	parts := strings.Split(a.Header.Get("Traceresponse"), "-")
	if len(parts) != 4 || parts[0] != "00" || parts[1] != id {
		t.Fatalf("traceresponse is %v, the request's id %s", parts, id)
	}
	s.engine.stop(t)
	s.proxy.stop(t)
	for _, p := range []*process{s.proxy, s.engine} {
		if lines := p.requestLogLines(t, id); len(lines) != 1 || lines[0]["trace_id"] != parts[1] {
			t.Errorf("lines of the %s: %v", p.Name, lines)
		}
	}
}

func TestFewerLinesOfWhatWentWell(t *testing.T) {
	onceWithMock(t)
	s := startServer(t, "LOG_FORMAT=json", "LOG_SAMPLE=1000000")
	id := "this-one-isnt-chosen"
	s.mustInfer(question("Hi", "v1.0"), "X-Request-Id", id)
	wrong := s.mustInfer(`{"prompt":"Hi","top_p":3}`, "X-Request-Id", "wrong")
	if wrong.Status != http.StatusBadRequest {
		t.Fatalf("status %d", wrong.Status)
	}
	s.engine.stop(t)
	s.proxy.stop(t)
	if p, e := s.proxy.requestLogLines(t, id), s.engine.requestLogLines(t, id); len(p)+len(e) != 0 {
		t.Errorf("lines in spite of LOG_SAMPLE: %v %v", p, e)
	}
	if lines := s.proxy.requestLogLines(t, "wrong"); len(lines) != 1 || lines[0]["error_type"] != "invalid_request" {
		t.Errorf("lines of the error: %v", lines)
	}
}

func TestPromptsAreLoggedOnlyWhenAskedForAndKeysNever(t *testing.T) {
	for setting, want := range map[string]bool{"true": true, "false": false} {
		s := startServer(t, "LOG_LEVEL=debug", "LOG_FORMAT=json", "LOG_PROMPTS="+setting)
		a := s.mustInfer(question("Where is the xylophone?", "v1.0"), "X-API-Key", "", "Authorization", "Bearer "+s.key)
		if a.Status != http.StatusOK {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		s.engine.stop(t)
		s.proxy.stop(t)
		log := s.proxy.log.String()
		if strings.Contains(log, "xylophone") != want || strings.Contains(log, `"msg":"answer"`) != want {
			t.Errorf("LOG_PROMPTS=%s: prompt and answer in the log should be %v", setting, want)
		}
		for _, secret := range []string{s.key, "Bearer"} {
			if strings.Contains(log+s.engine.log.String(), secret) {
				t.Errorf("LOG_PROMPTS=%s: the log holds %q", setting, secret)
			}
		}
		if strings.Contains(s.engine.log.String(), "xylophone") {
			t.Errorf("LOG_PROMPTS=%s: the engine logs the prompt", setting)
		}
	}
}
