package responses

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
)

// bodyStart is a body up to its last member, without the brace.
const bodyStart = `{"input":"Hi"`

// defaultRequest is what a body without any parameter asks for.
func defaultRequest(messages ...api.Message) api.Request {
	return api.Request{Messages: messages, FitContext: true, PlainSampling: true, SplitOutput: true}
}

func user(text string) api.Message { return api.Message{Role: "user", Content: text} }

func TestDecodeParameters(t *testing.T) {
	for fields, change := range map[string]func(*api.Request){
		`"model":"demo"`:                  func(r *api.Request) { r.Model = "demo" },
		`"model":"org/demo:v1.0"`:         func(r *api.Request) { r.Model, r.Version = "org/demo", "v1.0" },
		`"model":null`:                    func(*api.Request) {},
		`"temperature":0,"top_p":0.25`:    func(r *api.Request) { r.Temperature, r.TopP = new(float32(0)), new(float32(0.25)) },
		`"top_p":0`:                       func(r *api.Request) { r.TopP = new(float32(smallestTopP)) },
		`"temperature":null,"top_p":null`: func(*api.Request) {},
		`"max_output_tokens":100.0`:       func(r *api.Request) { r.MaxNewTokens = new(100) },
		`"max_output_tokens":1e30`:        func(r *api.Request) { r.MaxNewTokens = new(api.MaxNewTokens) },
		`"stream":true`:                   func(r *api.Request) { r.Stream = true },
		`"timings_per_token":true`:        func(r *api.Request) { r.Timings = true },
		`"stream":null,"stream_options":{"include_obfuscation":false}`: func(*api.Request) {},
		`"stream":true,"stream_options":{"resume":60}`: func(r *api.Request) {
			r.Stream, r.ResumeFor = true, time.Minute
		},
		`"stream_options":{"resume":60}`: func(*api.Request) {}, // a whole reply isn't kept
		`"seed":42.0`:                    func(r *api.Request) { r.Seed = new(uint64(42)) },
		`"seed":9007199254740991`:        func(r *api.Request) { r.Seed = new(uint64(api.MaxSeed)) },
		`"seed":9007199254740992`:        func(r *api.Request) { r.Seed = new(uint64(0)) },
		`"seed":-1`:                      func(r *api.Request) { r.Seed = new(uint64(api.MaxSeed)) },
		`"seed":9223372036854775807`:     func(r *api.Request) { r.Seed = new(uint64(api.MaxSeed)) },
		`"seed":-9223372036854775808`:    func(r *api.Request) { r.Seed = new(uint64(0)) },
		`"seed":null`:                    func(*api.Request) {},
		`"stop":"x"`:                     func(r *api.Request) { r.Stop = []string{"x"} },
		`"stop":["x","yz"]`:              func(r *api.Request) { r.Stop = []string{"x", "yz"} },
		`"top_k":40.0,"min_p":0`:         func(r *api.Request) { r.TopK, r.MinP = new(40), new(float32(0)) },
		`"presence_penalty":-2,"frequency_penalty":2`: func(r *api.Request) {
			r.PresencePenalty, r.FrequencyPenalty = new(float32(-2)), new(float32(2))
		},
		`"text":{"format":{"type":"text"},"verbosity":"low"}`: func(*api.Request) {},
		`"text":null`: func(*api.Request) {},
		`"text":{"format":{"type":"json_object"}}`: func(r *api.Request) { r.JSONSchema = []byte(`{"type":"object"}`) },
		`"text":{"format":{"type":"json_schema","name":"n","strict":false,"schema":{"type":"array"}}}`: func(r *api.Request) {
			r.JSONSchema = []byte(`{"type":"array"}`)
		},
		`"reasoning":{"effort":"high","summary":"auto"}`: func(r *api.Request) { r.TemplateOptions = []byte(`{"reasoning_effort":"high"}`) },
		`"reasoning":{"effort":"none"}`: func(r *api.Request) {
			r.TemplateOptions = []byte(`{"enable_thinking":false,"reasoning_effort":"none"}`)
		},
		`"reasoning":{"effort":null}`:        func(*api.Request) {},
		`"top_logprobs":5`:                   func(*api.Request) {}, // not included
		`"include":null,"top_logprobs":null`: func(*api.Request) {},
		`"include":["reasoning.encrypted_content","message.output_text.logprobs"],"top_logprobs":5`: func(r *api.Request) {
			r.Logprobs, r.TopLogprobs = true, 5
		},
		`"store":true,"truncation":"auto","metadata":{"a":"b"},"user":"u","service_tier":"auto","prompt_cache_key":"k"`: func(*api.Request) {},
		`"safety_identifier":"s","background":false,"conversation":null,"prompt":null,"previous_response_id":null`:      func(*api.Request) {},
		`"max_tool_calls":3,"context_management":[{"type":"compaction"}],"service_tier":[{"a":null}]`:                   func(*api.Request) {},
	} {
		want := defaultRequest(user("Hi"))
		change(&want)
		wantRequest(t, bodyStart+","+fields+"}", &want)
	}
}

