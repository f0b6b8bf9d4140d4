package server

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
)

func TestRateLimit(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) {
		o.Limits, o.DefaultLimit = limit.NewLocal(100, time.Now()), limit.Rate{Requests: 3, Unit: time.Hour}
		o.IETFRateLimitHeaders = true
	})
	for i, want := range []int{200, 200, 400, 429} {
		body := streamed(inferBody)
		if want == 400 {
			body = "{" // a refused body counts
		}
		r := ts.postInfer(body)
		if r.StatusCode != want {
			t.Fatalf("request %d: status %d, want %d", i, r.StatusCode, want)
		}
		left := strconv.Itoa(max(0, 2-i))
		if r.Header.Get("X-Ratelimit-Limit-Requests") != "3" || r.Header.Get("X-Ratelimit-Remaining-Requests") != left ||
			r.Header.Get("X-Ratelimit-Reset-Requests") == "" || r.Header.Get("RateLimit-Policy") != `"default";q=3;w=3600` {
			t.Errorf("request %d: headers %v", i, r.Header)
		}
	}
	r := ts.postInfer(inferBody)
	typ, _, _ := decodeError(t, r)
	wait, err := strconv.Atoi(r.Header.Get("Retry-After"))
	if typ != "rate_limited" || err != nil || wait < 1 || wait > 1200 {
		t.Errorf("type %s, Retry-After %q", typ, r.Header.Get("Retry-After"))
	}
	if got := ts.get("/status"); got.StatusCode != 200 || got.Header.Get("X-Ratelimit-Limit-Requests") != "" {
		t.Errorf("a page without a key is limited: %d", got.StatusCode)
	}
	ts.expectMetric(2, "api_requests_total", "endpoint", "/infer", "status", "rate_limited", "model", "none")
	ts.expectMetric(2, "llm_requests_rejected_total", "reason", "rate_limited")
	ts.expectMetric(3, "llm_rate_limit_decisions_total", "scope", "key", "decision", "allowed")
	ts.expectMetric(2, "llm_rate_limit_decisions_total", "scope", "key", "decision", "denied")
}

// A refusal for want of room costs a client nothing of its limit.
func TestOverloadIsNotCharged(t *testing.T) {
	full := true
	table := instantTable()
	admit := table.admit
	table.admit = func(r inflight.Request) (inflight.Answer, *api.Error) {
		if full {
			return nil, api.QueueFull(1, time.Second)
		}
		return admit(r)
	}
	ts := startTestServer(t, table, func(o *Options) {
		o.Limits, o.DefaultLimit = limit.NewLocal(100, time.Now()), limit.Rate{Requests: 2, Unit: time.Hour}
	})
	for range 5 {
		if r := ts.postInfer(inferBody); r.StatusCode != 503 || r.Header.Get("X-Ratelimit-Remaining-Requests") != "2" || r.Header.Get("Retry-After") != "1" {
			t.Fatalf("status %d, headers %v", r.StatusCode, r.Header)
		}
	}
	full = false
	for i, want := range []int{200, 200, 429} {
		if r := ts.postInfer(inferBody); r.StatusCode != want {
			t.Errorf("request %d: status %d, want %d", i, r.StatusCode, want)
		}
	}
	if page := ts.get("/prometheus").body; !strings.Contains(page, "\nllm_rate_limit_tracked_keys 1\n") {
		t.Error("the page doesn't say how many keys are tracked")
	}
}

func TestWithoutKeysAddressesAreLimited(t *testing.T) {
	ts := startTestServer(t, instantTable(), func(o *Options) {
		o.Keys = nil
		o.Limits, o.DefaultLimit = limit.NewLocal(100, time.Now()), limit.Rate{Requests: 1, Unit: time.Hour}
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	for i, c := range []struct {
		forwarded string
		status    int
	}{
		{"203.0.113.1", 200}, {"203.0.113.1", 429}, {"198.51.100.7, 203.0.113.1", 429}, {"203.0.113.2", 200}, {"", 200}, {"", 429},
	} {
		headers := []string{"Content-Type", "application/json"}
		if c.forwarded != "" {
			headers = append(headers, "X-Forwarded-For", c.forwarded)
		}
		if r := ts.do("POST", "/infer", inferBody, headers...); r.StatusCode != c.status {
			t.Errorf("request %d for %q: status %d, want %d", i, c.forwarded, r.StatusCode, c.status)
		}
	}
}
