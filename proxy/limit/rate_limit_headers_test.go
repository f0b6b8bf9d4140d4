package limit

import (
	"strings"
	"testing"
	"time"
)

func TestHeaders(t *testing.T) {
	f := func(d Decision, ietf bool, want string) {
		t.Helper()
		var got []string
		for name, value := range d.Headers(ietf) {
			got = append(got, name+": "+value)
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
		}
	}
	rate := Rate{5, time.Minute}
	f(Decision{Allowed: true, Rate: rate, Remaining: 4, ResetAfter: 12 * time.Second}, false,
		"X-Ratelimit-Limit-Requests: 5\nX-Ratelimit-Remaining-Requests: 4\nX-Ratelimit-Reset-Requests: 12s")
	f(Decision{Rate: rate, ResetAfter: 59*time.Second + 1, RetryAfter: 11001 * time.Millisecond}, true,
		"X-Ratelimit-Limit-Requests: 5\nX-Ratelimit-Remaining-Requests: 0\nX-Ratelimit-Reset-Requests: 59.001s\nRetry-After: 12\n"+
			"RateLimit-Policy: \"default\";q=5;w=60\nRateLimit: \"default\";r=0;t=60")
	for range (Decision{Rate: rate}).Headers(true) {
		break // stopping early is allowed
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 1: "1ms", 12 * time.Millisecond: "12ms", 6 * time.Minute: "6m0s", -time.Second: "0s"} {
		if got := FormatReset(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
	for d, want := range map[time.Duration]int{0: 1, 1: 1, time.Second: 1, time.Second + 1: 2, 90 * time.Second: 90, -time.Second: 1} {
		if got := RetrySeconds(d); got != want {
			t.Errorf("%v: %d", d, got)
		}
	}
}
