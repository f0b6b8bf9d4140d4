package server

import (
	"io"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/scripts/await"
)

func TestPanicsAreAnswered(t *testing.T) {
	table, asked := manualTable()
	ts := startTestServer(t, table, nil)
	wait := make(chan reply, 1)
	go func() { wait <- ts.postInfer(inferBody) }()
	a := receiveWithin(t, "request", asked, waitLimit)
	a.onTake = func() { panic("a fault in here") }
	a.accept()
	r := receiveWithin(t, "reply", wait, waitLimit)
	if typ, message, _ := decodeError(t, r); r.StatusCode != 500 || typ != "internal" || strings.Contains(message, "fault") {
		t.Errorf("status %d, type %s, message %q", r.StatusCode, typ, message)
	}
	a.expectCancelled(t)
	a.expectOutcome(t, inflight.Failed)
	a.expectCancelReason(t, api.TypeInternal)

	c, reader := ts.dial()
	ts.send(c, rawInfer(streamed(inferBody), "HTTP/1.1"))
	a = receiveWithin(t, "request", asked, waitLimit)
	a.addText("The ")
	if _, err := reader.ReadString('{'); err != nil {
		t.Fatal(err)
	}
	a.mu.Lock()
	a.onTake = func() { panic("a fault in a stream") }
	a.mu.Unlock()
	a.addText("capital")
	a.expectOutcome(t, inflight.Failed)
	rest, _ := io.ReadAll(reader)
	if strings.Contains(string(rest), "0\r\n\r\n") {
		t.Error("a stream that broke off ends as if it were whole")
	}
	await.Until(t, waitLimit, "both are counted", func() bool {
		return ts.metricValue("api_requests_total", "endpoint", "/infer", "status", "error") == 2 &&
			ts.metricValue("llm_requests_in_flight", "endpoint", "/infer") == 0
	})
	if r := ts.get("/livez"); r.StatusCode != 200 {
		t.Errorf("after the panics /livez says %d", r.StatusCode)
	}
	if !strings.Contains(ts.log.String(), "a fault in a stream") {
		t.Error("the log doesn't say what happened")
	}
}

// Whatever happened to the requests, the sums agree.
func TestEveryRequestIsCountedOnce(t *testing.T) {
	table := instantTable()
	admit := table.admit
	n := 0
	table.admit = func(r inflight.Request) (inflight.Answer, *api.Error) {
		if n++; n%3 == 0 {
			return nil, api.QueueFull(1, time.Second)
		}
		return admit(r)
	}
	ts := startTestServer(t, table, nil)
	for i := range 30 {
		body := inferBody
		if i%2 == 0 {
			body = streamed(inferBody)
		}
		ts.postInfer(body)
	}
	ts.postInfer("{")
	ts.expectMetric(31, "api_requests_total", "endpoint", "/infer")
	ts.expectMetric(20, "api_requests_total", "endpoint", "/infer", "status", "success")
	ts.expectMetric(10, "api_requests_total", "endpoint", "/infer", "status", "error")
	ts.expectMetric(10, "llm_requests_rejected_total", "reason", "queue_full")
	ts.expectMetric(31, "api_request_size_bytes", "endpoint", "/infer")
	ts.expectMetric(31, "api_response_size_bytes", "endpoint", "/infer")
	ts.expectMetric(0, "llm_requests_in_flight")
}
