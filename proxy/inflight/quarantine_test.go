package inflight

import (
	"testing"

	"tandem/proxy/api"
)

// A quarantine is for requests with which the engine would do the same, not for every use of the same prompt.
func TestFingerprintsTellRequestsApart(t *testing.T) {
	request := func(change func(r *api.Request)) fingerprint {
		r := &api.Request{Prompt: "Hello", Tools: []api.Tool{{Name: "f"}}}
		change(r)
		return fingerprintOf("demo", "v1.0", r)
	}
	plain := request(func(*api.Request) {})
	seen := map[fingerprint]string{plain: "plain"}
	for name, change := range map[string]func(r *api.Request){
		"logit_bias":         func(r *api.Request) { r.LogitBias = []api.TokenBias{{Token: 7, Bias: -100}} },
		"another logit_bias": func(r *api.Request) { r.LogitBias = []api.TokenBias{{Token: 7, Bias: 100}} },
		"stop":               func(r *api.Request) { r.Stop = []string{"a"} },
		"another stop":       func(r *api.Request) { r.Stop = []string{"b"} },
		"ignore_end":         func(r *api.Request) { r.IgnoreEnd = true },
		"logprobs":           func(r *api.Request) { r.Logprobs = true },
		"top_logprobs":       func(r *api.Request) { r.TopLogprobs = 3 },
		"prompt logprobs":    func(r *api.Request) { r.PromptLogprobs = true },
		"plain sampling":     func(r *api.Request) { r.PlainSampling = true },
		"temperature 0":      func(r *api.Request) { r.Temperature = new(float32(0)) },
		"top_p 0":            func(r *api.Request) { r.TopP = new(float32(0)) },
		"min_p":              func(r *api.Request) { r.MinP = new(float32(0.1)) },
		"repeat_penalty":     func(r *api.Request) { r.RepeatPenalty = new(float32(1.1)) },
		"presence_penalty":   func(r *api.Request) { r.PresencePenalty = new(float32(1.1)) },
		"frequency_penalty":  func(r *api.Request) { r.FrequencyPenalty = new(float32(1.1)) },
		"top_k 0":            func(r *api.Request) { r.TopK = new(0) },
		"a strict tool":      func(r *api.Request) { r.Tools[0].Strict = true },
	} {
		f := request(change)
		if other, ok := seen[f]; ok {
			t.Errorf("%s counts as %s", name, other)
		}
		seen[f] = name
	}
	for name, change := range map[string]func(r *api.Request){
		"seed":       func(r *api.Request) { r.Seed = new(uint64(5)) },
		"max_tokens": func(r *api.Request) { r.MaxNewTokens = new(5) },
		"stream":     func(r *api.Request) { r.Stream = true },
	} {
		if request(change) != plain {
			t.Errorf("%s makes another request", name)
		}
	}
}
