package responses

import (
	"errors"
	"strings"
	"testing"

	"tandem/proxy/api"
)

func TestErrorBody(t *testing.T) {
	same(t, Dialect.AppendError(nil, api.Invalid("top_p", "a \"b\"\u2028"), "r1"),
		`{"error":{"message":"a \"b\"\u2028","type":"invalid_request_error","param":"top_p","code":null}}`)
	notFound := api.NewError(api.TypeModelNotFound, "no base_model given")
	notFound.Param = "base_model"
	same(t, Dialect.AppendError(nil, notFound, "r1"),
		`{"error":{"message":"no model given","type":"invalid_request_error","param":"model","code":"model_not_found"}}`)
	for param, want := range map[string]string{
		"adapter_version": "model", "max_new_tokens": "max_output_tokens", "json_schema": "text.format.schema", "prompt": "input", "system": "instructions",
	} {
		if got := string(Dialect.AppendError(nil, api.Invalid(param, "why"), "r1")); !strings.Contains(got, `"param":"`+want+`"`) {
			t.Errorf("%s: %s", param, got)
		}
	}
	// A field of this API that has the name of one of /infer's.
	_, err := Dialect.Decode([]byte(bodyStart+`,"prompt":{"id":"pmpt_1"}}`), api.Limits{})
	same(t, Dialect.AppendError(nil, err, "r1"),
		`{"error":{"message":"prompt templates are not stored; leave prompt out and send instructions and input","type":"invalid_request_error","param":"prompt","code":null}}`)
	secret := errors.New("open /secret/path")
	if got := string(Dialect.AppendError(nil, api.Internal(secret), "r1")); strings.Contains(got, "secret") || !strings.Contains(got, "request id r1") {
		t.Error(got)
	}
}

func TestEveryErrorHasAForm(t *testing.T) {
	for _, typ := range api.Types() {
		e := api.NewError(typ, "why")
		if got := string(Dialect.AppendError(nil, e, "r1")); !strings.Contains(got, "why") {
			t.Errorf("%s: %s", typ, got)
		}
		want := serverError
		switch status := e.Status(); {
		case typ == api.TypeContextExceeded:
			want = contextExceeded
		case status == 429 && typ == api.TypeRateLimited:
			want = rateLimited
		case status < 499:
			want = invalidPrompt
		}
		list := events(t, Dialect.NewEncoder(startOf(testRequest(t))).AppendErrorEvent(nil, e))
		if last := list[len(list)-1]; !strings.Contains(string(last.Response), `"error":{"code":"`+want+`","message":"`) ||
			!strings.Contains(string(last.Response), `","type":"`+string(typ)+`"}`) {
			t.Errorf("%s: %s", typ, last.Response)
		}
	}
}

func TestStored(t *testing.T) {
	if e := ErrStored(); e.Status() != 400 || !strings.Contains(e.Message, "not stored") {
		t.Error(e)
	}
}
