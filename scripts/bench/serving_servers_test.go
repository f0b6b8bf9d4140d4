package main

import (
	"strings"
	"testing"
)

// The events are Tandem's and those of transformers/server.py.
func TestLastEventOfInfer(t *testing.T) {
	for _, c := range []struct {
		event  string
		tokens int
		last   bool
		err    string
	}{
		{`{"token":" Paris"}`, 0, false, ""},
		{`{"token": " \"result\""}`, 0, false, ""},
		{`{"result":"Paris","metadata":{"model":"m","tokens_generated":8}}`, 8, true, ""},
		{`{"result": "Paris", "metadata": {"tokens_generated": 64, "response_time": 0.5}}`, 64, true, ""},
		{`{"result":"Par`, 0, true, "unexpected end"},
		{`{"error":{"type":"queue_full"}}`, 0, false, "queue_full"},
	} {
		tokens, last, err := lastOfInfer([]byte(c.event))
		if tokens != c.tokens || last != c.last || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %d tokens, last %v, %v", c.event, tokens, last, err)
		}
	}
}
