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

// largeAlone is how long the large key is measured without the other.
const largeAlone = 8 * time.Second

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
	requests, within := b.full(8, 2)*smallClients, time.Duration(b.full(60, 16))*time.Second
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

// twoKeysRuns are the runs of each round.
type twoKeysRuns struct {
	alone, beside           []load.Run // of the small key
	largeAlone, largeBeside []float64  // the large key's tokens a second
}

// smallKey measures a key's load alone, then beside the large key, and that one alone, in each round.
func (b *serving) smallKey(server load.Server, l smallKeyLoad) error {
	var runs twoKeysRuns
	large := withAPIKey(server, "large-key")
	for round := range b.rounds {
		b.say("%s: round %d of %d, alone", l.work, round+1, b.rounds)
		run := l.send(2 * round)
		if err := run.Failure(); err != nil {
			return err
		}
		b.say("    %s", summary(run))
		runs.alone = append(runs.alone, run)
		b.say("%s: round %d of %d, beside the other key", l.work, round+1, b.rounds)
		busyJob := func(i int) load.Job { return shortJob(promptNumber(l.scenario+1, 2*round, i), l.tokens) }
		measure := func() load.Run { return l.send(2*round + 1) }
		run, busy := load.WhileBusy(b.ctx, large, largeClients, busyJob, busyBefore, measure)
		if err := errors.Join(run.Failure(), busy.Failure()); err != nil {
			return err
		}
		runs.beside = append(runs.beside, run)
		runs.largeBeside = append(runs.largeBeside, busy.EventsPerSecond(busyBefore, busy.Elapsed))
		busyJob = func(i int) load.Job { return shortJob(promptNumber(l.scenario+1, 2*round+1, i), l.tokens) }
		_, busy = load.WhileBusy(b.ctx, large, largeClients, busyJob, busyBefore, b.wait(largeAlone))
		if err := busy.Failure(); err != nil {
			return err
		}
		runs.largeAlone = append(runs.largeAlone, busy.EventsPerSecond(busyBefore, busy.Elapsed))
		b.say("    %s; the other key %.1f tokens/s, alone %.1f", summary(run), runs.largeBeside[round], runs.largeAlone[round])
	}
	b.addTwoKeys(l.work, &runs)
	return nil
}

// wait is a measurement of others.
func (b *serving) wait(d time.Duration) func() load.Run {
	return func() load.Run {
		select {
		case <-time.After(d):
		case <-b.ctx.Done():
		}
		return load.Run{}
	}
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

// addTwoKeys adds the rows: how much longer the small key's answers take beside the other key, how much of that is
// waiting for the first token, and slower ones after it, and what that costs the other key. A round has too few answers
// for a p95 that says much, so it is that of all rounds' answers.
func (b *serving) addTwoKeys(work string, runs *twoKeysRuns) {
	row := func(figure string, values []float64, unit string, required report.Bound) {
		b.add(&report.Row{Scenario: "two-keys", Work: work, Figure: figure, Unit: unit, LessIsBetter: true, Ours: values, Required: required})
	}
	p95 := func(figure func(load.Run) []float64) (alone, beside float64) {
		of := func(list []load.Run) float64 {
			var all []float64
			for _, r := range list {
				all = append(all, figure(r)...)
			}
			return load.Percentile(all, 95)
		}
		return of(runs.alone), of(runs.beside)
	}
	wholeAlone, wholeBeside := p95(load.Run.WholeReplies)
	ttftAlone, ttftBeside := p95(load.Run.FirstTokens)
	gap := func(r load.Run) float64 { return load.Median(r.Gaps()) }
	gaps, ofLarge := each(runs.beside, gap), make([]float64, len(runs.largeAlone))
	for i, alone := range each(runs.alone, gap) {
		gaps[i] /= alone
		ofLarge[i] = runs.largeBeside[i] / runs.largeAlone[i]
	}
	row("whole answer p95 of the small key alone, of all rounds", []float64{wholeAlone}, "s", report.Bound{})
	row("the same beside the other key ÷ alone", []float64{wholeBeside / wholeAlone}, "", report.Bound{AtMost: 1.5, Alone: true})
	row("TTFT p95 of all rounds beside the other key ÷ alone", []float64{ttftBeside / ttftAlone}, "", report.Bound{})
	row("gap between tokens beside the other key ÷ alone", gaps, "", report.Bound{})
	b.add(&report.Row{Scenario: "two-keys", Work: work, Figure: "tokens/s of the small key beside the other", Ours: each(runs.beside, load.Run.TokensPerSecond)})
	b.add(&report.Row{Scenario: "two-keys", Work: work, Figure: "tokens/s of the other key, beside the small one ÷ alone", Ours: ofLarge})
}
