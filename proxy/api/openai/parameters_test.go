package openai

import (
	"strings"
	"testing"

	"tandem/proxy/api"
)

// Both endpoints take these alike.
func TestDecodeParameters(t *testing.T) {
	for fields, change := range map[string]func(*api.Request){
		`"model":"demo"`:                  func(r *api.Request) { r.Model = "demo" },
		`"model":"org/demo:v1.0"`:         func(r *api.Request) { r.Model, r.Version = "org/demo", "v1.0" },
		`"model":"demo:base"`:             func(r *api.Request) { r.Model, r.Version = "demo", "base" },
		`"model":"a:b:c"`:                 func(r *api.Request) { r.Model, r.Version = "a", "b:c" }, // 404 later
		`"model":null`:                    func(*api.Request) {},
		`"model":""`:                      func(*api.Request) {},
		`"temperature":0`:                 func(r *api.Request) { r.Temperature = new(float32(0)) },
		`"temperature":2.0`:               func(r *api.Request) { r.Temperature = new(float32(2)) },
		`"temperature":null,"top_p":null`: func(*api.Request) {},
		`"top_p":0.25`:                    func(r *api.Request) { r.TopP = new(float32(0.25)) },
		`"top_p":0`:                       func(r *api.Request) { r.TopP = new(float32(smallestTopP)) },
		`"top_k":40.0,"min_p":0`:          func(r *api.Request) { r.TopK, r.MinP = new(40), new(float32(0)) },
		`"max_tokens":100.0`:              func(r *api.Request) { r.MaxNewTokens = new(100) },
		`"max_tokens":1e30`:               func(r *api.Request) { r.MaxNewTokens = new(api.MaxNewTokens) },
		`"repeat_penalty":1.5`:            func(r *api.Request) { r.RepeatPenalty = new(float32(1.5)) },
		`"repetition_penalty":1.5`:        func(r *api.Request) { r.RepeatPenalty = new(float32(1.5)) },
		`"presence_penalty":-2`:           func(r *api.Request) { r.PresencePenalty = new(float32(-2)) },
		`"frequency_penalty":2`:           func(r *api.Request) { r.FrequencyPenalty = new(float32(2)) },
		`"stop":"x"`:                      func(r *api.Request) { r.Stop = []string{"x"} },
		`"stop":["x","yz"]`:               func(r *api.Request) { r.Stop = []string{"x", "yz"} },
		`"stop":[]`:                       func(*api.Request) {},
		`"stop":null`:                     func(*api.Request) {},
		`"n":1,"logit_bias":{ }`:          func(r *api.Request) { r.Choices = 1 },
		`"n":4.0,"logit_bias":null`:       func(r *api.Request) { r.Choices = 4 },
		`"n":null,"logprobs":null`:        func(*api.Request) {},
		`"ignore_eos":true`:               func(r *api.Request) { r.IgnoreEnd = true },
		`"grammar":"root ::= \"a\""`:      func(r *api.Request) { r.Grammar = `root ::= "a"` },
		`"logit_bias":{"7":-100,"50256":0.5}`: func(r *api.Request) {
			r.LogitBias = []api.TokenBias{{Token: 7, Bias: -100}, {Token: 50256, Bias: 0.5}}
		},
		`"stream":true`:                     func(r *api.Request) { r.Stream = true },
		`"stream":null,"stream_options":{}`: func(*api.Request) {},
		`"stream_options":{"include_usage":true,"include_obfuscation":false},"stream":true`: func(r *api.Request) { r.Stream, r.IncludeUsage = true, true },
		`"stream_options":{"include_usage":null}`:                                           func(*api.Request) {},
		`"seed":0`:                          func(r *api.Request) { r.Seed = new(uint64(0)) },
		`"seed":42.0`:                       func(r *api.Request) { r.Seed = new(uint64(42)) },
		`"seed":9007199254740991`:           func(r *api.Request) { r.Seed = new(uint64(api.MaxSeed)) },
		`"seed":9007199254740992`:           func(r *api.Request) { r.Seed = new(uint64(0)) },
		`"seed":9223372036854775807`:        func(r *api.Request) { r.Seed = new(uint64(api.MaxSeed)) },
		`"seed":-1`:                         func(r *api.Request) { r.Seed = new(uint64(api.MaxSeed)) },
		`"seed":-9223372036854775808`:       func(r *api.Request) { r.Seed = new(uint64(0)) },
		`"response_format":null`:            func(*api.Request) {},
		`"response_format":{"type":"text"}`: func(*api.Request) {},
		`"response_format":{"type":"json_object"}`: func(r *api.Request) {
			r.JSONSchema, r.SchemaField = []byte(`{"type":"object"}`), "response_format"
		},
		`"json_schema":{"type":"array"},"response_format":{"type":"text"}`: func(r *api.Request) { r.JSONSchema = []byte(`{"type":"array"}`) },
		`"json_schema":null,"timings_per_token":true`:                      func(r *api.Request) { r.Timings = true },
		`"response_format":{"type":"json_object","schema":{"const":7}}`: func(r *api.Request) {
			r.JSONSchema, r.SchemaField = []byte(`{"const":7}`), "response_format"
		},
		`"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema":{"type":"array"}}}`: func(r *api.Request) {
			r.JSONSchema, r.SchemaField = []byte(`{"type":"array"}`), "response_format"
		},
	} {
		for dialect, start := range map[api.Dialect]string{Chat: chatStart, Completions: completionStart} {
			want := defaultRequest()
			want.Messages, want.SplitOutput = user("Hi"), true
			if dialect == Completions {
				want.Messages, want.SplitOutput, want.Extra = nil, false, completionExtra{}
				want.Prompt, want.Raw, want.MaxNewTokens = "Hi", true, new(16)
			}
			change(&want)
			wantRequest(t, dialect, start+","+fields+"}", &want)
		}
	}
}

