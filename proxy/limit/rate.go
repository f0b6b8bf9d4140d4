// Package limit says how many requests a key or an address may send: a rate such as 5/minute, the buckets that count by it, the
// headers that tell a client, and the address that a client without a key is counted by. It knows no HTTP library.
//
// Limiter counts for this process alone. Its callers pass the time: it reads no clock, never sleeps and starts no goroutine. Shared counts
// in a Redis or Valkey server beside it, for all processes that use that server, by the server's clock.
package limit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxRequests is the highest number in a rate.
const MaxRequests = 1_000_000

// Rate allows a burst of Requests, then one more each Unit/Requests. The zero Rate doesn't limit.
type Rate struct {
	Requests int // at most MaxRequests
	Unit     time.Duration
}

var units = []struct {
	name string
	unit time.Duration
}{
	{"second", time.Second},
	{"minute", time.Minute},
	{"hour", time.Hour},
	{"day", 24 * time.Hour},
}

// Parse reads N/second, N/minute, N/hour or N/day; 0 and off give the zero Rate.
func Parse(s string) (Rate, error) {
	s = strings.TrimSpace(s)
	if s == "0" || strings.EqualFold(s, "off") {
		return Rate{}, nil
	}
	count, name, _ := strings.Cut(s, "/")
	for _, u := range units {
		if name != u.name {
			continue
		}
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 || n > MaxRequests {
			return Rate{}, fmt.Errorf("rate %q: the number must be from 1 to %d; off disables the limit", s, MaxRequests)
		}
		return Rate{Requests: n, Unit: u.unit}, nil
	}
	return Rate{}, fmt.Errorf("rate %q: want N/second, N/minute, N/hour, N/day, or off", s)
}

// Off tells whether the rate doesn't limit.
func (r Rate) Off() bool { return r.Requests <= 0 || r.Unit <= 0 }

// String writes the rate as Parse reads it.
func (r Rate) String() string {
	if r.Off() {
		return "off"
	}
	for _, u := range units {
		if r.Unit == u.unit {
			return strconv.Itoa(r.Requests) + "/" + u.name
		}
	}
	return strconv.Itoa(r.Requests) + "/" + r.Unit.String()
}

// interval is the time in which one request comes back, at least a nanosecond.
func (r Rate) interval() time.Duration { return max(r.Unit/time.Duration(r.Requests), 1) }

// burst is the time in which an empty bucket fills.
func (r Rate) burst() time.Duration { return r.interval() * time.Duration(r.Requests) }
