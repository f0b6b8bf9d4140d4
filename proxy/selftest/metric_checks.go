package selftest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// checkMetrics compares the metrics page before and after one request of each kind.
func (p *probe) checkMetrics() {
	if p.metricsOff {
		p.check(p.MetricsPath+" is off, as /status says", func() error {
			got, err := p.get(p.MetricsPath)
			if err == nil && got.status != http.StatusNotFound {
				err = fmt.Errorf("status %d", got.status)
			}
			return err
		})
		return
	}
	var before, after scrapedMetrics
	p.check(p.MetricsPath+" can be read", func() (err error) { before, err = p.scrape(); return err })
	if before == nil {
		return
	}
	p.check("every documented metric is there with its type and labels", before.checkDocumented)
	p.check(routerPath+" has what routers need", p.router)

	tokens, inferred := 0, false
	p.check("one inference is answered", func() (err error) { tokens, inferred, err = p.infer(); return err })
	_, _ = p.get("/health")
	p.check(p.MetricsPath+" can be read again", func() (err error) { after, err = p.scrape(); return err })
	if after == nil {
		return
	}
	p.check("/health was counted", func() error {
		return checkIncreased(before, after, 1, "api_requests_total", "endpoint", "/health", "status", "success")
	})
	p.check("counters never fall", func() error { return before.checkNotFallen(after) })
	if !inferred {
		fmt.Fprintln(p.Out, "skip  numbers of the inference")
		return
	}
	p.check("the inference was counted everywhere", func() error { return checkInferenceCounted(before, after, tokens) })
}

func (p *probe) router() error {
	got, err := p.get(routerPath)
	if err != nil {
		return err
	}
	for _, name := range []string{"llm_requests_waiting", "llm_requests_running", "llm_kv_cache_usage_ratio"} {
		if !strings.Contains(string(got.body), "\n"+name+" ") {
			return fmt.Errorf("no %s in %.300s", name, got.body)
		}
	}
	return nil
}

// infer makes one inference. Without a valid key, or at its limit, it is left out, which isn't a failure.
func (p *probe) infer() (tokens int, done bool, err error) {
	body := map[string]any{"prompt": "What is the capital of France?", "max_new_tokens": 32}
	if p.Model != "" {
		body["base_model"] = p.Model
	}
	text, err := json.Marshal(body)
	if err != nil {
		return 0, false, fmt.Errorf("encode request: %w", err)
	}
	got, err := p.send("POST", "/infer", string(text), "Content-Type", "application/json", "Authorization", "Bearer "+p.Key)
	if err != nil {
		return 0, false, err
	}
	switch got.status {
	case http.StatusUnauthorized:
		fmt.Fprintln(p.Out, "      (no inference: give a good key with --key)")
		return 0, false, nil
	case http.StatusTooManyRequests:
		fmt.Fprintln(p.Out, "      (no inference: the key is at its rate limit)")
		return 0, false, nil
	}
	if got.status != http.StatusOK {
		return 0, false, fmt.Errorf("status %d: %s", got.status, got.body)
	}
	var reply struct {
		Result   *string
		Metadata struct {
			Model, Version string
			Tokens         int      `json:"tokens_generated"`
			ResponseTime   *float64 `json:"response_time"`
			GenerationTime *float64 `json:"generation_time"`
		}
	}
	if err := unmarshal(got.body, &reply); err != nil {
		return 0, false, err
	}
	m := reply.Metadata
	if reply.Result == nil || m.Model == "" || m.Version == "" || m.Tokens < 1 || m.ResponseTime == nil || m.GenerationTime == nil || *m.ResponseTime < *m.GenerationTime {
		return 0, false, fmt.Errorf("reply %s", got.body)
	}
	fmt.Fprintf(p.Out, "      %s %s: %q\n", m.Model, m.Version, *reply.Result)
	return m.Tokens, true, nil
}

// checkInferenceCounted checks that one inference of some tokens was counted in every metric about it. Others may be
// using the server at the same time.
func checkInferenceCounted(before, after scrapedMetrics, tokens int) error {
	n := float64(tokens)
	return errors.Join(
		checkIncreased(before, after, 1, "api_requests_total", "endpoint", "/infer", "status", "success"),
		checkIncreased(before, after, 1, "api_response_time_seconds", "endpoint", "/infer"),
		checkIncreased(before, after, 1, "api_request_size_bytes", "endpoint", "/infer"),
		checkIncreased(before, after, 1, "api_response_size_bytes", "endpoint", "/infer"),
		checkIncreased(before, after, 1, "successful_inferences_total"),
		checkIncreased(before, after, n, "tokens_generated_total"),
		checkIncreased(before, after, n, "token_generation_time_seconds"),
		checkSameSums(after),
	)
}

// checkSameSums checks sums that agree whenever nothing is in flight.
func checkSameSums(s scrapedMetrics) error {
	if s.sumInference("llm_requests_in_flight") > 0 {
		return nil
	}
	answered, successful := s.sumInference("api_requests_total", "status", "success"), s.sum("successful_inferences_total")
	if answered != successful {
		return fmt.Errorf("%v requests were answered, but %v inferences successful", answered, successful)
	}
	if tokens, times := s.sum("tokens_generated_total"), s.sum("token_generation_time_seconds"); tokens != times {
		return fmt.Errorf("%v tokens were generated, but %v timed", tokens, times)
	}
	return nil
}

func checkIncreased(before, after scrapedMetrics, more float64, name string, labels ...string) error {
	was, is := before.sum(name, labels...), after.sum(name, labels...)
	if is-was < more {
		return fmt.Errorf("%s%v went from %v to %v, want at least %v more", name, labels, was, is, more)
	}
	return nil
}
