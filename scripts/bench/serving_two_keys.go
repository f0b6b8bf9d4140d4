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

// largeClients send the large key's requests, together more than the server decodes at a time.
const largeClients = 40

// twoKeys: a key alone, then beside another one with ten times its load. Once it has clients that ask without a pause,
// and so take all of the server if they can, and once requests that come now and then. llama-server doesn't tell keys
// apart.
func (b *serving) twoKeys() error {
	const smallClients, perSecond, tokens = 4, 0.5, 32
	small, stop, err := b.startTandem(servedModel, "CONTEXT=8192", "API_KEYS=bench:bench-key,large:large-key")
	if err != nil {
		return err
	}
	defer stop()
	if err := b.warmUp([]load.Server{small}); err != nil {
		return err
	}
	requests, within := b.full(8, 2)*smallClients, time.Duration(b.full(40, 16))*time.Second
	beside := fmt.Sprintf("beside one with %d clients, %d words in, %d tokens out", largeClients, shortWords, tokens)
	busyClients := smallKeyLoad{
		work: fmt.Sprintf("a key with %d clients %s", smallClients, beside), scenario: 90, tokens: tokens,
		send: func(round int) load.Run {
			return load.Closed(b.ctx, small, shortJobs(90, round, requests, tokens), smallClients)
		},
	}
	nowAndThen := smallKeyLoad{
		work: fmt.Sprintf("a key with %g requests/s (Poisson) %s", perSecond, beside), scenario: 92, tokens: tokens,
		send: func(round int) load.Run {
			arrivals := load.Poisson(perSecond, within, uint64(round/2)) // the same ones beside the other key
			return load.Open(b.ctx, small, shortJobs(92, round, len(arrivals), tokens), arrivals)
		},
	}
	return errors.Join(b.smallKey(small, busyClients), b.smallKey(small, nowAndThen))
}

// smallKeyLoad is what a key sends in each round.
type smallKeyLoad struct {
	work     string
	scenario int // of its prompts; the next one is that of the large key's
	tokens   int
	send     func(round int) load.Run
}

// smallKey measures a key's load alone, then beside the large key, in each round.
func (b *serving) smallKey(server load.Server, l smallKeyLoad) error {
	var alone, beside []load.Run
	for round := range b.rounds {
		b.say("%s: round %d of %d, alone", l.work, round+1, b.rounds)
		run := l.send(2 * round)
		if err := run.Failure(); err != nil {
			return err
		}
		b.say("    %s", summary(run))
		alone = append(alone, run)
		b.say("%s: round %d of %d, beside the other key", l.work, round+1, b.rounds)
		busyJob := func(i int) load.Job { return shortJob(promptNumber(l.scenario+1, round, i), l.tokens) }
		measure := func() load.Run { return l.send(2*round + 1) }
		run, busy := load.WhileBusy(b.ctx, withAPIKey(server, "large-key"), largeClients, busyJob, busyBefore, measure)
		if err := errors.Join(run.Failure(), busy.Failure()); err != nil {
			return err
		}
		b.say("    %s; the other key %.1f tokens/s", summary(run), busy.TokensPerSecond())
		beside = append(beside, run)
	}
	b.addTwoKeys(l.work, alone, beside)
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
