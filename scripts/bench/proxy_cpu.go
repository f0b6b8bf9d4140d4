package main

import (
	"fmt"
	"time"
)

const (
	cpuRounds        = 5
	unaryClients     = 64
	requestsPerRound = 20_000
	streamClients    = 64
	streamsPerRound  = 192
	streamTokens     = 128
	eventInterval    = 10 * time.Millisecond // without it events would share writes
)

// The proxy's CPU time per request and per event is compared with that of bare servers, which send the same bytes under
// the same load, in alternating rounds. The engine is the mock, which costs the proxy the same as a real one.

func benchUnary() error { return withMockEngine("0s", benchUnaryCPU) }

func benchStream() error { return withMockEngine(eventInterval.String(), benchStreamCPU) }

func withMockEngine(tokenDelay string, measure func(*tandemServer) error) error {
	s, err := startTandem(envOr("PROXY", "bin/tandem-proxy"), envOr("MOCK_ENGINE", "bin/tandem-engine-mock"), "ENGINE_MOCK=true", "PARALLEL=256",
		"MOCK_TOKEN_DELAY="+tokenDelay)
	if err != nil {
		return err
	}
	defer s.stop()
	return measure(s)
}

func benchUnaryCPU(s *tandemServer) error {
	unary := tandemTarget(s.url, "demo", 1, func(i int) string { return fmt.Sprintf("hello %d", i) }, "")
	reply, err := sampleReply(unary)
	if err != nil {
		return err
	}
	relayed := reply
	relayed.WakeByGoroutine = true
	round := func(t target) (int, error) {
		r, err := runLoad(t, unaryClients, 0, requestsPerRound)
		return r.requests, err
	}
	return compareWithBaselines(s, "unary request, 64 connections", unary, round, []baseline{{"bare server", reply}, {"bare server, woken", relayed}})
}

func benchStreamCPU(s *tandemServer) error {
	words := func(i int) string { return fmt.Sprintf("%d %s", i, repeatWords(streamTokens)) }
	stream := tandemTarget(s.url, "demo", streamTokens, words, `,"stream":true`)
	reply, err := sampleReply(stream)
	if err != nil {
		return err
	}
	reply.Events, reply.EventInterval = streamTokens+1, eventInterval
	round := func(t target) (int, error) {
		r, err := runLoad(t, streamClients, 0, streamsPerRound)
		return r.events, err
	}
	return compareWithBaselines(s, "streamed event, 64 streams", stream, round, []baseline{{"bare server", reply}})
}

func repeatWords(n int) string {
	b := make([]byte, 0, n*5)
	for i := range n {
		b = fmt.Appendf(b, "w%d ", i%100)
	}
	return string(b)
}

// baseline is a bare server to compare with.
type baseline struct {
	name  string
	reply baselineReply
}

// measuredServer is a process under load and what was measured.
type measuredServer struct {
	name           string
	pid            int
	target         target
	cpuMicros      []float64 // CPU time per request or event, one value a round
	ratesPerSecond []float64
}

// compareWithBaselines runs rounds of load on the proxy and on bare servers in turn, and prints medians.
func compareWithBaselines(s *tandemServer, what string, t target, round func(target) (int, error), baselines []baseline) error {
	all := []*measuredServer{{name: "proxy", pid: s.proxy.PID(), target: t}}
	for _, b := range baselines {
		p, url, err := startBaselineServer(b.name, b.reply)
		if err != nil {
			return err
		}
		defer stop(p)
		c := &measuredServer{name: b.name, pid: p.PID(), target: t}
		c.target.url = url
		all = append(all, c)
	}
	for n := range cpuRounds + 1 { // the first warms up
		for _, c := range all {
			if err := c.measure(round, n > 0); err != nil {
				return err
			}
		}
	}
	fmt.Printf("%s (median of %d alternated rounds)\n", what, cpuRounds)
	for _, c := range all {
		fmt.Printf("  %-20s %6.1f µs CPU, %.0f/s", c.name, median(c.cpuMicros), median(c.ratesPerSecond))
		if c != all[0] {
			fmt.Printf("; the proxy adds %.1f µs", median(differences(all[0].cpuMicros, c.cpuMicros)))
		}
		fmt.Println()
	}
	return nil
}

func (c *measuredServer) measure(round func(target) (int, error), counts bool) error {
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
		return errNothingMeasured
	}
	took := time.Since(began)
	after, err := cpuTime(c.pid)
	if err != nil || !counts {
		return err
	}
	c.cpuMicros = append(c.cpuMicros, float64((after-before).Microseconds())/float64(n))
	c.ratesPerSecond = append(c.ratesPerSecond, float64(n)/took.Seconds())
	return nil
}

// differences returns by how much each round of a took more than the same round of b.
func differences(a, b []float64) []float64 {
	more := make([]float64, len(a))
	for i := range a {
		more[i] = a[i] - b[i]
	}
	return more
}
