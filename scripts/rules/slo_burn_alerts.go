package main

import (
	"fmt"
	"strconv"
	"time"
)

const (
	day = 24 * time.Hour

	// minRequests must have come within the short window for an error budget alert to fire: one failure at night wakes
	// nobody.
	minRequests = 20
)

// slo is an objective: the share of requests that must be good over 30 days.
type slo struct {
	alertName     string
	name          string
	ratioRecord   string  // name of the recorded ratio of bad requests, without the window
	errorBudget   float64 // ratio of requests that may be bad
	badRequests   string  // what bad requests are, in the description of the alert
	pagesWhenFast bool    // a fast burn rate is critical
}

var slos = []slo{
	{"LLMAvailabilityBudgetBurn", "availability-99", "job:api_requests_error:ratio_rate", 0.01, "of valid requests failed", true},
	{"LLMLatencyP95BudgetBurn", "latency-p95-1s", "job:api_response_time_slow1s:ratio_rate", 0.05, "of answers took longer than 1 s", false},
	{"LLMLatencyP99BudgetBurn", "latency-p99-2s", "job:api_response_time_slow2s:ratio_rate", 0.01, "of answers took longer than 2 s", false},
}

// burnRate is how fast an error budget of 30 days is used up, and the two windows over which the rate must be exceeded:
// the long one shows that it matters, the short one that it still goes on.
type burnRate struct {
	factor      float64
	long, short time.Duration
	forDuration time.Duration
	fast        bool
}

var burnRates = []burnRate{
	{14.4, time.Hour, 5 * time.Minute, 2 * time.Minute, true},
	{6, 6 * time.Hour, 30 * time.Minute, 15 * time.Minute, true},
	{3, day, 2 * time.Hour, time.Hour, false},
	{1, 3 * day, 6 * time.Hour, 3 * time.Hour, false},
}

// burnWindows are the windows of the recorded ratios: exactly those that burnRates needs.
func burnWindows() []time.Duration {
	return []time.Duration{5 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour, day, 3 * day}
}

func burnAlerts() []alert {
	var all []alert
	for _, o := range slos {
		for _, b := range burnRates {
			all = append(all, o.burnAlert(b))
		}
	}
	return all
}

func (o slo) burnAlert(b burnRate) alert {
	severity := warning
	if o.pagesWhenFast && b.fast {
		severity = critical
	}
	long, short := formatDuration(b.long), formatDuration(b.short)
	factor := strconv.FormatFloat(b.factor, 'g', -1, 64)
	return alert{
		name: o.alertName,
		expr: fmt.Sprintf("%[1]s%[2]s > (%[4]s * %[5]g)\nand\n%[1]s%[3]s > (%[4]s * %[5]g)\nand\njob:api_requests_valid:increase%[3]s > %[6]d",
			o.ratioRecord, long, short, factor, o.errorBudget, minRequests),
		forDuration: b.forDuration,
		severity:    severity,
		labels:      []label{{"slo", o.name}, {"window", long}, {"burnrate", factor}},
		summary:     fmt.Sprintf("The error budget of %s burns at %s times the sustainable rate", o.name, factor),
		description: fmt.Sprintf("Over %s {{ $value | humanizePercentage }} %s; the objective allows %g %%, and over the last %s it was no better.",
			long, o.badRequests, o.errorBudget*100, short),
	}
}
