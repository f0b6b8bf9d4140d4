package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"tandem/scripts/bench/load"
	"tandem/scripts/bench/report"
)

// comingBack: of so many clients one comes back when it is refused, and so do the last ones.
const comingBack, lastComingBack = 16, 16

// overload: four times what the server can do, from users who leave after 20 seconds.
func (b *serving) overload() error {
	const deadline, streams, tokens = 20 * time.Second, 32, 64
	servers, stop, err := b.startPair(b.model, servedModel, []string{"CONTEXT=8192"}, manySlots...)
	if err != nil {
		return err
	}
	defer stop()
	within := time.Duration(b.full(45, 15)) * time.Second // those refused come back up to a minute later
	capacity := func(scenario int) (float64, error) {
		run, err := b.closed(servers[0], shortJobs(scenario, 0, b.full(128, 64), tokens), streams)
		return run.RequestsPerSecond(), err
	}
	can, err := capacity(70)
	if err != nil {
		return err
	}
	work := fmt.Sprintf("4 × overload: %.1f requests/s for %.0f s, deadline %.0f s", 4*can, within.Seconds(), deadline.Seconds())
	b.say("capacity: %.2f requests/s", can)
	runs := make([][]load.Run, len(servers))
	for i, s := range servers { // one round: it takes a minute, and what it shares with another is the queue
		arrivals := load.Poisson(4*can, within, 11)
		jobs := shortJobs(71, 0, len(arrivals), tokens)
		for k := range jobs {
			jobs[k].Deadline = deadline
			jobs[k].ComesBack = k%comingBack == 0 || k >= len(jobs)-lastComingBack
		}
		b.say("%s: %s", work, s.Name)
		runs[i] = []load.Run{load.Open(b.ctx, s, jobs, arrivals)}
	}
	after, err := capacity(72) // a machine's speed wanders by a tenth within a minute or two
	if err != nil {
		return err
	}
	b.say("capacity after it: %.2f requests/s", after)
	b.addOverload(work, runs, within, (can+after)/2)
	err = failedRequests(runs[0][0])
	if len(runs) > 1 && runs[1][0].RequestsPerSecond() > 0 {
		err = errors.Join(err, sameWork(servers, runs))
	}
	return err
}

// addOverload adds the rows of a run of each server.
func (b *serving) addOverload(work string, runs [][]load.Run, within time.Duration, capacity float64) {
	ours := runs[0][0]
	inTime := func(r load.Run) float64 { return goodput(r, within) }
	b.add(compare(report.Row{Scenario: "overload", Work: work, Figure: "answers in time a second"}, runs, inTime))
	alone := func(figure, unit string, value float64, required report.Bound) {
		b.add(&report.Row{Scenario: "overload", Work: work, Figure: figure, Unit: unit, LessIsBetter: required.AtMost != 0,
			Required: required, Ours: []float64{value}})
	}
	alone("answers in time, of capacity", "", inTime(ours)/capacity, report.Bound{AtLeast: 0.9, Alone: true})
	refusals, retryAfter := refused(ours)
	alone(fmt.Sprintf("refusals (%d) p99", len(refusals)), "ms", 1000*load.Percentile(refusals, 99), report.Bound{AtMost: 10, Alone: true})
	letIn, late := lateAnswers(ours)
	alone(fmt.Sprintf("let in (%d): not answered in time", letIn), "", late, report.Bound{})
	alone("Retry-After, median", "s", load.Median(retryAfter), report.Bound{})
	during := func(t *load.Timeline) bool { return t.Sent < within }
	if came, share := cameBack(ours, during); came > 0 {
		alone(fmt.Sprintf("came back after Retry-After, during the overload (%d): in time", came), "", share, report.Bound{})
	}
	if came, share := cameBack(ours, func(t *load.Timeline) bool { return !during(t) }); came > 0 {
		alone(fmt.Sprintf("came back after Retry-After, when it was over (%d): in time", came), "", share, report.Bound{AtLeast: 0.9, Alone: true})
	}
	for _, theirs := range runs[1:] { // ours fail the scenario
		if n, err := failures(theirs[0]); n > 0 {
			b.report.Notes = append(b.report.Notes, fmt.Sprintf("Overload: %d requests to %s failed, such as: %v", n, peerName, err))
		}
	}
}

// lateAnswers counts the requests that weren't refused, and says which part of them had no whole answer in time.
func lateAnswers(r load.Run) (letIn int, late float64) {
	n := 0
	for i := range r.Timelines {
		t := &r.Timelines[i]
		if t.Refused() {
			continue
		}
		letIn++
		if t.Err != nil {
			n++
		}
	}
	return letIn, float64(n) / float64(letIn)
}

// cameBack counts the clients of a kind that came back after a refusal, and says which part of them was answered.
func cameBack(r load.Run, kind func(*load.Timeline) bool) (came int, share float64) {
	answered := 0
	for i := range r.Timelines {
		t := &r.Timelines[i]
		if !t.Returned || !kind(t) {
			continue
		}
		came++
		if t.Err == nil {
			answered++
		}
	}
	return came, float64(answered) / float64(came)
}

// failures counts what was neither answered nor refused nor late, and returns the first such error.
func failures(r load.Run) (n int, first error) {
	for i := range r.Timelines {
		t := &r.Timelines[i]
		if !t.Failed() {
			continue
		}
		n++
		if first == nil {
			first = t.Err
		}
	}
	return n, first
}

var errFailedRequests = errors.New("requests failed that were neither refused nor late")

func failedRequests(r load.Run) error {
	n, err := failures(r)
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d of %d, such as: %w", errFailedRequests, n, len(r.Timelines), err)
}

// goodput is how many whole answers there were a second, until the last of them or the last arrival. Who comes back
// when the overload is over doesn't count.
func goodput(r load.Run, within time.Duration) float64 {
	answers, until := 0, within
	for i := range r.Timelines {
		if t := &r.Timelines[i]; t.Err == nil && t.Sent < within {
			answers++
			until = max(until, t.Ended)
		}
	}
	return float64(answers) / until.Seconds()
}

// refused returns how long refusals took and what their Retry-After said, in seconds.
func refused(r load.Run) (took, retryAfter []float64) {
	for i := range r.Timelines {
		t := &r.Timelines[i]
		if !t.Refused() {
			continue
		}
		took = append(took, t.Whole().Seconds())
		if n, err := strconv.Atoi(t.RetryAfter); err == nil {
			retryAfter = append(retryAfter, float64(n))
		}
	}
	return took, retryAfter
}
