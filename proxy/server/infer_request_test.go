package server

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
)

func TestRequestReachesTheTableWhole(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, func(o *Options) { o.Domains = api.NewDomains([]string{"sales"}) })
	trace := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	done := make(chan reply, 1)
	go func() {
		done <- ts.postInfer(inferBody, "X-Domain", "sales", "Traceparent", trace, "X-Request-Timeout", "2.5", "X-Request-Id", "not good!")
	}()
	a := receiveWithin(t, "request", asked, waitLimit)
	q := a.request
	if q.Domain != "sales" || q.Traceparent != trace || q.Timeout != 2500*time.Millisecond || len(q.ID) != 32 || q.Infer.Model != "demo" || *q.Infer.MaxNewTokens != 32 {
		t.Errorf("the request table got %+v", q)
	}
	if since := time.Since(q.Received); since < 0 || since > waitLimit {
		t.Errorf("received %s ago", since)
	}
	a.addText("The capital of France is Paris.")
	a.end(8)
	r := receiveWithin(t, "reply", done, waitLimit)
	if r.Header.Get("X-Request-Id") != q.ID {
		t.Errorf("X-Request-Id %q", r.Header.Get("X-Request-Id"))
	}
	line := lineWith(ts.log.String(), q.ID)
	for _, want := range []string{"key=demo", "model=demo", "status=200", "trace_id=0af7651916cd43dd8448eb211c80319c", "tokens=8", "prompt_tokens=9"} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %q", want, line)
		}
	}
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// Buffers of fasthttp are used again by the next request; nothing that was kept may change with them.
func TestNothingPointsIntoBuffers(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	c, r := ts.dial()
	var kept []*fakeAnswer
	for i := range 8 {
		body := fmt.Sprintf(`{"prompt":"prompt %d %s","system":"system %d","base_model":"model%d","adapter_version":"v%d","stop":["stop %d"],"json_schema":{"n":%d},"domain":"domain%d"}`,
			i, strings.Repeat(strconv.Itoa(i), 100*i), i, i, i, i, i, i)
		request := strings.Replace(rawInfer(body, "HTTP/1.1"), "Host: x", fmt.Sprintf("Host: x\r\nX-Request-Id: id-%d\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319%d-b7ad6b7169203331-01", i, i), 1)
		ts.send(c, request)
		a := receiveWithin(t, "request", asked, waitLimit)
		a.addText("x")
		a.end(1)
		ts.readReply(r, "POST")
		ts.send(c, fmt.Sprintf("GET /%s HTTP/1.1\r\nHost: x\r\n\r\n", strings.Repeat("z", 20+i)))
		ts.readReply(r, "GET")
		kept = append(kept, a)
	}
	for i, a := range kept {
		q := a.request
		if q.ID != fmt.Sprintf("id-%d", i) || q.Infer.Model != fmt.Sprintf("model%d", i) || q.Infer.Version != fmt.Sprintf("v%d", i) ||
			q.Infer.System != fmt.Sprintf("system %d", i) || q.Infer.Stop[0] != fmt.Sprintf("stop %d", i) || string(q.Infer.JSONSchema) != fmt.Sprintf(`{"n":%d}`, i) ||
			!strings.HasPrefix(q.Infer.Prompt, fmt.Sprintf("prompt %d ", i)) || !strings.Contains(q.Traceparent, fmt.Sprintf("319%d-", i)) {
			t.Errorf("request %d became %+v", i, *q.Infer)
		}
	}
	families, err := ts.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"other": true}
	for path := range ts.routes {
		known[path] = true
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if l.GetName() == "endpoint" && !known[l.GetValue()] {
					t.Errorf("%s has endpoint %q", f.GetName(), l.GetValue())
				}
			}
		}
	}
}
