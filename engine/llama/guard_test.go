//go:build llama

package llama

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// Each input below ended or stalled the process inside the library when it was let through.

func TestGrammarsThatAreRefused(t *testing.T) {
	base, _ := loadDemo(t, nil)
	deep := strings.Repeat("(", 100_000) + `"a"` + strings.Repeat(")", 100_000)
	for name, grammar := range map[string]string{
		"nested 100,000 deep":       "root ::= " + deep,
		"nested within 64 KiB":      "root ::= " + strings.Repeat("(", 1000) + `"a"` + strings.Repeat(")", 1000),
		"large repetition":          `root ::= "a"{1,100000}`,
		"nested large repetition":   `root ::= (("a"{1,100000}){1,100000})`,
		"number beyond 64 bits":     `root ::= "a"{99999999999999999999}`,
		"repetitions that add up":   "root ::= " + strings.Repeat(`"a"{1500} `, 30),
		"too long":                  "root ::= " + strings.Repeat(`"abc" `, 20_000),
		"zero byte":                 "root ::= \"a\x00\"",
		"syntax error":              "root ::= (",
		"no root":                   `start ::= "a"`,
		"undefined rule":            "root ::= nothing",
		"left recursion":            `root ::= root "a"`,
		"binary":                    "\xff\xfe\x01",
		"only an undefined token":   "root ::= <[99999999]> [",
		"unclosed literal":          `root ::= "a`,
		"unclosed character class ": `root ::= [a`,
	} {
		s, err := base.NewSampler(batch.Sampling{Grammar: grammar}, nil, nil)
		if !errors.Is(err, ErrGrammar) && !errors.Is(err, batch.ErrGrammarTooComplex) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			s.Close()
		}
	}
}

func TestGrammarsThatAreAllowed(t *testing.T) {
	for _, grammar := range []string{
		`root ::= "yes" | "no"`,
		"root ::= " + strings.Repeat("(", 100) + `"a"` + strings.Repeat(")", 100),
		`root ::= "((((" [({] # ` + strings.Repeat("(", 1000),
		`root ::= [0-9]{1,15} "\"" [^"\\] {0,2}`,
	} {
		if err := checkGrammar(grammar); err != nil {
			t.Errorf("%.60s: %v", grammar, err)
		}
	}
}

