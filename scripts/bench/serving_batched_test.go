package main

import (
	"strings"
	"testing"
	"time"
)

func TestOutputOfBatchedBench(t *testing.T) {
	const one = `{"n_threads": 2, "pp": 48, "tg": 16, "pl": 1, "n_kv": 64, "t_pp": 0.07, "t_tg": 0.13, "t": 0.2, "speed": 320}`
	const four = `{"n_threads": 2, "pp": 48, "tg": 16, "pl": 4, "n_kv": 256, "t_pp": 0.25, "t_tg": 0.25, "t": 0.5, "speed": 512}`
	for _, c := range []struct {
		name, output    string
		streams, tokens int
		first, whole    time.Duration
		tokensPerSecond float64
		err             string
	}{
		{"one line", one, 1, 16, 70 * time.Millisecond, 200 * time.Millisecond, 80, ""},
		{"the wanted one of several", "\n" + one + "\nmemory: fine\n" + four + "\n", 4, 16, 250 * time.Millisecond, 500 * time.Millisecond, 128, ""},
		{"another number of streams", one, 4, 16, 0, 0, 0, "no result for 4 streams of 16 tokens"},
		{"another number of tokens", one, 1, 64, 0, 0, 0, "no result for 1 streams of 64 tokens"},
		{"the cache was too small", "\n", 1, 16, 0, 0, 0, "no result"},
		{"cut off", one[:60], 1, 16, 0, 0, 0, "unexpected end"},
		{"no time", `{"pl": 1, "tg": 16, "t_pp": 0, "t": 0}`, 1, 16, 0, 0, 0, "times that can't be"},
		{"prompt longer than all", `{"pl": 1, "tg": 16, "t_pp": 2, "t": 1}`, 1, 16, 0, 0, 0, "times that can't be"},
	} {
		run, err := parseBatchedBench([]byte(c.output), c.streams, c.tokens)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
			continue
		}
		if err != nil || run.Failure() != nil {
			t.Errorf("%s: %v, %v", c.name, err, run.Failure())
			continue
		}
		if got := run.TokensPerSecond(); got < 0.999*c.tokensPerSecond || got > 1.001*c.tokensPerSecond {
			t.Errorf("%s: %v tokens/s, want %v", c.name, got, c.tokensPerSecond)
		}
		if len(run.Timelines) != c.streams || run.Timelines[0].TTFT() != c.first || run.Timelines[0].Whole() != c.whole {
			t.Errorf("%s: %+v", c.name, run)
		}
	}
}
