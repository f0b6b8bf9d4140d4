package openai

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tandem/proxy/api"
)

const (
	chatStart       = `{"messages":[{"role":"user","content":"Hi"}]`
	completionStart = `{"prompt":"Hi"`
)

// defaultRequest is what a body without any parameter asks for.
func defaultRequest() api.Request {
	return api.Request{FitContext: true, PlainSampling: true}
}

func user(text string) []api.Message { return []api.Message{{Role: "user", Content: text}} }

func wantRequest(t *testing.T, dialect api.Dialect, body string, want *api.Request) {
	t.Helper()
	got, err := dialect.Decode([]byte(body), api.Limits{})
	if err != nil {
		t.Errorf("%s: %v", body, err)
	} else if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %s, want %s", body, describe(got), describe(want))
	}
}

// describe prints a request with what its pointers point to.
func describe(r *api.Request) string {
	var b strings.Builder
	v := reflect.ValueOf(*r)
	for i := range v.NumField() {
		field := v.Field(i)
		if field.IsZero() {
			continue
		}
		if field.Kind() == reflect.Pointer {
			field = field.Elem()
		}
		fmt.Fprintf(&b, "%s=%v ", v.Type().Field(i).Name, field.Interface())
	}
	return b.String()
}

// refusals are bodies, and the field that their error blames.
type refusals map[string]string

func wantRefusals(t *testing.T, dialect api.Dialect, list refusals) {
	t.Helper()
	for body, param := range list {
		r, err := dialect.Decode([]byte(body), api.Limits{PromptBytes: 200, SchemaBytes: 200})
		if err == nil {
			t.Errorf("%s was accepted as %s", body, describe(r))
			continue
		}
		if err.Type != api.TypeInvalidRequest || err.Param != param || err.Message == "" {
			t.Errorf("%s: param %q, %v; want param %q", body, err.Param, err, param)
		}
	}
}

func long(bytes int) string { return strings.Repeat("x", bytes) }

// The HTTP server reuses a body's memory for the next request.
func TestDecodeKeepsNothingOfTheBody(t *testing.T) {
	const parameters = `,"model":"m:v","stop":["s"],"response_format":{"type":"json_schema","json_schema":{"schema":{"type":"object"}}}}`
	for source, dialect := range map[string]api.Dialect{
		`{"messages":[{"role":"user","content":"plain"},{"role":"user","content":[{"type":"text","text":"part"}]}]` + parameters: Chat,
		completionStart + parameters: Completions,
	} {
		body := []byte(source)
		got, err := dialect.Decode(body, api.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range body {
			body[i] = '#'
		}
		wantRequest(t, dialect, source, got)
	}
}

func FuzzDecode(f *testing.F) {
	for _, body := range []string{
		chatStart + `,"max_completion_tokens":7,"tools":[],"stop":["a"],"seed":-1,"model":"a:b"}`,
		chatStart + `,"response_format":{"type":"json_schema","json_schema":{"schema":{}}},"stream":true,"stream_options":{"include_usage":true}}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"assistant","content":null}]}`,
		completionStart + `,"max_tokens":100.0,"top_p":0,"temperature":0,"presence_penalty":-2,"logit_bias":{}}`,
		chatStart + `,"tools":[` + aTool + `],"tool_choice":{"type":"function","function":{"name":"f"}},"logprobs":true,"n":2}`,
		`{"messages":[{"role":"assistant","tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"x"}]}`,
		chatStart + `,"chat_template_kwargs":{"a":1},"reasoning_effort":"low","grammar":"root ::= \"a\""}`,
		`{"prompt":["a"],"best_of":1,"echo":true,"logprobs":2,"max_tokens":0}`, `{"prompt":[[1],"a"]}`, `{"messages":[{"role":"user","content":[{"type":"te`, `{"prompt":["a"`,
	} {
		f.Add([]byte(body))
	}
	limits := api.Limits{PromptBytes: 1000, SchemaBytes: 500}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, dialect := range []api.Dialect{Chat, Completions} {
			r, err := dialect.Decode(body, limits)
			if err != nil {
				if r != nil || err.Status() != 400 || err.Message == "" || len(err.Message) > 1000 || len(err.Param) > 200 {
					t.Fatalf("%+v, %+v", r, err)
				}
				checkJSON(t, dialect.AppendError(nil, err, "id"))
				continue
			}
			checkWithinLimits(t, r, limits)
		}
	})
}

func checkWithinLimits(t *testing.T, r *api.Request, limits api.Limits) {
	t.Helper()
	hasPrompt := r.Prompt != "" || len(r.PromptTokens) > 0 || len(r.Inputs) > 0
	between := func(v *float32, low, high float32) bool { return v == nil || *v >= low && *v <= high }
	switch {
	case (len(r.Messages) > 0) == hasPrompt, r.Raw != hasPrompt, len(r.Messages) > api.MaxMessages, r.ChoiceCount() > api.MaxInputs:
		t.Fatalf("neither a conversation nor a raw prompt: %s", describe(r))
	case r.TextBytes()-len(r.JSONSchema)-roleBytes(r) > limits.PromptBytes, len(r.JSONSchema) > limits.SchemaBytes:
		t.Fatalf("too much text: %s", describe(r))
	case len(r.Stop) > api.MaxStops, slices.ContainsFunc(r.Stop, func(s string) bool { return s == "" || len(s) > api.MaxStopBytes }):
		t.Fatalf("stops %q", r.Stop)
	case len(r.Model) > api.MaxNameBytes, len(r.Version) > api.MaxNameBytes:
		t.Fatalf("names %q, %q", r.Model, r.Version)
	case !between(r.Temperature, 0, api.MaxTemperature), !between(r.TopP, smallestTopP, 1), !between(r.MinP, 0, 1),
		!between(r.RepeatPenalty, 1e-45, api.MaxPenalty), !between(r.PresencePenalty, -api.MaxPenalty, api.MaxPenalty),
		!between(r.FrequencyPenalty, -api.MaxPenalty, api.MaxPenalty), r.TopK != nil && *r.TopK > api.MaxTopK,
		r.Seed != nil && *r.Seed > api.MaxSeed, r.MaxNewTokens != nil && (*r.MaxNewTokens < 1 || *r.MaxNewTokens > api.MaxNewTokens):
		t.Fatalf("out of range: %s", describe(r))
	}
}

func roleBytes(r *api.Request) (n int) {
	for _, m := range r.Messages {
		n += len(m.Role)
	}
	return n
}
