package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"tandem/scripts/bench/load"
	"tandem/scripts/bench/report"
)

// Sizes of the caches of llama-server, which divides -c among its -np slots.
var (
	manySlots = []string{"-np", "32", "-c", "65536"} // 2,048 tokens each
	longSlots = []string{"-np", "8", "-c", "65536"}  // 8,192 tokens each
)

const shortWords = 48 // of most prompts

// promptNumber makes prompts that no other request of the run has: of a scenario, a round and a request.
func promptNumber(scenario, round, i int) uint64 {
	return uint64(scenario)<<32 | uint64(round)<<20 | uint64(i)
}

// shortJobs are requests that have nothing in common.
func shortJobs(scenario, round, n, maxTokens int) []load.Job {
	jobs := make([]load.Job, n)
	for i := range jobs {
		jobs[i] = shortJob(promptNumber(scenario, round, i), maxTokens)
	}
	return jobs
}

func shortJob(number uint64, maxTokens int) load.Job {
	return load.Job{Prompt: promptOf(number, shortWords), MaxTokens: maxTokens, Adapter: load.NoAdapter}
}

// throughput: 1 to 32 streams without anything special, also beside the library alone.
func (b *serving) throughput() error {
	const tokens = 64
	servers, stop, err := b.startPair(b.model, servedModel, []string{"CONTEXT=8192"}, manySlots...)
	if err != nil {
		return err
	}
	defer stop()
	if b.peers != "" {
		servers = append(servers, load.Server{Name: batchedBenchName})
	}
	for n, streams := range []int{1, 4, 16, 32} {
		requests := b.full(max(24, 3*streams), max(4, streams)) // at least some seconds of each
		work := fmt.Sprintf("%d streams, %d words in, %d tokens out", streams, shortWords, tokens)
		runs, err := b.alternate(work, servers, func(s load.Server, round int) (load.Run, error) {
			if s.Name == batchedBenchName {
				return b.batchedBench(streams, shortWords, tokens)
			}
			return b.closed(s, shortJobs(10+n, round, requests, tokens), streams)
		})
		if err != nil {
			return err
		}
		row := report.Row{Scenario: "throughput", Work: work, Figure: "tokens/s", Required: report.Bound{AtLeast: 1}}
		b.add(compare(row, runs, load.Run.TokensPerSecond))
		if len(runs) > 2 {
			b.add(&report.Row{Scenario: "throughput", Work: work, Figure: "tokens/s beside the library alone", Peer: batchedBenchName,
				Ours: each(runs[0], load.Run.TokensPerSecond), Theirs: each(runs[2], load.Run.TokensPerSecond)})
		}
	}
	return nil
}

// shortAnswers: where prompts are most of the work.
func (b *serving) shortAnswers() error {
	servers, stop, err := b.startPair(b.model, servedModel, []string{"CONTEXT=8192"}, manySlots...)
	if err != nil {
		return err
	}
	defer stop()
	for n, c := range []struct{ streams, tokens, requests, quick int }{{16, 16, 128, 32}, {32, 32, 128, 32}} {
		work := fmt.Sprintf("%d streams, %d words in, %d tokens out", c.streams, shortWords, c.tokens)
		runs, err := b.alternate(work, servers, func(s load.Server, round int) (load.Run, error) {
			return b.closed(s, shortJobs(20+n, round, b.full(c.requests, c.quick), c.tokens), c.streams)
		})
		if err != nil {
			return err
		}
		row := report.Row{Scenario: "short-answers", Work: work, Figure: "tokens/s", Required: report.Bound{AtLeast: 1}}
		b.add(compare(row, runs, load.Run.TokensPerSecond))
		row = report.Row{Scenario: "short-answers", Work: work, Figure: "whole answer p99", Unit: "s", LessIsBetter: true, Required: report.Bound{AtMost: 1}}
		b.add(compare(row, runs, wholeP99))
	}
	return nil
}

