//go:build llama

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schemaCount is how many random schemas each model answers, greedy and sampled: SCHEMA_COUNT, or few enough for every
// run of the tests.
func schemaCount(t *testing.T, usual int) int {
	t.Helper()
	text := os.Getenv("SCHEMA_COUNT")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestDemoAnswersFitTheirSchemas and the next test validate answers with another implementation of JSON Schema.
func TestDemoAnswersFitTheirSchemas(t *testing.T) {
	checkAnswersFitSchemas(startServer(t), "demo", schemaCount(t, 300))
}

func TestSmolLM2AnswersFitTheirSchemas(t *testing.T) {
	checkAnswersFitSchemas(startSmolLM2Server(t), "smollm2", schemaCount(t, 60))
}

// checkAnswersFitSchemas asks for an answer to each schema, greedy and at temperature 1, eight at a time.
func checkAnswersFitSchemas(s *testServer, model string, schemas int) {
	s.t.Helper()
	var complete, truncated atomic.Int64
	var clients sync.WaitGroup
	next := make(chan int)
	for range 8 {
		clients.Go(func() {
			for i := range next {
				schema := randomSchema(uint64(i))
				for _, temperature := range []float64{0, 1} {
					s.checkAnswerFitsSchema(model, schema, temperature, i, &complete, &truncated)
				}
			}
		})
	}
	for i := range schemas {
		next <- i
	}
	close(next)
	clients.Wait()
	s.t.Logf("%d answers of %s fit their schema, %d were cut by length", complete.Load(), model, truncated.Load())
	if 2*complete.Load() < int64(schemas) {
		s.t.Errorf("only %d of %d answers came to an end", complete.Load(), 2*schemas)
	}
}

func (s *testServer) checkAnswerFitsSchema(model, schema string, temperature float64, seed int, complete, truncated *atomic.Int64) {
	a := s.ask(map[string]any{
		"prompt": "Make up an entry of a data base as JSON.", "base_model": model, "adapter_version": "base", "max_new_tokens": 96,
		"json_schema": json.RawMessage(schema), "temperature": temperature, "seed": seed,
	})
	switch {
	case a.Status != 200:
		s.t.Errorf("%s: %d %s", schema, a.Status, tail(a.Body, 300))
	case a.Metadata.FinishReason == "length":
		truncated.Add(1)
	default:
		complete.Add(1)
		if err := validateAnswer(schema, a.Result); err != nil {
			s.t.Errorf("%s, temperature %v: %q: %v", schema, temperature, a.Result, err)
		}
	}
}

func validateAnswer(schema, text string) error {
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", document); err != nil {
		return err
	}
	checked, err := c.Compile("schema.json")
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return checked.Validate(value)
}

// schemaGenerator makes random schemas of everyday keywords. The same number gives the same schema.
type schemaGenerator struct{ *rand.Rand }

func randomSchema(number uint64) string {
	m := schemaGenerator{rand.New(rand.NewPCG(number, 7))}
	return m.objectSchema(2)
}

func (m schemaGenerator) pick(list ...string) string { return list[m.IntN(len(list))] }

func (m schemaGenerator) valueSchema(depth int) string {
	kinds := 9
	if depth > 0 {
		kinds = 13
	}
	switch m.IntN(kinds) {
	case 0:
		return `{"type":"boolean"}`
	case 1, 2:
		return m.numberSchema()
	case 3, 4, 5:
		return m.stringSchema()
	case 6:
		return `{"enum":["red","green",3,null,true,["a"],{"b":1}]}`
	case 7:
		return `{"const":` + m.pick(`"fixed text \"quoted\""`, `17`, `[1,2]`, `{"k":"v"}`) + `}`
	case 8:
		return `{"type":["string","null"],"maxLength":` + strconv.Itoa(1+m.IntN(12)) + `}`
	case 9:
		return m.objectSchema(depth - 1)
	case 10:
		return fmt.Sprintf(`{"type":"array","items":%s,"minItems":%d,"maxItems":%d}`, m.valueSchema(depth-1), m.IntN(2), 2+m.IntN(2))
	case 11:
		return fmt.Sprintf(`{"type":"array","prefixItems":[%s,%s],"items":false,"minItems":2}`, m.valueSchema(0), m.valueSchema(0))
	default:
		return fmt.Sprintf(`{"anyOf":[%s,%s]}`, m.valueSchema(depth-1), m.valueSchema(0))
	}
}

func (m schemaGenerator) numberSchema() string {
	low := m.IntN(2000) - 1000
	high := low + 1 + m.IntN(500)
	return m.pick(
		fmt.Sprintf(`{"type":"integer","minimum":%d,"maximum":%d}`, low, high),
		fmt.Sprintf(`{"type":"integer","exclusiveMinimum":%d}`, low),
		fmt.Sprintf(`{"type":"number","minimum":%d.5,"exclusiveMaximum":%d}`, low, high),
		fmt.Sprintf(`{"type":"integer","minimum":0,"multipleOf":%d}`, 2+m.IntN(9)),
		`{"type":"integer","maximum":-5}`,
		`{"type":"number"}`,
	)
}

func (m schemaGenerator) stringSchema() string {
	return m.pick(
		`{"type":"string","maxLength":24}`,
		`{"type":"string","minLength":3,"maxLength":9}`,
		`{"type":"string","pattern":"^[A-Z][a-z]{2,8}$"}`,
		`{"type":"string","pattern":"^[^;]{1,40}$"}`,
		`{"type":"string","pattern":"^(é|ü|日){1,3}$"}`,
		`{"type":"string","pattern":"\\d{2}","maxLength":6}`,
		`{"type":"string","format":"date"}`,
		`{"type":"string","format":"uuid"}`,
		`{"type":"string","format":"ipv4"}`,
		`{"type":"string","format":"email","maxLength":30}`,
		`{"enum":["alpha","beta","gamma \\ \" \n"]}`,
	)
}

func (m schemaGenerator) objectSchema(depth int) string {
	names := []string{"name", "id", "größe", "a/b", `with \"quotes\"`, "list", ""}
	m.Shuffle(len(names), func(i, k int) { names[i], names[k] = names[k], names[i] })
	names = names[:1+m.IntN(4)]
	var properties, required []string
	for _, name := range names {
		properties = append(properties, fmt.Sprintf(`"%s":%s`, name, m.valueSchema(depth)))
		if m.IntN(3) > 0 {
			required = append(required, `"`+name+`"`)
		}
	}
	return fmt.Sprintf(`{"type":"object","properties":{%s},"required":[%s],"additionalProperties":%s}`,
		strings.Join(properties, ","), strings.Join(required, ","), m.pick("false", "false", `{"type":"integer","minimum":0,"maximum":9}`))
}
