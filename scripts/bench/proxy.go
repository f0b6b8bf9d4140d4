package main

import (
	"fmt"
	"time"
)

const (
	proxyRounds   = 5
	proxyClients  = 64
	proxyRequests = 20_000
	streamClients = 64
	streamCount   = 192
	streamTokens  = 128
)

// benchProxy measures the proxy's CPU time per request and per event. The engine is the mock one, which costs the proxy the same.
func benchProxy() error {
	if err := withMock("0s", benchUnary); err != nil {
		return err
	}
	return withMock("10ms", benchStream) // paced: events that wait for each other would share writes
}

func withMock(tokenDelay string, measure func(*stack) error) error {
	s, err := startStack(env("PROXY", "bin/tandem-proxy"), env("MOCK_ENGINE", "bin/tandem-engine-mock"), "ENGINE_MOCK=true", "PARALLEL=256",
		"MOCK_TOKEN_DELAY="+tokenDelay)
	if err != nil {
		return err
	}
	defer s.stop()
	return measure(s)
}

func benchUnary(s *stack) error {
	unary := tandem(s.url, "demo", 1, func(i int) string { return fmt.Sprintf("hello %d", i) }, "")
	return cpuPer(s, "unary request, 64 connections", func() (int, error) {
		r, err := run(unary, proxyClients, proxyRequests)
		return r.requests, err
	})
}

func benchStream(s *stack) error {
	words := func(i int) string { return fmt.Sprintf("%d %s", i, repeatWords(streamTokens)) }
	stream := tandem(s.url, "demo", streamTokens, words, `,"stream":true`)
	return cpuPer(s, "streamed event, 64 streams", func() (int, error) {
		r, err := run(stream, streamClients, streamCount)
		return r.events, err
	})
}

func repeatWords(n int) string {
	b := make([]byte, 0, n*5)
	for i := range n {
		b = fmt.Appendf(b, "w%d ", i%100)
	}
	return string(b)
}

// cpuPer runs rounds of load and prints the median CPU time of the proxy for each thing done.
func cpuPer(s *stack, what string, round func() (int, error)) error {
	if _, err := round(); err != nil { // warm up
		return err
	}
	var micros, rates []float64
	for range proxyRounds {
		before, err := cpuTime(s.proxy.cmd.Process.Pid)
		if err != nil {
			return err
		}
		began := time.Now()
		n, err := round()
		if err != nil {
			return err
		}
		if n == 0 {
			return errNothing
		}
		took := time.Since(began)
		after, err := cpuTime(s.proxy.cmd.Process.Pid)
		if err != nil {
			return err
		}
		micros = append(micros, float64((after-before).Microseconds())/float64(n))
		rates = append(rates, float64(n)/took.Seconds())
	}
	fmt.Printf("%-34s %6.1f µs CPU of the proxy (median of %d), %.0f/s\n", what, median(micros), proxyRounds, median(rates))
	return nil
}
