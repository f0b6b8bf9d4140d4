//go:build llama

package llama

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/grammar"
	"tandem/engine/models"
)

const orderSchema = `{"type":"object","properties":{"customer_identifier":{"type":"integer","minimum":1,"maximum":9999},` +
	`"shipping_address":{"type":"object","properties":{"street_and_number":{"type":"string","maxLength":20},"postal_code":{"type":"string","pattern":"^[0-9]{5}$"}},` +
	`"required":["street_and_number","postal_code"],"additionalProperties":false},"payment_method":{"enum":["credit_card","bank_transfer","cash_on_delivery"]}},` +
	`"required":["customer_identifier","shipping_address","payment_method"],"additionalProperties":false}`

// benchBase is the model that SMOLLM2 names, else the demo.
func benchBase(b *testing.B) (*Base, *testExecutor) {
	file := os.Getenv("SMOLLM2")
	if file == "" {
		return loadDemo(b, nil)
	}
	backend, executor := newBackend(b, nil)
	return loadFile(b, backend, filepath.Clean(file), func(s *models.BaseSpec) { s.Parallel, s.Context = 1, 1024 }), executor
}

// BenchmarkConstrained compares answers without a grammar, with one whose forced tokens are drawn one by one, and with
// them taken together.
func BenchmarkConstrained(b *testing.B) {
	base, executor := benchBase(b)
	prompt := render(b, base, "Make up an order of a customer as JSON.")
	source := grammar.Source{Kind: grammar.JSONSchema, Text: orderSchema}.String()
	for _, c := range []struct {
		name     string
		sampling batch.Sampling
	}{
		{"free", batch.Sampling{}},
		{"drawn", batch.Sampling{Grammar: source, Logprobs: true, GrammarBudget: time.Second}},
		{"forced", batch.Sampling{Grammar: source, GrammarBudget: time.Second}},
	} {
		b.Run(c.name, func(b *testing.B) {
			tokens := 0
			for b.Loop() {
				_, list, err := generate(base, executor, nil, 0, prompt, c.sampling, 100)
				if err != nil {
					b.Fatal(err)
				}
				tokens += len(list)
			}
			b.ReportMetric(float64(tokens)/b.Elapsed().Seconds(), "tokens/s")
			b.ReportMetric(float64(tokens)/float64(b.N), "tokens/answer")
		})
	}
}
