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

// ParseRate reads N/second, N/minute, N/hour or N/day; 0 and off give the zero Rate.
func ParseRate(s string) (Rate, error) {
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

// atMostBurst cuts a number, also a negative one, to the burst of the rate.
func (r Rate) atMostBurst(n int) int { return min(max(n, -r.Requests), r.Requests) }

// Unlimited reports whether the rate doesn't limit at all.
func (r Rate) Unlimited() bool { return r.Requests <= 0 || r.Unit <= 0 }

// String writes the rate as ParseRate reads it.
func (r Rate) String() string {
	if r.Unlimited() {
		return "off"
	}
	for _, u := range units {
		if r.Unit == u.unit {
			return strconv.Itoa(r.Requests) + "/" + u.name
		}
	}
	return strconv.Itoa(r.Requests) + "/" + r.Unit.String()
}
