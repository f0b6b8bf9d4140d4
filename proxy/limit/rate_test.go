package limit

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]Rate{
		"5/minute": {5, time.Minute}, "1/second": {1, time.Second}, "1000000/hour": {MaxRequests, time.Hour}, "7/day": {7, 24 * time.Hour},
		" 5/minute\n": {5, time.Minute}, "0": {}, "off": {}, "OFF": {},
	} {
		got, err := ParseRate(s)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
		if again, err := ParseRate(got.String()); err != nil || again != want {
			t.Errorf("%q is written as %q, which reads as %v, %v", s, got, again, err)
		}
	}
	for _, s := range []string{"", "5", "/minute", "5/", "0/minute", "-1/minute", "1.5/second", "1000001/day", "5/week", "5 / minute", "5/minutes", "99999999999999999999/day"} {
		if got, err := ParseRate(s); err == nil || !strings.Contains(err.Error(), "off") || got != (Rate{}) {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
}
