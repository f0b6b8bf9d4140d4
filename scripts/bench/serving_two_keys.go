package main

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"tandem/scripts/bench/load"
	"tandem/scripts/bench/report"
)

// busyBefore is how long the large key's clients run before the small key's come: until those who began together don't
// end together any more.
const busyBefore = 5 * time.Second

// twoKeys: a key whose clients are alone, then beside another key with ten times as many, together more than the server
// decodes at a time. llama-server doesn't tell keys apart.
func (b *serving) twoKeys() error {
	const smallClients, largeClients, tokens = 4, 40, 32
	small, stop, err := b.startTandem(servedModel, "CONTEXT=8192", "API_KEYS=bench:bench-key,large:large-key")
	if err != nil {
		return err
	}
	defer stop()
	if err := b.warmUp([]load.Server{small}); err != nil {
		return err
	}
	large := withAPIKey(small, "large-key")
	requests := b.full(3, 2) * smallClients
	work := fmt.Sprintf("a key with %d clients beside one with %d, %d words in, %d tokens out", smallClients, largeClients, shortWords, tokens)
	var alone, beside []load.Run
	for round := range b.rounds {
		b.say("%s: round %d of %d, alone", work, round+1, b.rounds)
		run, err := b.closed(small, shortJobs(90, round, requests, tokens), smallClients)
		if err != nil {
			return err
		}
		b.say("    %s", summary(run))
		alone = append(alone, run)
		b.say("%s: round %d of %d, beside the other key", work, round+1, b.rounds)
		busyJob := func(i int) load.Job { return shortJob(promptNumber(92, round, i), tokens) }
		run, busy := load.ClosedBeside(b.ctx, small, shortJobs(91, round, requests, tokens), smallClients, large, largeClients, busyJob, busyBefore)
		if err := errors.Join(run.Failure(), busy.Failure()); err != nil {
			return err
		}
		b.say("    %s; the other key %.1f tokens/s", summary(run), busy.TokensPerSecond())
		beside = append(beside, run)
	}
	b.addTwoKeys(work, alone, beside)
	return nil
}

// withAPIKey is a server as clients with another key have it.
func withAPIKey(s load.Server, key string) load.Server {
	request := s.Request
	s.Request = func(j load.Job) (*http.Request, error) {
		r, err := request(j)
		if err == nil {
			r.Header.Set("X-API-Key", key)
		}
		return r, err
	}
	return s
}

// addTwoKeys adds the rows of the small key's runs: how much longer its answers take beside the other key, and how much
// of that is waiting for the first token, and slower ones after it.
func (b *serving) addTwoKeys(work string, alone, beside []load.Run) {
	row := func(figure string, values []float64, unit string, required report.Bound) {
		b.add(&report.Row{Scenario: "two-keys", Work: work, Figure: figure, Unit: unit, LessIsBetter: true, Ours: values, Required: required})
	}
	times := func(figure func(load.Run) float64) []float64 {
		ratios := each(beside, figure)
		for i, without := range each(alone, figure) {
			ratios[i] /= without
		}
		return ratios
	}
	wholeP95 := func(r load.Run) float64 { return load.Percentile(r.WholeReplies(), 95) }
	ttftP95 := func(r load.Run) float64 { return load.Percentile(r.FirstTokens(), 95) }
	gap := func(r load.Run) float64 { return load.Median(r.Gaps()) }
	row("whole answer p95 of the small key alone", each(alone, wholeP95), "s", report.Bound{})
	row("the same beside the other key ÷ alone", times(wholeP95), "", report.Bound{AtMost: 1.5, Alone: true})
	row("TTFT p95 beside the other key ÷ alone", times(ttftP95), "", report.Bound{})
	row("gap between tokens beside the other key ÷ alone", times(gap), "", report.Bound{})
}