// A body is the connection's buffer, which is used again while the request waits.
func TestDecodeKeepsNothing(t *testing.T) {
	source, err := os.ReadFile("testdata/codex.json")
	if err != nil {
		t.Fatal(err)
	}
	source = []byte(strings.Replace(string(source), `"text": {`, `"metadata":{"a":"b"},"text": {"format":{"type":"json_schema","name":"n","schema":{"type":"array"}},`, 1))
	body := slices.Clone(source)
	got, failure := Dialect.Decode(body, api.Limits{})
	if failure != nil {
		t.Fatal(failure)
	}
	for i := range body {
		body[i] = '#'
	}
	wantRequest(t, string(source), got)
	again, _ := Dialect.Decode(source, api.Limits{})
	if !reflect.DeepEqual(got.Extra, again.Extra) {
		t.Errorf("the echo is %s", got.Extra.(*echo).members)
	}
}

func TestCount(t *testing.T) {
	r, err := DecodeCount([]byte(`{"model":"demo","instructions":"Be brief.","input":"Hi","stream":true}`), api.Limits{})
	if err != nil || r.Stream || r.Model != "demo" || len(r.Messages) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := DecodeCount([]byte(`{}`), api.Limits{}); err == nil || err.Param != "input" {
		t.Error(err)
	}
	if got := string(AppendCount([]byte("x"), 7)); got != `x{"object":"response.input_tokens","input_tokens":7}` {
		t.Error(got)
	}
}

// wantRequest compares all but what is echoed.
func wantRequest(t *testing.T, body string, want *api.Request) {
	t.Helper()
	got, err := Dialect.Decode([]byte(body), api.Limits{})
	if err != nil {
		t.Errorf("%s: %v", body, err)
		return
	}
	if e, ok := got.Extra.(*echo); !ok || len(e.tools) != len(got.Tools) {
		t.Errorf("%s: extra is %+v", body, got.Extra)
	}
	got.Extra = want.Extra
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\ngot  %s\nwant %s", body, describe(got), describe(want))
	}
}

// describe prints the fields of a request that are set, with what pointers point to.
func describe(r *api.Request) string {
	var b strings.Builder
	v := reflect.ValueOf(*r)
	for i := range v.NumField() {
		f := v.Field(i)
		if f.IsZero() {
			continue
		}
		if f.Kind() == reflect.Pointer {
			f = f.Elem()
		}
		if text, ok := f.Interface().([]byte); ok {
			fmt.Fprintf(&b, "%s=%s ", v.Type().Field(i).Name, text)
			continue
		}
		fmt.Fprintf(&b, "%s=%+v ", v.Type().Field(i).Name, f)
	}
	return b.String()
}

func BenchmarkDecode(b *testing.B) {
	body, err := os.ReadFile("testdata/codex.json")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Dialect.Decode(body, api.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
