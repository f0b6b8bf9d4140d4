package responses

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

func FuzzDecode(f *testing.F) {
	codex, err := os.ReadFile("testdata/codex.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(codex)
	for _, body := range []string{
		bodyStart + `,"max_output_tokens":7,"tools":[],"stop":["a"],"seed":1,"model":"a:b","metadata":{"a":"b"}}`,
		bodyStart + `,"text":{"format":{"type":"json_schema","schema":{}}},"include":["message.output_text.logprobs"],"top_logprobs":3}`,
		bodyStart + `,"tools":[{"type":"namespace","name":"n","tools":[{"type":"custom","name":"p"}]}],"tool_choice":{"type":"allowed_tools","tools":[{"type":"custom","name":"p","namespace":"n"}]}}`,
		`{"input":[{"type":"mcp_call","id":"a","name":"f"},{"type":"shell_call_output","call_id":"a","output":[{}]},{"role":"user","content":[{"type":"te`,
	} {
		f.Add([]byte(body))
	}
	limits := api.Limits{PromptBytes: 4000, SchemaBytes: 500}
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Dialect.Decode(body, limits)
		if err != nil {
			if r != nil || err.Status() != 400 || err.Message == "" || len(err.Message) > 1000 || len(err.Param) > 200 {
				t.Fatalf("%+v, %+v", r, err)
			}
			checkJSON(t, Dialect.AppendError(nil, err, "id"))
			return
		}
		checkInvariants(t, r, limits)
		e := newEncoder(&api.ReplyStart{Request: r, RequestID: "r"})
		checkJSON(t, e.AppendReply(nil, &api.Reply{Results: []api.Result{{Text: "a"}}}))
	})
}

func checkJSON(t *testing.T, body []byte) {
	t.Helper()
	if !jsontext.Value(body).IsValid() || strings.ContainsAny(string(body), "\n\r\u0085\u2028\u2029") {
		t.Fatalf("not JSON on one line: %q", body)
	}
}

// checkInvariants checks what later code relies on.
func checkInvariants(t *testing.T, r *api.Request, limits api.Limits) {
	t.Helper()
	between := func(v *float32, low, high float32) bool { return v == nil || *v >= low && *v <= high }
	switch {
	case len(r.Messages) == 0, len(r.Messages) > api.MaxMessages, r.Prompt != "", r.Raw, !r.SplitOutput, !r.FitContext, !r.PlainSampling:
		t.Fatalf("not a conversation: %s", describe(r))
	case r.TextBytes()-len(r.JSONSchema) > limits.PromptBytes, len(r.JSONSchema) > limits.SchemaBytes:
		t.Fatalf("too much text: %s", describe(r))
	case len(r.Stop) > api.MaxStops, slices.ContainsFunc(r.Stop, func(s string) bool { return s == "" || len(s) > api.MaxStopBytes }):
		t.Fatalf("stops %q", r.Stop)
	case len(r.Model) > api.MaxNameBytes, len(r.Version) > api.MaxNameBytes:
		t.Fatalf("names %q, %q", r.Model, r.Version)
	case len(r.Tools) > api.MaxTools, r.ToolChoice.Mode >= api.ToolsRequired && len(r.Tools) == 0, r.TopLogprobs > api.MaxTopLogprobs:
		t.Fatalf("tools or log-probabilities: %s", describe(r))
	case !between(r.Temperature, 0, api.MaxTemperature), !between(r.TopP, smallestTopP, 1), !between(r.MinP, 0, 1),
		!between(r.PresencePenalty, -api.MaxPenalty, api.MaxPenalty), !between(r.FrequencyPenalty, -api.MaxPenalty, api.MaxPenalty),
		r.TopK != nil && *r.TopK > api.MaxTopK, r.Seed != nil && *r.Seed > api.MaxSeed,
		r.MaxNewTokens != nil && (*r.MaxNewTokens < 1 || *r.MaxNewTokens > api.MaxNewTokens):
		t.Fatalf("out of range: %s", describe(r))
	}
	for i, m := range r.Messages {
		if m.Role == "system" && i > 0 || i > 0 && m.Role != "tool" && m.Role == r.Messages[i-1].Role {
			t.Fatalf("roles not in turn: %s", describe(r))
		}
	}
	names := map[string]bool{}
	for _, f := range r.Tools {
		if !api.IsToolName(f.Name) || names[f.Name] {
			t.Fatalf("tool %q", f.Name)
		}
		names[f.Name] = true
	}
	if r.ToolChoice.Mode == api.ToolsNamed && !names[r.ToolChoice.Name] {
		t.Fatalf("%q is not among the tools", r.ToolChoice.Name)
	}
	for i := range r.Messages {
		checkMessage(t, &r.Messages[i])
	}
}

func checkMessage(t *testing.T, m *api.Message) {
	t.Helper()
	isAssistant := m.Role == "assistant"
	switch {
	case !slices.Contains([]string{"system", "user", "assistant", "tool"}, m.Role),
		!isAssistant && (m.Reasoning != "" || m.ToolCalls != nil), (m.Role == "tool") != (m.ToolCallID != ""), len(m.ToolCalls) > api.MaxToolCalls:
		t.Fatalf("message %+v", m)
	}
	for _, c := range m.ToolCalls {
		if c.ID == "" || !api.IsToolName(c.Name) || !jsontext.Value(c.Arguments).IsValid() {
			t.Fatalf("call %+v", c)
		}
	}
}
