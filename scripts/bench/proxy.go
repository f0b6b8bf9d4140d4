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
	streamPause   = 10 * time.Millisecond // events that wait for each other would share writes
)

// The proxy's CPU time per request and per event is measured beside bare servers that send the same bytes to the same load in
// alternating rounds. The engine is the mock one, which costs the proxy the same.

func unaryWithMock() error { return withMock("0s", benchUnary) }

func streamWithMock() error { return withMock(streamPause.String(), benchStream) }

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
	reply, err := sample(unary)
	if err != nil {
		return err
	}
	relayed := reply
	relayed.Relay = true
	round := func(t target) (int, error) {
		r, err := run(t, proxyClients, 0, proxyRequests)
		return r.requests, err
	}
	return beside(s, "unary request, 64 connections", unary, round, []bare{{"bare server", reply}, {"bare server, woken", relayed}})
}

func benchStream(s *stack) error {
	words := func(i int) string { return fmt.Sprintf("%d %s", i, repeatWords(streamTokens)) }
	stream := tandem(s.url, "demo", streamTokens, words, `,"stream":true`)
	reply, err := sample(stream)
	if err != nil {
		return err
	}
	reply.Events, reply.Pause = streamTokens+1, streamPause
	round := func(t target) (int, error) {
		r, err := run(t, streamClients, 0, streamCount)
		return r.events, err
	}
	return beside(s, "streamed event, 64 streams", stream, round, []bare{{"bare server", reply}})
}

func repeatWords(n int) string {
	b := make([]byte, 0, n*5)
	for i := range n {
		b = fmt.Appendf(b, "w%d ", i%100)
	}
	return string(b)
}

// bare is a server to compare with.
type bare struct {
	name  string
	reply bareReply
}

// contender is a process under load with what was measured of it.
type contender struct {
	name   string
	pid    int
	target target
	micros []float64 // CPU for each thing done, of each round
	rates  []float64
}

// beside runs rounds of load at the proxy and at bare servers in turn, and prints medians.
func beside(s *stack, what string, t target, round func(target) (int, error), others []bare) error {
	all := []*contender{{name: "proxy", pid: s.proxy.cmd.Process.Pid, target: t}}
	for _, b := range others {
		p, url, err := startBare(b.name, b.reply)
		if err != nil {
			return err
		}
		defer p.stop()
		c := &contender{name: b.name, pid: p.cmd.Process.Pid, target: t}
		c.target.url = url
		all = append(all, c)
	}
	for n := range proxyRounds + 1 { // the first warms up
		for _, c := range all {
			if err := c.measure(round, n > 0); err != nil {
				return err
			}
		}
	}
	fmt.Printf("%s (median of %d alternated rounds)\n", what, proxyRounds)
	for _, c := range all {
		fmt.Printf("  %-20s %6.1f µs CPU, %.0f/s", c.name, median(c.micros), median(c.rates))
		if c != all[0] {
			fmt.Printf("; the proxy adds %.1f µs", median(added(all[0].micros, c.micros)))
		}
		fmt.Println()
	}
	return nil
}

func (c *contender) measure(round func(target) (int, error), counts bool) error {
	before, err := cpuTime(c.pid)
	if err != nil {
		return err
	}
	began := time.Now()
	n, err := round(c.target)
	if err != nil {
		return err
	}
	if n == 0 {
		return errNothing
	}
	took := time.Since(began)
	after, err := cpuTime(c.pid)
	if err != nil || !counts {
		return err
	}
	c.micros = append(c.micros, float64((after-before).Microseconds())/float64(n))
	c.rates = append(c.rates, float64(n)/took.Seconds())
	return nil
}

// added is by how much each round of a took more than the round of b beside it.
func added(a, b []float64) []float64 {
	more := make([]float64, len(a))
	for i := range a {
		more[i] = a[i] - b[i]
	}
	return more
}