func TestParameterRefusals(t *testing.T) {
	values := map[string][]string{
		"model":              {"7", "[]", `"` + long(api.MaxNameBytes+1) + `"`, `"a:` + long(api.MaxNameBytes+1) + `"`},
		"max_tokens":         {"0", "-1", "1.5", `"7"`},
		"temperature":        {"-0.1", "2.1", "1e400", `"hot"`, "true"},
		"top_p":              {"-0.1", "1.01"},
		"top_k":              {"-1", "1001", "0.5"},
		"min_p":              {"-0.1", "1.1"},
		"repeat_penalty":     {"0", "-1", "2.5"},
		"repetition_penalty": {"0", "2.5", `"x"`},
		"presence_penalty":   {"-2.1", "2.1"},
		"frequency_penalty":  {"-2.1", "2.1", "{}"},
		"seed":               {"1.5", "9223372036854775808", "-9223372036854775809", `"7"`, "1e400", "-0.5"},
		"stop":               {`""`, `["a",""]`, "7", `[null]`, `["1","2","3","4","5","6","7","8","9"]`, `"` + long(api.MaxStopBytes+1) + `"`},
		"n":                  {"0", "33", "-1", `"1"`},
		"logit_bias":         {`{"50256":-101}`, `[1]`, `{"a":1}`, `{"7":"1"}`, `{"3000000000":1}`},
		"logprobs":           {`"yes"`, "[]"},
		"ignore_eos":         {"1"},
		"grammar":            {"7", `"` + long(201) + `"`},
		"stream":             {`"true"`, "1"},
		"stream_options":     {"true", "[]"},
		"response_format":    {`"json_object"`, "[]"},
		"json_schema":        {"7", "[]", `"x"`, `{"title":"` + long(200) + `"}`},
		"timings_per_token":  {"1"},
	}
	for dialect, start := range map[api.Dialect]string{Chat: chatStart, Completions: completionStart} {
		for field, bad := range values {
			for _, value := range bad {
				wantRefusals(t, dialect, refusals{start + `,"` + field + `":` + value + `}`: field})
			}
		}
		wantRefusals(t, dialect, refusals{
			start + `,"stream_options":{"include_usage":1}}`:                                   "stream_options.include_usage",
			start + `,"response_format":{"type":"json_object"},"json_schema":{}}`:              "json_schema",
			start + `,"response_format":{"type":"json_object","schema":7}}`:                    "response_format.schema",
			start + `,"response_format":{}}`:                                                   "response_format.type",
			start + `,"response_format":{"type":"grammar"}}`:                                   "response_format.type",
			start + `,"response_format":{"type":7}}`:                                           "response_format.type",
			start + `,"response_format":{"type":"json_schema"}}`:                               "response_format.json_schema.schema",
			start + `,"response_format":{"type":"json_schema","json_schema":7}}`:               "response_format.json_schema",
			start + `,"response_format":{"type":"json_schema","json_schema":{"name":"n"}}}`:    "response_format.json_schema.schema",
			start + `,"response_format":{"type":"json_schema","json_schema":{"schema":true}}}`: "response_format.json_schema.schema",
			start + `,"unknown":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`:    "",
			start + `,"temperature":1,"temperature":1}`:                                        "",
			start + `,"temperature":.5}`:                                                       "temperature",
			start + `,"unknown":nope}`:                                                         "",
			start:                                                                              "",
			start + "}}":                                                                       "",
			start + `,"user":"` + "\xff" + `"}`:                                                "",
			``:                                                                                 "",
			`[]`:                                                                               "",
			`"Hi"`:                                                                             "",
		})
	}
}
