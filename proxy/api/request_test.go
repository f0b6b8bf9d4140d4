package api

import "testing"

func TestNewTokens(t *testing.T) {
	f := func(requested, context, want int, fails bool) {
		t.Helper()
		r := &Request{}
		if requested != 0 {
			r.MaxNewTokens = &requested
		}
		got, err := r.NewTokens(context)
		if got != want || (err != nil) != fails {
			t.Errorf("asked %d of a context of %d: got %d, %v; want %d", requested, context, got, err, want)
		}
	}
	f(0, 0, DefaultNewTokens, false)
	f(0, 8192, DefaultNewTokens, false)
	f(0, 128, 128, false)
	f(32, 0, 32, false)
	f(8192, 8192, 8192, false)
	f(8193, 8192, 0, true)
}
