package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// declaredTypes reads the constants of Type from the source, so that a new one can't be forgotten in the table.
func declaredTypes(t *testing.T) []Type {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "error.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var types []Type
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if ok && strings.HasPrefix(spec.Names[0].Name, "Type") {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			types = append(types, Type(value))
		}
		return true
	})
	return types
}

func TestEveryTypeHasAnOutcome(t *testing.T) {
	types := declaredTypes(t)
	if len(types) < 25 || len(types) != len(outcomes) {
		t.Fatalf("%d types, %d outcomes", len(types), len(outcomes))
	}
	for _, typ := range types {
		if !typ.Known() {
			t.Errorf("%s is not in the table", typ)
		}
	}
}

// The label follows from the status, except that a client that left has a label of its own.
func TestStatusAndLabelAgree(t *testing.T) {
	clientErrors := []int{400, 401, 403, 404, 405, 408, 413, 415, 422, 426, 431}
	for typ, o := range outcomes {
		var want StatusLabel
		switch {
		case slices.Contains(clientErrors, o.Status):
			want = LabelClientError
		case o.Status == 429:
			want = LabelRateLimited
		case o.Status == StatusClientClosed:
			want = LabelCancelled
		case o.Status >= 500:
			want = LabelError
		}
		if o.Label != want {
			t.Errorf("%s: status %d has label %q", typ, o.Status, o.Label)
		}
		if o.Status == 422 && typ != TypeQuarantined {
			t.Errorf("%s: 422 belongs to quarantined requests alone", typ)
		}
	}
}

func TestClosedSets(t *testing.T) {
	f := func(name string, got []string, want string) {
		t.Helper()
		if strings.Join(got, " ") != want {
			t.Errorf("%s are\n%s, want\n%s", name, strings.Join(got, " "), want)
		}
	}
	f("reasons", RejectedReasons(), "body_too_large context_length_exceeded deadline draining engine_unavailable forbidden internal invalid_request "+
		"model_busy model_load_failed model_not_found out_of_memory quarantined queue_full rate_limited unauthorized")
	f("error types", FailedTypes(), "cancelled context_length_exceeded deadline_exceeded decode_failed engine_crashed engine_unavailable "+
		"grammar_too_complex internal model_busy model_changed model_load_failed model_not_found out_of_memory quarantined queue_full queue_timeout")
}

func TestUnknownTypeIsInternal(t *testing.T) {
	if e := NewError("from_the_future", "x"); e.Status() != 500 || e.Outcome().Failed != "internal" || e.Type.Known() {
		t.Errorf("%+v", e.Outcome())
	}
}

func TestRetryAfterSeconds(t *testing.T) {
	for d, want := range map[time.Duration]int{0: 1, -time.Second: 1, 1: 1, time.Second: 1, 1001 * time.Millisecond: 2, 12 * time.Second: 12} {
		for _, e := range []*Error{
			RateLimited("5/minute", d), QueueFull(256, d), NoTimeLeft(time.Second, time.Second, d), EngineUnavailable(d), EngineCrashed(d), ModelBusy("a", d),
			ModelLoadFailed("a", "b", "timeout", d),
		} {
			if got := e.RetryAfterSeconds(); got != want {
				t.Errorf("%s after %v: %d", e.Type, d, got)
			}
		}
	}
	for _, e := range []*Error{ModelChanged("a", "b"), Draining()} {
		if e.RetryAfterSeconds() != 1 {
			t.Errorf("%s: %d", e.Type, e.RetryAfterSeconds())
		}
	}
}

func TestMessagesSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		err    *Error
		status int
		part   string
	}{
		{Unauthorized("X-API-Key"), 401, "X-API-Key: <key> or Authorization: Bearer <key>"},
		{Forbidden("a/b"), 403, `"a/b"`},
		{RateLimited("5/minute", time.Second), 429, "5/minute"},
		{ContextExceeded(9000, 8192), 400, "9000 tokens"},
		{ContextExceeded(0, 8192), 400, "8192 tokens"},
		{BodyTooLarge(100), 413, "100 bytes"},
		{UnsupportedMediaType(""), 415, "Content-Type: application/json"},
		{UnsupportedMediaType("text/plain"), 415, `"text/plain"`},
		{MethodNotAllowed("PUT", "GET, HEAD"), 405, "use GET, HEAD"},
		{UpgradeRequired(), 426, "HTTP/1.1"},
		{Quarantined(), 422, "stopped the inference engine"},
		{QueueFull(256, time.Second), 503, "256"},
		{QueueTimeout(1234567 * time.Microsecond), 504, "1.2s"},
		{ModelLoadFailed("a", "b", "engine_crash", time.Minute), 503, "engine_crash"},
		{ModelChanged("a", "b"), 503, "send the request again"},
	} {
		if c.err.Status() != c.status || !strings.Contains(c.err.Message, c.part) {
			t.Errorf("%d %s", c.err.Status(), c.err.Message)
		}
	}
}
