package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Outcome is what is known at its end about a request that the engine accepted.
type Outcome struct {
	Reason    string // stop, length, cancelled, error
	ErrorType string // of failed_inferences_total, when the reason is cancelled or error
	Domain    string // mapped to the bounded set as Domain does

	FurtherChoice bool // not the first choice of its request, with which the request is counted
	SharesPrompt  bool // the prompt is counted with another choice

	PromptTokens int
	CachedTokens int // of the prompt, taken from the prefix cache
	OutputTokens int // as many as Token was called for this request

	Queue   time.Duration // proxy and engine together
	Prefill time.Duration
	Decode  time.Duration
	Restart time.Duration // replay and pause; 0 without a restart

	TraceID    string        // of a sampled request, for exemplars; empty: none
	FirstToken time.Duration // since the request was received; 0 when no token came
	Total      time.Duration // since the request was received
}

// Finish records the end of a choice that the engine accepted, exactly once each: successes and failures, finish
// reasons, lengths, phases and objectives. Keeping them in one call is what makes the sums agree. A request with
// several choices counts as one, with the outcome of its first; the tokens of all of them count.
func (mm *ModelMetrics) Finish(o Outcome) {
	mm.makeHistograms()
	mm.lengths(o)
	if o.FurtherChoice {
		return
	}
	counterOr(mm.finished, o.Reason, "error").Inc()
	success := o.Reason == "stop" || o.Reason == "length"
	if success {
		mm.succeeded(o.Domain).Inc()
	} else {
		countWithExemplar(counterOr(mm.failed, o.ErrorType, "internal"), o.TraceID)
	}
	mm.phases(o)
	if o.Reason != "cancelled" {
		mm.recordSLOs(o, success)
	}
}

func (mm *ModelMetrics) lengths(o Outcome) {
	if o.PromptTokens > 0 && !o.SharesPrompt {
		mm.prompt.Observe(float64(o.PromptTokens))
		mm.cached.Add(float64(o.CachedTokens))
		mm.computed.Add(float64(max(0, o.PromptTokens-o.CachedTokens)))
	}
	if o.OutputTokens > 0 {
		mm.output.Observe(float64(o.OutputTokens))
	}
}

func (mm *ModelMetrics) phases(o Outcome) {
	mm.queue.Observe(o.Queue.Seconds())
	if o.Prefill > 0 {
		mm.prefill.Observe(o.Prefill.Seconds())
	}
	if o.Decode > 0 {
		mm.decode.Observe(o.Decode.Seconds())
	}
	if o.Restart > 0 {
		mm.restart.Observe(o.Restart.Seconds())
	}
	if o.OutputTokens > 1 && o.Decode > 0 {
		mm.perOutput.Observe(o.Decode.Seconds() / float64(o.OutputTokens-1))
	}
}

// succeeded returns the success counter of a domain. The domains of keys and models are not known from the beginning.
func (mm *ModelMetrics) succeeded(domain string) prometheus.Counter {
	if c, ok := mm.successes[domain]; ok {
		return c
	}
	return mm.counter("successful_inferences_total", domain)
}

// recordSLOs compares the request with each objective. A failed request missed all of them; a cancelled one isn't
// compared.
func (mm *ModelMetrics) recordSLOs(o Outcome, success bool) {
	slo := mm.m.opts.SLO
	if slo.FirstToken > 0 && (o.FirstToken > 0 || !success) { // an embedding has no token
		mm.countSLO("ttft", success && o.FirstToken <= slo.FirstToken)
	}
	if slo.PerToken > 0 && (o.OutputTokens > 1 || !success) {
		gaps := time.Duration(max(1, o.OutputTokens-1))
		mm.countSLO("tpot", success && o.Decode/gaps <= slo.PerToken)
	}
	if slo.Request > 0 {
		target := slo.Request + time.Duration(max(0, o.OutputTokens-sloTokens))*slo.PerToken
		mm.countSLO("e2e", success && o.Total <= target)
	}
}

func (mm *ModelMetrics) countSLO(slo string, good bool) {
	result := "bad"
	if good {
		result = "good"
	}
	mm.sloResults[slo][result].Inc()
}
