package api

import "testing"

func TestNewTokensThatFitTheContext(t *testing.T) {
	f := func(requested, context, want int) {
		t.Helper()
		r := &Request{FitContext: true}
		if requested != 0 {
			r.MaxNewTokens = &requested
		}
		if got, err := r.NewTokens(context); got != want || err != nil {
			t.Errorf("asked %d of a context of %d: got %d, %v; want %d", requested, context, got, err, want)
		}
	}
	f(0, 0, DefaultNewTokens)
	f(0, 8192, 8192)
	f(0, 128, 128)
	f(32, 0, 32)
	f(32, 8192, 32)
	f(8193, 8192, 8192)
}
