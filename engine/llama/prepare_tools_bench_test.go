//go:build llama

package llama

import (
	"encoding/json"
	"fmt"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// manyTools are n tools of five parameters each, in the manner of those that coding clients send.
func manyTools(n int) []models.Tool {
	var list []models.Tool
	for i := range n {
		list = append(list, models.Tool{
			Name:        fmt.Sprintf("server_%d_tool_%d", i%7, i),
			Description: fmt.Sprintf("Looks up records of the kind %d and returns those that fit all filters, the newest first.", i),
			Parameters: json.RawMessage(`{"type":"object","required":["query","limit"],"properties":{` +
				`"query":{"type":"string","description":"What to look for"},"limit":{"type":"integer","minimum":1,"maximum":100},` +
				`"order":{"enum":["newest","oldest"]},"archived":{"type":"boolean"},"labels":{"type":"array","items":{"type":"string"}}}}`),
		})
	}
	return list
}

// BenchmarkPrepareTools is the time until a request with tools is taken: prompt, grammar and first mask.
func BenchmarkPrepareTools(b *testing.B) {
	base, _ := benchBase(b)
	for _, n := range []int{1, 128, 256} {
		for _, required := range []bool{false, true} {
			b.Run(fmt.Sprintf("tools=%d/required=%v", n, required), func(b *testing.B) {
				in := models.Input{
					Messages: []models.Message{{Role: "user", Content: "Which records are new?"}}, SplitOutput: true,
					Tools: manyTools(n), ToolChoice: models.ToolChoice{Required: required}, ParallelToolCalls: true,
				}
				base.limits.SequenceMax = 1 << 20 // the prompt's length isn't the point
				var tokens, bytes int
				for b.Loop() {
					prompt, err := base.Render(b.Context(), in)
					if err != nil {
						b.Fatal(err)
					}
					sampling := batch.Sampling{Temperature: 1, TopP: 1, Grammar: prompt.Grammar}
					sampler, err := base.NewSampler(sampling, prompt.Tokens, nil)
					if err != nil {
						b.Fatal(err)
					}
					sampler.Close()
					tokens, bytes = len(prompt.Tokens), len(prompt.Grammar)
				}
				b.ReportMetric(float64(tokens), "prompt-tokens")
				b.ReportMetric(float64(bytes), "grammar-bytes")
			})
		}
	}
}