// mixedAdapters: requests of eight adapters at once.
func (b *serving) mixedAdapters() error {
	const streams = 32
	servers, stop, err := b.startPair(b.model, servedModel, []string{"CONTEXT=8192"}, append(b.adapterArgs(), manySlots...)...)
	if err != nil {
		return err
	}
	defer stop()
	requests := b.full(96, 32)
	work := fmt.Sprintf("%d streams over %d adapters, %d words in, 32 tokens out", streams, adapterCount, shortWords)
	if err := b.loadAdapters(servers); err != nil {
		return err
	}
	const oneAdapter = "llama-server, one adapter"
	if len(servers) > 1 { // once more, all requests with the same adapter
		again := servers[1]
		again.Name = oneAdapter
		servers = append(servers, again)
	}
	runs, err := b.alternate(work, servers, func(s load.Server, round int) (load.Run, error) {
		prompts, adapters := 30, adapterCount
		if s.Name == oneAdapter {
			prompts, adapters = 31, 1 // other prompts, since it keeps those of the run before
		}
		jobs := shortJobs(prompts, round, requests, 32)
		for i := range jobs {
			jobs[i].Adapter = i % adapters
		}
		return b.closed(s, jobs, streams)
	})
	if err != nil {
		return err
	}
	row := report.Row{Scenario: "adapters", Work: work, Figure: "tokens/s", Required: report.Bound{AtLeast: 1.5}}
	b.add(compare(row, runs, load.Run.TokensPerSecond))
	if len(runs) > 2 {
		row.Figure, row.Required = "tokens/s beside one adapter for all", report.Bound{AtLeast: 0.9}
		row.Ours, row.Peer, row.Theirs = each(runs[0], load.Run.TokensPerSecond), peerName, each(runs[2], load.Run.TokensPerSecond)
		b.add(&row)
	}
	b.add(compare(report.Row{Scenario: "adapters", Work: work, Figure: "TTFT p99", Unit: "s", LessIsBetter: true, Required: report.Bound{AtMost: 0.25}}, runs, ttftP99))
	gaps := func(percent float64) func(load.Run) float64 {
		return func(r load.Run) float64 { return load.Percentile(r.Gaps(), percent) / load.Median(r.Gaps()) }
	}
	// beside nothing: llama-server serves one adapter after the other, so its gaps are those of one
	row = report.Row{Scenario: "adapters", Work: work, Figure: "gap between tokens, p99 ÷ median", LessIsBetter: true,
		Required: report.Bound{AtMost: 4, Alone: true}, Ours: each(runs[0], gaps(99))}
	b.add(&row)
	row = report.Row{Scenario: "adapters", Work: work, Figure: "gap between tokens, longest ÷ median", LessIsBetter: true, Ours: each(runs[0], gaps(100))}
	b.add(&row)
	return nil
}

// loadAdapters asks each version once, so that no load is measured.
func (b *serving) loadAdapters(servers []load.Server) error {
	var jobs []load.Job
	for i := range adapterCount {
		jobs = append(jobs, load.Job{Prompt: "Hello", MaxTokens: 2, Adapter: i})
	}
	for _, s := range servers {
		if _, err := b.closed(s, jobs, 1); err != nil {
			return err
		}
	}
	return nil
}

// sharedPrefix: many requests with one long system text, which nobody has sent before.
func (b *serving) sharedPrefix() error {
	const clients = 8
	servers, stop, err := b.startPair(b.model, servedModel, []string{"CONTEXT=8192"}, manySlots...)
	if err != nil {
		return err
	}
	defer stop()
	requests, words := b.full(80, 24), 1000
	work := fmt.Sprintf("%d requests that share %d words, %d at a time", requests, words, clients)
	runs, err := b.alternate(work, servers, func(s load.Server, round int) (load.Run, error) {
		shared := promptOf(promptNumber(40, round, 0), words)
		jobs := shortJobs(41, round, requests, 32)
		for i := range jobs {
			jobs[i].Prompt = shared + " " + promptOf(promptNumber(41, round, i), 12)
		}
		return b.closed(s, jobs, clients)
	})
	if err != nil {
		return err
	}
	row := report.Row{Scenario: "shared-prefix", Work: work, Figure: "requests/s", Required: report.Bound{AtLeast: 3}}
	b.add(compare(row, runs, load.Run.RequestsPerSecond))
	row = report.Row{Scenario: "shared-prefix", Work: work, Figure: "TTFT p99", Unit: "s", LessIsBetter: true, Required: report.Bound{AtMost: 0.2}}
	b.add(compare(row, runs, ttftP99))
	return nil
}