func TestSchemasThatAreRefused(t *testing.T) {
	base, _ := loadDemo(t, nil)
	for name, schema := range map[string]string{
		"nested 20,000 deep": strings.Repeat(`{"type":"array","items":`, 20_000) + "{}" + strings.Repeat("}", 20_000),
		"nested 100 deep":    strings.Repeat(`{"type":"array","items":`, 100) + "{}" + strings.Repeat("}", 100),
		"deep pattern":       `{"type":"string","pattern":"^` + strings.Repeat("(", 20_000) + "a" + strings.Repeat(")", 20_000) + `$"}`,
		"huge repetition":    `{"type":"string","minLength":1,"maxLength":100000}`,
		"no JSON":            `{"type":`,

		"part of itself":            `{"$defs":{"a":{"$ref":"#/$defs/a"}},"allOf":[{"$ref":"#/$defs/a"}]}`,
		"long name":                 `{"properties":{"` + strings.Repeat("a", 60_000) + `":{}},"additionalProperties":{"type":"string"}}`,
		"many optional properties":  `{"type":"object","properties":{` + numbered(3200, `"$i":{}`) + `}}`,
		"many parts of a whole":     `{"allOf":[` + numbered(1000, `{"anyOf":[{"properties":{"$i":{}}}]}`) + `]}`,
		"properties many times":     `{"$defs":{"a":{"properties":{` + numbered(200, `"$i":{}`) + `}}},"allOf":[{"anyOf":[` + numbered(1000, `{"$ref":"#/$defs/a","x":$i}`) + `]}]}`,
		"types that multiply":       strings.Repeat(`{"type":["object","object"],"properties":{"a":`, 31) + "{}" + strings.Repeat("}}", 31),
		"arrays that multiply":      strings.Repeat(`{"type":["array","array"],"items":`, 60) + "{}" + strings.Repeat("}", 60),
		"parts that multiply":       `{"$ref":"#/0","60":{},` + numbered(60, `"$i":{"properties":{"x":{"allOf":[{"$ref":"#/$j"},{"$ref":"#/$j"}]}}}`) + `}`,
		"long list of types":        `{"type":[` + numbered(6000, `"null"`) + `]}`,
		"references thousands deep": `{"$ref":"#/0","2000":{},` + numbered(2000, `"$i":{"$ref":"#/$j"}`) + `}`,
		"unknown type":              `{"type":"nothing"}`,
		"unknown reference":         `{"$ref":"#/definitions/none"}`,
	} {
		if _, err := base.Render(t.Context(), models.Input{Prompt: france, JSONSchema: []byte(schema)}); !errors.Is(err, ErrGrammar) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// numbered repeats a text, with $i and $j become 0 and 1, then 1 and 2, and so on.
func numbered(n int, text string) string {
	list := make([]string, n)
	for i := range list {
		list[i] = strings.NewReplacer("$i", strconv.Itoa(i), "$j", strconv.Itoa(i+1)).Replace(text)
	}
	return strings.Join(list, ",")
}

func TestSchemasThatAreAllowed(t *testing.T) {
	base, _ := loadDemo(t, nil)
	names := numbered(400, `"$i"`)
	for name, schema := range map[string]string{
		"nothing":            `{}`,
		"recursive":          `{"$defs":{"tree":{"type":"object","properties":{"left":{"$ref":"#/$defs/tree"},"right":{"$ref":"#/$defs/tree"}}}},"$ref":"#/$defs/tree"}`,
		"all required":       `{"type":"object","required":[` + names + `],"properties":{` + numbered(400, `"$i":{"type":"null"}`) + `}}`,
		"hundreds optional":  `{"type":"object","properties":{` + numbered(200, `"$i":{"type":"string"}`) + `}}`,
		"parts of a whole":   `{"$defs":{"a":{"properties":{"a":{"type":"string"}}},"b":{"properties":{"b":{"type":"integer"}}}},"allOf":[{"$ref":"#/$defs/a"},{"$ref":"#/$defs/b"}]}`,
		"types that may be":  strings.Repeat(`{"type":["object","null"],"properties":{"a":`, 20) + "{}" + strings.Repeat("}}", 20),
		"long enumeration":   `{"enum":[` + numbered(2000, `"value $i"`) + `]}`,
		"hundred references": `{"$ref":"#/0","100":{},` + numbered(100, `"$i":{"$ref":"#/$j"}`) + `}`,
	} {
		if _, err := base.Render(t.Context(), models.Input{Prompt: france, JSONSchema: []byte(schema)}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAmbiguousGrammarEndsWithinItsBudget: without the deadline in the library this takes seconds for three tokens.
func TestAmbiguousGrammarEndsWithinItsBudget(t *testing.T) {
	base, d := loadDemo(t, nil)
	prompt := render(t, base, france)
	how := batch.Sampling{Grammar: `root ::= ("a"?){500} "b"`, GrammarBudget: 50 * time.Millisecond}
	started := time.Now()
	_, _, err := generate(base, d, nil, 0, prompt, how, 64)
	if !errors.Is(err, batch.ErrGrammarTooComplex) {
		t.Errorf("ended with %v", err)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestGrammarDecidesTheAnswer(t *testing.T) {
	base, d := loadDemo(t, nil)
	full := loadVersion(t, base, "v1.0")
	prompt := render(t, base, france)
	for _, c := range []struct {
		how  batch.Sampling
		want []string
	}{
		{batch.Sampling{Grammar: `root ::= "Rome" | "Berlin"`}, []string{"Rome", "Berlin"}},
		{batch.Sampling{Grammar: `root ::= "The capital of France is " ("Rome" | "Paris") "."`}, []string{"The capital of France is Paris."}},
		{batch.Sampling{Temperature: 1, TopK: 5, Seed: 4, Grammar: `root ::= "yes" | "no"`}, []string{"yes", "no"}},
		{batch.Sampling{Temperature: 1, TopP: 0.9, Seed: 4, Grammar: `root ::= [x] [y] [z]`}, []string{"xyz"}},
	} {
		text, tokens, err := generate(base, d, full, 0, prompt, c.how, 40)
		if err != nil || !slices.Contains(c.want, text) || !base.IsEnd(tokens[len(tokens)-1]) {
			t.Errorf("%s: %q, %v", c.how.Grammar, text, err)
		}
	}
	p, err := base.Render(t.Context(), models.Input{Prompt: france, JSONSchema: []byte(`{"type":"object","properties":{"city":{"enum":["Paris","Rome"]}},"required":["city"],"additionalProperties":false}`)})
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := generate(base, d, full, 0, p.Tokens, batch.Sampling{Grammar: p.Grammar}, 60)
	if err != nil || (text != `{"city": "Paris"}` && text != `{"city":"Paris"}` && !strings.Contains(text, `"city"`)) {
		t.Errorf("schema answers %q, %v", text, err)
	}
}

func TestGrammarReplayAcceptsOnlyWhatItAllows(t *testing.T) {
	base, d := loadDemo(t, nil)
	prompt := render(t, base, france)
	how := batch.Sampling{Grammar: `root ::= "I think it is " [A-Za-z]+ "."`}
	text, tokens, err := generate(base, d, nil, 0, prompt, how, 40)
	if err != nil || text != "I think it is Paris." {
		t.Fatalf("%q, %v", text, err)
	}
	s, err := base.NewSampler(how, prompt, tokens[:3])
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Accept(tokens[len(tokens)-1]); !errors.Is(err, ErrGrammar) {
		t.Errorf("an early end token gives %v; without the check the process ends", err)
	}
	if _, err := base.NewSampler(how, prompt, []batch.Token{tokens[len(tokens)-1]}); !errors.Is(err, ErrGrammar) {
		t.Errorf("replay of a wrong token gives %v", err)
	}
}

func TestStepGuards(t *testing.T) {
	base, d := loadDemo(t, nil)
	prompt := render(t, base, france)
	other, _ := loadDemo(t, nil)
	foreign, err := other.NewSampler(greedy, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	sampler, err := base.NewSampler(greedy, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sampler.Close()
	closed, _ := base.NewSampler(greedy, nil, nil)
	closed.Close()
	long := slices.Repeat(prompt[:1], base.Limits().SequenceMax+1)
	s := []batch.Slice{
		{Seq: -1, Tokens: prompt},
		{Seq: base.Limits().Sequences, Tokens: prompt},
		{Seq: 1, Tokens: long},
		{Seq: 1, Start: base.Limits().SequenceMax, Tokens: prompt[:1]},
		{Seq: 1, Start: -1, Tokens: prompt},
		{Seq: 1},
		{Seq: 1, Tokens: []batch.Token{1 << 30}},
		{Seq: 1, Tokens: []batch.Token{-1}},
		{Seq: 2, Tokens: prompt, Sampler: foreign},
		{Seq: 3, Tokens: prompt, Sampler: closed},
		{Seq: 0, Tokens: prompt, Sampler: sampler}, // the only sound one
	}
	d.run(func() { err = base.Step(nil, s) })
	if err != nil {
		t.Fatal(err)
	}
	for i := range s[:len(s)-1] {
		if s[i].Err == nil {
			t.Errorf("slice %d went through", i)
		}
	}
	if good := s[len(s)-1]; good.Err != nil || string(base.Piece(good.Draw.Token)) != "I" {
		t.Errorf("the sound slice: %+v", good)
	}
	many := make([]batch.Slice, 0, 8)
	for seq := range base.Limits().Sequences {
		many = append(many, batch.Slice{Seq: seq, Tokens: long[:base.Limits().SequenceMax]})
	}
	var truncated, copied bool
	d.run(func() {
		err = base.Step(nil, many)
		truncated = base.Truncate(99, 0) || base.Truncate(-1, 0)
		copied = base.CopyPrefix(0, 99, 1) || base.CopyPrefix(-1, 0, 1) || base.CopyPrefix(7, 6, 1)
	})
	if err == nil || truncated || copied {
		t.Errorf("step beyond n_batch: %v; sequences that don't exist: truncate %v, copy %v", err, truncated, copied)
	}
}

// TestUnguardedStepEndsTheProcess shows that the guard on the size of a step is needed.
func TestUnguardedStepEndsTheProcess(t *testing.T) {
	const variable = "LLAMA_TEST_UNGUARDED"
	if os.Getenv(variable) != "" {
		b, d := newBackend(t, func(o *Options) { o.StepTokens = 64 })
		base := loadFile(t, b, demoFile(t, "demo-q8_0.gguf"), nil)
		base.step.free()
		base.step = newStepArrays(4096) // what decode checks against
		d.run(func() { _ = base.decode([]batch.Slice{{Tokens: slices.Repeat([]batch.Token{0}, 200)}}) })
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestUnguardedStepEndsTheProcess$")
	cmd.Env = append(os.Environ(), variable+"=1", "GGML_NO_BACKTRACE=1")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "GGML_ASSERT") {
		t.Errorf("the child ended with %v:\n%.2000s", err, out)
	}
}

func TestContextIsCutToWhatIsSafe(t *testing.T) {
	for _, c := range []struct {
		context, parallel, trained int
		cellBytes, free            int64
		want                       plan
	}{
		{0, 8, 512, 1024, 8 << 30, plan{512, 4096, 8}},
		{1 << 28, 1, 512, 1024, 8 << 30, plan{512, 512, 1}},
		{0, 32, 131072, 128 << 10, 16 << 30, plan{8192, 32768, 32}},
		{4096, 1, 8192, 1 << 20, 1 << 30, plan{256, 256, 1}},
		{2048, 0, 8192, 0, 0, plan{2048, 2048, 1}},
	} {
		spec := models.BaseSpec{Context: c.context, Parallel: c.parallel}
		if got := planContext(spec, Options{CacheCells: defaultCacheCells}, c.trained, c.cellBytes, c.free); got != c.want {
			t.Errorf("%+v gives %+v", c, got)
		}
	}
	// The library takes all memory of the machine for free; a container's limit is told beside.
	spec := models.BaseSpec{Parallel: 32, FreeBytes: 4 << 30}
	if got, want := planContext(spec, Options{CacheCells: defaultCacheCells}, 131072, 128<<10, 256<<30), (plan{8192, 8192, 32}); got != want {
		t.Errorf("with 4 GiB left: %+v, want %+v", got, want)
	}
	spec.FreeBytes = 1 // the weights fill it all
	if got, want := planContext(spec, Options{CacheCells: defaultCacheCells}, 131072, 128<<10, 256<<30), (plan{256, 256, 32}); got != want {
		t.Errorf("with nothing left: %+v, want %+v", got, want)
	}
}

func TestSamplingNumbersAreChecked(t *testing.T) {
	base, _ := loadDemo(t, nil)
	nan := float32(0)
	nan /= nan
	for _, how := range []batch.Sampling{{Temperature: nan}, {TopP: nan}, {TopLogprobs: 21}, {TopLogprobs: -1}} {
		if _, err := base.NewSampler(how, nil, nil); err == nil {
			t.Errorf("%+v went through", how)
		}
	}
	s, err := base.NewSampler(batch.Sampling{LogitBias: map[batch.Token]float32{-5: 1, 1 << 30: 1}, PenaltyWindow: 1 << 30, RepeatPenalty: 2}, []batch.Token{-1, 1 << 30}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.(*Sampler).drawFrom(make([]float32, 1024), 0); err != nil {
		t.Error(err)
	}
	if _, err := s.Draw(0); err == nil {
		t.Error("a draw without logits went through")
	}
}

func TestPieceOfUnknownTokens(t *testing.T) {
	base, _ := loadDemo(t, nil)
	for _, token := range []batch.Token{-1, 1 << 30} {
		if p := base.Piece(token); p != nil || base.IsEnd(token) {
			t.Errorf("token %d has the piece %q", token, p)
		}
	}
	if p := base.Piece(0); len(p) != 0 {
		t.Errorf("control token 0 has the piece %q", p)
	}
	if !base.IsEnd(1) {
		t.Error("token 1 should end an answer")
	}
}
