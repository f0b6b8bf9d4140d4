package api

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what DecodeInfer gives into the golden files")

const separator = "\n----\n"

// TestDecodeInferGolden reads files of a body, a line of dashes, and the request or error that must come out of it.
func TestDecodeInferGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/infer/*.txt")
	if err != nil || len(files) < 40 {
		t.Fatalf("found %d golden files, err %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			body, want, ok := bytes.Cut(content, []byte(separator))
			if !ok && !*update {
				t.Fatal("no line of dashes")
			}
			got := describe(DecodeInfer(body, Limits{PromptBytes: 200, SchemaBytes: 200}))
			if *update {
				writeGolden(t, file, body, got)
			} else if got != string(want) {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func writeGolden(t *testing.T, file string, body []byte, got string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(string(body)+separator+got), 0o644); err != nil {
		t.Fatal(err)
	}
}

// describe writes one line for each field that is set.
func describe(r *Request, e *Error) string {
	var b strings.Builder
	line := func(name string, set bool, value any) {
		if set {
			fmt.Fprintf(&b, "%s: %+q\n", name, fmt.Sprint(value))
		}
	}
	if e != nil {
		line("error", true, e.Type)
		line("param", e.Param != "", e.Param)
		line("message", true, e.Message)
		return b.String()
	}
	line("model", r.Model != "", r.Model)
	line("version", r.Version != "", r.Version)
	line("prompt", true, r.Prompt)
	line("system", r.System != "", r.System)
	line("json schema", r.JSONSchema != nil, string(r.JSONSchema))
	optional(line, "max new tokens", r.MaxNewTokens)
	optional(line, "temperature", r.Temperature)
	optional(line, "top p", r.TopP)
	optional(line, "top k", r.TopK)
	optional(line, "min p", r.MinP)
	optional(line, "repeat penalty", r.RepeatPenalty)
	optional(line, "seed", r.Seed)
	line("stop", r.Stop != nil, fmt.Sprintf("%d %q", len(r.Stop), r.Stop))
	line("domain", r.Domain != "", r.Domain)
	line("stream", r.Stream, r.Stream)
	return b.String()
}

func optional[T any](line func(string, bool, any), name string, value *T) {
	if value != nil {
		line(name, true, *value)
	}
}

// An empty system text counts as given: it switches off the template's own. Null counts as absent, as for every
// optional field.
func TestEmptySystemTextIsGiven(t *testing.T) {
	for field, want := range map[string]bool{``: false, `,"system":null`: false, `,"system":""`: true, `,"system":"x"`: true} {
		r, err := DecodeInfer([]byte(`{"prompt":"x"`+field+`}`), Limits{})
		if err != nil || r.HasSystem != want {
			t.Errorf("%s: %+v, %v", field, r, err)
		}
	}
}

func TestDecodeInferRanges(t *testing.T) {
	for field, values := range map[string]struct{ good, bad []string }{
		"max_new_tokens": {[]string{"1", "32", "1048576", "100.0", "1e3"}, []string{"0", "-1", "1048577", "1.5", "1e7", "0.0", "99999999999999999999999", `"32"`, "true", "[]", "{}"}},
		"temperature":    {[]string{"0", "-0", "0.7", "2"}, []string{"-0.1", "2.1", "1e400", `"hot"`}},
		"top_p":          {[]string{"0.0001", "0.95", "1"}, []string{"0", "-1", "1.01", "1e-99"}},
		"top_k":          {[]string{"0", "40", "1000", "40.0", "0.4e2"}, []string{"-1", "1001", "0.5", "40.5", "1e400"}},
		"min_p":          {[]string{"0", "0.05", "1"}, []string{"-0.01", "1.01"}},
		"repeat_penalty": {[]string{"0.1", "1", "2"}, []string{"0", "-1", "2.5"}},
		"seed":           {[]string{"0", "42", "9007199254740991", "42.0", "9007199254740991.0"}, []string{"-1", "9007199254740992", "1.5", "18446744073709551616"}},
		"stop":           {[]string{`"x"`, `[]`, `["a","b"]`, `["1","2","3","4","5","6","7","8"]`}, []string{`""`, `["a",""]`, `[null]`, `[1]`, `3`, `{}`, `["1","2","3","4","5","6","7","8","9"]`}},
		"stream":         {[]string{"true", "false"}, []string{`"true"`, "1"}},
		"json_schema":    {[]string{`{}`, `{"type":"object"}`}, []string{`true`, `"x"`, `[]`, `1`}},
		"base_model":     {[]string{`""`, `"demo"`}, []string{"1", `["demo"]`}},
		"domain":         {[]string{`"legal"`}, []string{"1"}},
		"system":         {[]string{`"Be brief."`}, []string{"1"}},
	} {
		for _, value := range append(values.good, "null") {
			if _, err := DecodeInfer([]byte(`{"prompt":"x","`+field+`":`+value+`}`), Limits{}); err != nil {
				t.Errorf("%s %s: %v", field, value, err)
			}
		}
		for _, value := range values.bad {
			_, err := DecodeInfer([]byte(`{"prompt":"x","`+field+`":`+value+`}`), Limits{})
			if err == nil {
				t.Errorf("%s %s was accepted", field, value)
			} else if err.Type != TypeInvalidRequest || err.Param != field || !strings.Contains(err.Message, field+" must be ") {
				t.Errorf("%s %s: %+v", field, value, err)
			}
		}
	}
}

func TestWholeNumbersReachTheRequest(t *testing.T) {
	r, err := DecodeInfer([]byte(`{"prompt":"x","max_new_tokens":1e2,"top_k":40.0,"seed":9007199254740.991e3}`), Limits{})
	if err != nil || *r.MaxNewTokens != 100 || *r.TopK != 40 || *r.Seed != MaxSeed {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestDecodeInferLengthLimits(t *testing.T) {
	f := func(name, param, body string, limits Limits) {
		t.Helper()
		_, err := DecodeInfer([]byte(body), limits)
		if param == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if param != "" && (err == nil || err.Param != param || err.Status() != 400) {
			t.Errorf("%s: %v, want param %s", name, err, param)
		}
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	f("default prompt limit", "", `{"prompt":"`+long(MaxPromptBytes)+`"}`, Limits{})
	f("over the default prompt limit", "prompt", `{"prompt":"`+long(MaxPromptBytes+1)+`"}`, Limits{})
	f("prompt limit counts decoded bytes", "", `{"prompt":"\u0041\u0041"}`, Limits{PromptBytes: 2})
	f("prompt and system count together", "prompt", `{"prompt":"ab","system":"cd"}`, Limits{PromptBytes: 3})
	f("stop", "", `{"prompt":"x","stop":"`+long(MaxStopBytes)+`"}`, Limits{})
	f("stop too long", "stop", `{"prompt":"x","stop":["`+long(MaxStopBytes+1)+`"]}`, Limits{})
	f("model too long", "base_model", `{"prompt":"x","base_model":"`+long(MaxNameBytes+1)+`"}`, Limits{})
	f("version too long", "adapter_version", `{"prompt":"x","adapter_version":"`+long(MaxNameBytes+1)+`"}`, Limits{})
	f("domain too long", "domain", `{"prompt":"x","domain":"`+long(MaxDomainBytes+1)+`"}`, Limits{})
	f("schema too long", "json_schema", `{"prompt":"x","json_schema":{"title":"`+long(MaxSchemaBytes)+`"}}`, Limits{})
}

func TestDecodeInferNesting(t *testing.T) {
	nested := func(levels int) []byte { // levels in all, the body's own included
		return []byte(`{"prompt":"[[[{{{","json_schema":` + strings.Repeat(`{"a":`, levels-2) + `{}` + strings.Repeat(`}`, levels-2) + `}`)
	}
	if _, err := DecodeInfer(nested(MaxNestingDepth), Limits{}); err != nil {
		t.Errorf("%d levels: %v", MaxNestingDepth, err)
	}
	if _, err := DecodeInfer(nested(MaxNestingDepth+1), Limits{}); err == nil || !strings.Contains(err.Message, "nested") {
		t.Errorf("%d levels: %v", MaxNestingDepth+1, err)
	}
	if _, err := DecodeInfer([]byte(`{"prompt":"\"[[`+strings.Repeat("[", 100)+`"}`), Limits{}); err != nil {
		t.Errorf("brackets in a string: %v", err)
	}
}

// The HTTP server reuses a body's memory for the next request.
func TestDecodeInferKeepsNothingOfTheBody(t *testing.T) {
	const source = `{"prompt":"plain","system":"esc\u0041ped","base_model":"m","adapter_version":"v","stop":["s"],"domain":"d","json_schema":{"type":"object"}}`
	body := []byte(source)
	got, err := DecodeInfer(body, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] = '#'
	}
	want, err := DecodeInfer([]byte(source), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if describe(got, nil) != describe(want, nil) {
		t.Errorf("after the body was overwritten:\n%s", describe(got, nil))
	}
}

func TestNewTokens(t *testing.T) {
	f := func(requested, context, want int, fails bool) {
		t.Helper()
		r := &Request{}
		if requested != 0 {
			r.MaxNewTokens = &requested
		}
		got, err := r.NewTokens(context)
		if got != want || (err != nil) != fails {
			t.Errorf("asked %d of a context of %d: got %d, %v; want %d", requested, context, got, err, want)
		}
	}
	f(0, 0, DefaultNewTokens, false)
	f(0, 8192, DefaultNewTokens, false)
	f(0, 128, 128, false)
	f(32, 0, 32, false)
	f(8192, 8192, 8192, false)
	f(8193, 8192, 0, true)
}

func FuzzDecodeInfer(f *testing.F) {
	files, err := filepath.Glob("testdata/infer/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		body, _, _ := bytes.Cut(content, []byte(separator))
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, e := DecodeInfer(body, Limits{})
		if e != nil {
			if r != nil || e.Status() != 400 || e.Message == "" || len(e.Message) > 1000 {
				t.Fatalf("%+v, %+v", r, e)
			}
			checkJSON(t, AppendError(nil, e, "id"))
			return
		}
		if r.Prompt == "" || len(r.Stop) > MaxStops || len(r.JSONSchema) > MaxSchemaBytes {
			t.Fatalf("%+v", r)
		}
	})
}

func BenchmarkDecodeInfer(b *testing.B) {
	body := []byte(`{"prompt":"` + strings.Repeat("What is the capital of France? ", 30) + `","max_new_tokens":32,"adapter_version":"v1.0","base_model":"demo","temperature":0.7,"stop":["\n"]}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeInfer(body, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