// longPrompt: a long prompt alone, then another one of the same length, beside the kept cells of the first.
func (b *serving) longPrompt() error {
	servers, stop, err := b.startPair(b.model, servedModel, []string{"CONTEXT=8192"}, longSlots...)
	if err != nil {
		return err
	}
	defer stop()
	words := b.full(5500, 2000)
	seconds := make(map[string][]load.Run)
	work := fmt.Sprintf("one prompt of %d words alone", words)
	runs, err := b.alternate(work, servers, func(s load.Server, round int) (load.Run, error) {
		jobs := []load.Job{
			{Prompt: promptOf(promptNumber(50, round, 0), words), MaxTokens: 64, Adapter: load.NoAdapter},
			{Prompt: promptOf(promptNumber(50, round, 1), words), MaxTokens: 64, Adapter: load.NoAdapter},
		}
		first, err := b.closed(s, jobs[:1], 1)
		if err != nil {
			return first, err
		}
		second, err := b.closed(s, jobs[1:], 1)
		seconds[s.Name] = append(seconds[s.Name], second)
		return first, err
	})
	if err != nil {
		return err
	}
	row := report.Row{Scenario: "long-prompt", Work: work, Figure: "TTFT", Unit: "s", LessIsBetter: true, Required: report.Bound{AtMost: 1.03}}
	b.add(compare(row, runs, ttftP99))
	var next [][]load.Run
	for _, s := range servers {
		next = append(next, seconds[s.Name])
	}
	median := func(r load.Run) float64 { return 1000 * load.Median(r.Gaps()) }
	row = report.Row{Scenario: "long-prompt", Work: work, Figure: "gap between its tokens", Unit: "ms", LessIsBetter: true}
	b.add(compare(row, runs, median))
	row.Work, row.Figure, row.Required = "the next request after it, of the same length", "gap between tokens", report.Bound{AtMost: 1.05}
	b.add(compare(row, next, median))
	return nil
}

// longBesideStreams: a long prompt comes while four streams are running.
func (b *serving) longBesideStreams() error {
	servers, stop, err := b.startPair(b.model, servedModel, []string{"CONTEXT=8192"}, longSlots...)
	if err != nil {
		return err
	}
	defer stop()
	const streams = 4
	words := b.full(1500, 1500)
	work := fmt.Sprintf("a prompt of %d words comes beside %d streams", words, streams)
	gaps := make(map[string]*streamGaps)
	for _, s := range servers {
		gaps[s.Name] = &streamGaps{}
	}
	runs, err := b.alternate(work, servers, func(s load.Server, round int) (load.Run, error) {
		stream := func(i int) load.Job {
			return shortJob(promptNumber(60, round, i), 1000)
		}
		long := load.Job{Prompt: promptOf(promptNumber(61, round, 0), words), MaxTokens: 16, Adapter: load.NoAdapter}
		return b.disturb(s, streams, stream, long, gaps[s.Name])
	})
	if err != nil {
		return err
	}
	ours := gaps[servers[0].Name]
	row := report.Row{Scenario: "long-beside-streams", Work: work, Figure: "longest gap of the streams ÷ median", LessIsBetter: true,
		Ours: ours.longest, Required: report.Bound{AtMost: 4, Alone: true}}
	b.add(&row)
	row.Required = report.Bound{}
	row.Figure, row.Ours = "the same in as much time without the prompt", ours.longestBefore
	b.add(&row)
	row.Figure, row.Ours = "p99 of their gaps ÷ median", ours.p99
	b.add(&row)
	if len(servers) > 1 {
		row.Figure, row.Ours = "longest gap ÷ median of llama-server", gaps[peerName].longest
		b.add(&row)
	}
	row = report.Row{Scenario: "long-beside-streams", Work: work, Figure: "TTFT of the prompt", Unit: "s", LessIsBetter: true, Required: report.Bound{AtMost: 1.4}}
	b.add(compare(row, runs, ttftP99))
	return nil
}

// settleTime is how long streams run before they are looked at, and watchTime how long they are before they are
// disturbed: about as long as the prompt takes.
const (
	settleTime = time.Second
	watchTime  = 4 * time.Second
)

// streamGaps are figures of the gaps of streams by their median before a prompt comes, one for each round.
type streamGaps struct {
	longest, p99  []float64 // while the prompt is computed
	longestBefore []float64
}

func (g *streamGaps) add(before, during []float64) {
	median := load.Median(before)
	g.longest = append(g.longest, slices.Max(during)/median)
	g.p99 = append(g.p99, load.Percentile(during, 99)/median)
	g.longestBefore = append(g.longestBefore, slices.Max(before)/median)
}

// disturb sends one request beside streams, and adds the streams' gaps. A stream that ends, as the model likes, is
// followed by another.
func (b *serving) disturb(s load.Server, streams int, stream func(i int) load.Job, disturber load.Job, gaps *streamGaps) (long load.Run, err error) {
	busy, reply := load.Beside(b.ctx, s, streams, stream, disturber, settleTime+watchTime)
	if err := errors.Join(busy.Failure(), reply.Err); err != nil {
		return busy, err
	}
	gaps.add(busy.GapsBetween(settleTime, settleTime+watchTime), busy.GapsBetween(reply.Sent, reply.Events[0]))
	return load.Run{Timelines: []load.Timeline{reply}, Elapsed: busy.Elapsed}, nil
}
