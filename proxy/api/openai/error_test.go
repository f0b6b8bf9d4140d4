package openai

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"tandem/proxy/api"
)

// errorBody is an error as clients read it.
type errorBody struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

func parseError(t *testing.T, body []byte) errorBody {
	t.Helper()
	var b errorBody
	if err := json.Unmarshal(body, &b, json.RejectUnknownMembers(true)); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return b
}

func TestEveryErrorHasAForm(t *testing.T) {
	if types := api.Types(); len(types) != len(forms) {
		t.Errorf("%d types, %d forms", len(types), len(forms))
	}
	for _, typ := range api.Types() {
		if _, ok := forms[typ]; !ok {
			t.Errorf("%s has none", typ)
			continue
		}
		e := api.NewError(typ, "why")
		got := parseError(t, Chat.AppendError(nil, e, "r1")).Error
		if isServerError := e.Status() >= 499; isServerError != (got.Type == "server_error") {
			t.Errorf("%s has status %d, but type %s", typ, e.Status(), got.Type)
		}
		if got.Code == nil && typ != api.TypeInvalidRequest || !strings.Contains(got.Message, "why") {
			t.Errorf("%s: %+v", typ, got)
		}
	}
}

func TestErrorBody(t *testing.T) {
	same(t, Chat.AppendError(nil, api.Invalid("top_k", "a \"b\"\u2028"), "r1"),
		`{"error":{"message":"a \"b\"\u2028","type":"invalid_request_error","param":"top_k","code":null}}`)
	same(t, Completions.AppendError(nil, api.RateLimited("5/minute", time.Second), "r1"),
		`{"error":{"message":"rate limit of 5/minute reached; try again later","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`)
	secret := errors.New("open /secret/path")
	same(t, Completions.AppendError(nil, api.Internal(secret), "r1"),
		`{"error":{"message":"internal error; the log has details under the request id r1","type":"server_error","param":null,"code":"internal"}}`)
	if e := api.NewError("from_the_future", "x"); formOf(e.Type) != forms[api.TypeInternal] {
		t.Error("an unknown type isn't internal")
	}
}

// Errors that are made elsewhere blame the fields of this dialect, in param and in words.
func TestErrorsSpeakOfTheClientsFields(t *testing.T) {
	models := []api.Model{{Name: "demo", Versions: []string{"base", "v1"}}}
	_, _, noModel := api.Resolve(models, "", "", "base_model ", "")
	_, _, noDefault := api.Resolve(models, "gone", "", "", "")
	_, _, noVersion := api.Resolve(models, "", "", "demo", "v2")
	blaming := func(e *api.Error, param string) *api.Error { e.Param = param; return e }
	for _, c := range []struct {
		err              *api.Error
		chat, completion string // param
		code, part       string
	}{
		{noModel, "model", "model", "model_not_found", `model "base_model " is not installed; installed: demo`},
		{noDefault, "model", "model", "model_not_found", `no model given, and the default model "gone" is not installed`},
		{noVersion, "model", "model", "model_not_found", `model "demo" has no version "v2"`},
		{api.Forbidden("demo"), "model", "model", "forbidden", `may not use model "demo"`},
		{api.ModelLoadFailed("demo", "v1", "engine_crash", time.Second), "model", "model", "model_load_failed", `model "demo" version "v1"`},
		{api.GrammarTooComplex("json_schema"), "json_schema", "json_schema", "grammar_too_complex", "json_schema is too complex"},
		{api.GrammarTooComplex("tools"), "tools", "tools", "grammar_too_complex", "tools are too complex"},
		{api.Invalid("json_schema", "json_schema must be a JSON schema that is an object"), "json_schema", "json_schema", "", "json_schema must be"},
		{api.Invalid("prompt", "prompt has no tokens"), "messages", "prompt", "", " has no tokens"},
		{api.Invalid("max_new_tokens", "max_new_tokens is 9, ask for fewer"), "max_tokens", "max_tokens", "", "max_tokens is 9, ask"},
		{api.Invalid("temperature", "temperature must be 0 to 2"), "temperature", "temperature", "", "temperature must be 0 to 2"},
		{api.Invalid("system", "the model can't take these messages: no system"), "messages", "prompt", "", "these messages: no system"},
		{api.ContextExceeded(9000, 8192), "messages", "prompt", "context_length_exceeded",
			"This model's maximum context length is 8192 tokens: the prompt has 9000 tokens, but the model's context holds 8192; shorten it (context_length_exceeded)"},
		{blaming(api.NewError(api.TypeContextExceeded, "the prompt is too long"), "prompt"), "messages", "prompt", "context_length_exceeded",
			"This model's maximum context length is exceeded: the prompt is too long (context_length_exceeded)"},
		{api.Unauthorized("X-API-Key"), "", "", "invalid_api_key", "Authorization: Bearer <key>"},
	} {
		for dialect, param := range map[api.Dialect]string{Chat: c.chat, Completions: c.completion} {
			got := parseError(t, dialect.AppendError(nil, c.err, "r1")).Error
			if text(got.Param) != param || text(got.Code) != c.code || !strings.Contains(got.Message, c.part) {
				t.Errorf("%v: message %q, param %q, code %q", c.err, got.Message, text(got.Param), text(got.Code))
			}
		}
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
