package infer

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tandem/proxy/api"
)

var update = flag.Bool("update", false, "write what decoding gives into the golden files")

const separator = "\n----\n"

// TestDecodeGolden reads files of a body, a line of dashes, and the request or error that must come out of it.
func TestDecodeGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
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
			got := describe(decode(body, api.Limits{PromptBytes: 200, SchemaBytes: 200}))
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
func describe(r *api.Request, e *api.Error) string {
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
		r, err := decode([]byte(`{"prompt":"x"`+field+`}`), api.Limits{})
		if err != nil || r.HasSystem != want {
			t.Errorf("%s: %+v, %v", field, r, err)
		}
	}
}

// What a model thinks before it writes JSON is told apart from the JSON. Other answers are the model's text as it is.
func TestAnswersWithASchemaAreTakenApart(t *testing.T) {
	for field, want := range map[string]bool{``: false, `,"json_schema":null`: false, `,"json_schema":{}`: true} {
		r, err := decode([]byte(`{"prompt":"x"`+field+`}`), api.Limits{})
		if err != nil || r.SplitOutput != want {
			t.Errorf("%s: %+v, %v", field, r, err)
		}
	}
}

func TestDecodeRanges(t *testing.T) {
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
			if _, err := decode([]byte(`{"prompt":"x","`+field+`":`+value+`}`), api.Limits{}); err != nil {
				t.Errorf("%s %s: %v", field, value, err)
			}
		}
		for _, value := range values.bad {
			_, err := decode([]byte(`{"prompt":"x","`+field+`":`+value+`}`), api.Limits{})
			if err == nil {
				t.Errorf("%s %s was accepted", field, value)
			} else if err.Type != api.TypeInvalidRequest || err.Param != field || !strings.Contains(err.Message, field+" must be ") {
				t.Errorf("%s %s: %+v", field, value, err)
			}
		}
	}
}

func TestWholeNumbersReachTheRequest(t *testing.T) {
	r, err := decode([]byte(`{"prompt":"x","max_new_tokens":1e2,"top_k":40.0,"seed":9007199254740.991e3}`), api.Limits{})
	if err != nil || *r.MaxNewTokens != 100 || *r.TopK != 40 || *r.Seed != api.MaxSeed {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestDecodeLengthLimits(t *testing.T) {
	f := func(name, param, body string, limits api.Limits) {
		t.Helper()
		_, err := decode([]byte(body), limits)
		if param == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if param != "" && (err == nil || err.Param != param || err.Status() != 400) {
			t.Errorf("%s: %v, want param %s", name, err, param)
		}
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	f("default prompt limit", "", `{"prompt":"`+long(api.MaxPromptBytes)+`"}`, api.Limits{})
	f("over the default prompt limit", "prompt", `{"prompt":"`+long(api.MaxPromptBytes+1)+`"}`, api.Limits{})
	f("prompt limit counts decoded bytes", "", `{"prompt":"\u0041\u0041"}`, api.Limits{PromptBytes: 2})
	f("prompt and system count together", "prompt", `{"prompt":"ab","system":"cd"}`, api.Limits{PromptBytes: 3})
	f("stop", "", `{"prompt":"x","stop":"`+long(api.MaxStopBytes)+`"}`, api.Limits{})
	f("stop too long", "stop", `{"prompt":"x","stop":["`+long(api.MaxStopBytes+1)+`"]}`, api.Limits{})
	f("model too long", "base_model", `{"prompt":"x","base_model":"`+long(api.MaxNameBytes+1)+`"}`, api.Limits{})
	f("version too long", "adapter_version", `{"prompt":"x","adapter_version":"`+long(api.MaxNameBytes+1)+`"}`, api.Limits{})
	f("domain too long", "domain", `{"prompt":"x","domain":"`+long(api.MaxDomainBytes+1)+`"}`, api.Limits{})
	f("schema too long", "json_schema", `{"prompt":"x","json_schema":{"title":"`+long(api.MaxSchemaBytes)+`"}}`, api.Limits{})
}

func TestDecodeNesting(t *testing.T) {
	nested := func(levels int) []byte { // levels in all, the body's own included
		return []byte(`{"prompt":"[[[{{{","json_schema":` + strings.Repeat(`{"a":`, levels-2) + `{}` + strings.Repeat(`}`, levels-2) + `}`)
	}
	if _, err := decode(nested(api.MaxNestingDepth), api.Limits{}); err != nil {
		t.Errorf("%d levels: %v", api.MaxNestingDepth, err)
	}
	if _, err := decode(nested(api.MaxNestingDepth+1), api.Limits{}); err == nil || !strings.Contains(err.Message, "nested") {
		t.Errorf("%d levels: %v", api.MaxNestingDepth+1, err)
	}
	if _, err := decode([]byte(`{"prompt":"\"[[`+strings.Repeat("[", 100)+`"}`), api.Limits{}); err != nil {
		t.Errorf("brackets in a string: %v", err)
	}
}

// The HTTP server reuses a body's memory for the next request.
func TestDecodeKeepsNothingOfTheBody(t *testing.T) {
	const source = `{"prompt":"plain","system":"esc\u0041ped","base_model":"m","adapter_version":"v","stop":["s"],"domain":"d","json_schema":{"type":"object"}}`
	body := []byte(source)
	got, err := decode(body, api.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] = '#'
	}
	want, err := decode([]byte(source), api.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if describe(got, nil) != describe(want, nil) {
		t.Errorf("after the body was overwritten:\n%s", describe(got, nil))
	}
}

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
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
		r, e := decode(body, api.Limits{})
		if e != nil {
			if r != nil || e.Status() != 400 || e.Message == "" || len(e.Message) > 1000 {
				t.Fatalf("%+v, %+v", r, e)
			}
			checkJSON(t, appendError(nil, e, "id"))
			return
		}
		if r.Prompt == "" || len(r.Stop) > api.MaxStops || len(r.JSONSchema) > api.MaxSchemaBytes {
			t.Fatalf("%+v", r)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	body := []byte(`{"prompt":"` + strings.Repeat("What is the capital of France? ", 30) + `","max_new_tokens":32,"adapter_version":"v1.0","base_model":"demo","temperature":0.7,"stop":["\n"]}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(body, api.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
