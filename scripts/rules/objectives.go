package main

import (
	"fmt"
	"strconv"
	"time"
)

const (
	day = 24 * time.Hour

	// enoughRequests must have come within the short window before a budget alert fires: one failure at night wakes nobody.
	enoughRequests = 20
)

// objective is a share of requests that must be good over 30 days.
type objective struct {
	alert  string
	name   string
	record string  // recorded share of bad requests, without its window
	budget float64 // share that may be bad
	bad    string  // what bad ones are, for people
	wakes  bool    // whether fast burning is critical
}

var objectives = []objective{
	{"LLMAvailabilityBudgetBurn", "availability-99", "job:api_requests_error:ratio_rate", 0.01, "of valid requests failed", true},
	{"LLMLatencyP95BudgetBurn", "latency-p95-1s", "job:api_response_time_slow1s:ratio_rate", 0.05, "of answers took longer than 1 s", false},
	{"LLMLatencyP99BudgetBurn", "latency-p99-2s", "job:api_response_time_slow2s:ratio_rate", 0.01, "of answers took longer than 2 s", false},
}

// burn is a speed at which a budget of 30 days is used up, and the two windows over which it must have been exceeded: the long one
// says that it matters, the short one that it still goes on.
type burn struct {
	factor      float64
	long, short time.Duration
	holds       time.Duration
	fast        bool
}

var burns = []burn{
	{14.4, time.Hour, 5 * time.Minute, 2 * time.Minute, true},
	{6, 6 * time.Hour, 30 * time.Minute, 15 * time.Minute, true},
	{3, day, 2 * time.Hour, time.Hour, false},
	{1, 3 * day, 6 * time.Hour, 3 * time.Hour, false},
}

// windows of the recorded shares: exactly those that the burns need.
func windows() []time.Duration {
	return []time.Duration{5 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 6 * time.Hour, day, 3 * day}
}

func burnAlerts() []alert {
	var all []alert
	for _, o := range objectives {
		for _, b := range burns {
			all = append(all, o.burnAlert(b))
		}
	}
	return all
}

func (o objective) burnAlert(b burn) alert {
	severity := warning
	if o.wakes && b.fast {
		severity = critical
	}
	long, short := duration(b.long), duration(b.short)
	factor := strconv.FormatFloat(b.factor, 'g', -1, 64)
	return alert{
		name: o.alert,
		expr: fmt.Sprintf("%[1]s%[2]s > (%[4]s * %[5]g)\nand\n%[1]s%[3]s > (%[4]s * %[5]g)\nand\njob:api_requests_valid:increase%[3]s > %[6]d",
			o.record, long, short, factor, o.budget, enoughRequests),
		holds:    b.holds,
		severity: severity,
		labels:   []label{{"slo", o.name}, {"window", long}, {"burnrate", factor}},
		summary:  fmt.Sprintf("The error budget of %s burns at %s times the sustainable rate", o.name, factor),
		description: fmt.Sprintf("Over %s {{ $value | humanizePercentage }} %s; the objective allows %g %%, and over the last %s it was no better.",
			long, o.bad, o.budget*100, short),
	}
}
