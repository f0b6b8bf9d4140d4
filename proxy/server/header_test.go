package server

import (
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

func TestHeaders(t *testing.T) {
	for asked, kept := range map[string]bool{"a": true, "A-b_c.9": true, strings.Repeat("x", 64): true, "": false, strings.Repeat("x", 65): false, "a b": false, "a\n": false, "é": false} {
		if got := requestID([]byte(asked)); (got == asked) != kept || got == "" {
			t.Errorf("request id %q became %q", asked, got)
		}
	}
	for asked, want := range map[string]time.Duration{"": time.Minute, "2.5": 2500 * time.Millisecond, "300ms": 300 * time.Millisecond, "1m30s": time.Minute, "1e300": time.Minute, "0": 0, "-1": 0, "-1s": 0, "NaN": 0, "soon": 0} {
		got, err := requestTimeout(time.Minute, []byte(asked))
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("timeout %q: %s, %v", asked, got, err)
		}
	}
	for value, ok := range map[string]bool{"application/json": true, "Application/JSON; charset=UTF-8": true, `application/json;charset="utf-8"`: true, "application/json; x=y": true,
		"": false, "text/json": false, "application/jsonx": false, "application/json; charset=utf-16": false} {
		var h fasthttp.RequestHeader
		h.SetContentType(value)
		if err := checkContentType(&h); (err == nil) != ok {
			t.Errorf("Content-Type %q: %v", value, err)
		}
	}
}
