package inflight

import (
	"reflect"
	"strings"
	"testing"

	"tandem/proxy/api"
	"tandem/proxy/queue"
)

func TestUnknownModelIsRefusedOnceTheCatalogIsKnown(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		early := table.admit(func(r *Request) { r.Infer.Model = "nope" })
		f := table.attach(LastExit{})
		table.wantAnswer(early, "", api.TypeModelNotFound, true)
		early.Settle(Failed)
		table.wantMetric(1, "llm_requests_rejected_total", "reason=model_not_found")
		for _, tt := range []struct {
			change func(*Request)
			want   api.Type
		}{
			{func(r *Request) { r.Infer.Model = "nope" }, api.TypeModelNotFound},
			{func(r *Request) { r.Infer.Version = "v9" }, api.TypeVersionNotFound},
			{func(r *Request) { n := 513; r.Infer.MaxNewTokens = &n }, api.TypeInvalidRequest},
		} {
			if _, err := table.Admit(t.Context(), newRequest(tt.change)); err == nil || err.Type != tt.want {
				t.Errorf("refused with %v, want %s", err, tt.want)
			}
		}
		if len(f.infers) != 0 {
			t.Error("the engine was asked")
		}
	})
}

// Which model a request gets that names none, and so whether its key may use it, is known only once an engine has sent
// its catalog.
func TestKeyLimitedToModels(t *testing.T) {
	documented := "microsoft/DialoGPT-medium" // not installed, so that another one is the default
	big := func([]string) string { return "big" }
	inBubble(t, Options{DefaultModel: documented, ChooseDefault: big}, func(t *testing.T, table *tableTest) {
		of := func(model string) func(*Request) { return func(r *Request) { r.Models = []string{model} } }
		may, mayNot := table.admit(of("big")), table.admit(of(documented))
		f := table.attach(LastExit{})
		table.wantAnswer(mayNot, "", api.TypeForbidden, true)
		table.serve(f, f.last(t), 1)
		table.wantAnswer(may, "a", "", true)
		may.Settle(Delivered)
		mayNot.Settle(Failed)
		if _, err := table.Admit(t.Context(), newRequest(of(documented))); err == nil || err.Type != api.TypeForbidden {
			t.Errorf("later: %v", err)
		}
		table.wantMetric(1, "llm_requests_rejected_total", "reason=forbidden")
	})
}

func TestQueueAndJournalAreBounded(t *testing.T) {
	inBubble(t, Options{QueueCapacity: 2, JournalMaxBytes: 100_000}, func(t *testing.T, table *tableTest) {
		answers := []Answer{table.admit(nil), table.admit(nil)}
		if _, err := table.Admit(t.Context(), newRequest(nil)); err == nil || err.Type != api.TypeQueueFull || err.RetryAfterSeconds() < 1 {
			t.Errorf("third of two: %v", err)
		}
		table.wantMetric(2, "llm_requests_waiting")
		if table.metric("llm_journal_bytes") == 0 {
			t.Error("nothing is reserved")
		}
		f := table.attach(LastExit{}) // takes both
		if len(f.infers) != 2 {
			t.Fatalf("%d were released", len(f.infers))
		}
		huge := func(r *Request) { n := 6500; r.Infer.Model = "big"; r.Infer.MaxNewTokens = &n }
		answers = append(answers, table.admit(huge))
		if _, err := table.Admit(t.Context(), newRequest(huge)); err == nil || err.Type != api.TypeQueueFull {
			t.Errorf("a request that the journal has no room for: %v", err)
		}
		for _, a := range answers {
			a.Settle(ClientGone)
		}
		table.wantMetric(0, "llm_journal_bytes")
	})
}

// A request that fits its answer to the context may ask for any number of tokens, and reserves no more than the
// context.
func TestAnswerThatFitsTheContext(t *testing.T) {
	inBubble(t, Options{JournalMaxBytes: 20_000}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		for _, asked := range []*int{nil, new(100), new(api.MaxNewTokens)} {
			a := table.admit(func(r *Request) { r.Infer.FitContext, r.Infer.MaxNewTokens = true, asked })
			if s := f.last(t); !s.FitContext || (asked == nil) != (s.MaxNewTokens == 0) {
				t.Errorf("sent %+v", s)
			}
			table.serve(f, f.last(t), 1)
			a.Settle(Delivered)
		}
	})
}

// An empty system text isn't the same as none: it switches the one off that a chat template writes by itself.
func TestEmptySystemTextIsSentAsGiven(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		for _, given := range []bool{true, false} {
			a := table.admit(func(r *Request) { r.Infer.System, r.Infer.HasSystem = "", given })
			if s := f.last(t); s.HasSystem != given || s.System != "" {
				t.Errorf("given %v: sent %+v", given, s)
			}
			table.serve(f, f.last(t), 1)
			a.Settle(Delivered)
		}
	})
}

func TestConversationIsSentWhole(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		talk := []api.Message{{Role: "user", Content: "Hi"}, {Role: "assistant", Content: "Hello"}, {Role: "user", Content: "Bye"}}
		a := table.admit(func(r *Request) {
			r.Infer.Prompt, r.Infer.Messages, r.Infer.PlainSampling = "", talk, true
			r.Infer.PresencePenalty, r.Infer.FrequencyPenalty = new(float32(0.5)), new(float32(-1))
		})
		s := f.last(t)
		if !reflect.DeepEqual(s.Messages, talk) || !s.PlainSampling || *s.Sampling.PresencePenalty != 0.5 || *s.Sampling.FrequencyPenalty != -1 {
			t.Errorf("sent %+v", s)
		}
		table.serve(f, s, 1)
		a.Settle(Delivered)
	})
}

func TestQueueCapacityZero(t *testing.T) {
	table := newTableTest(t, Options{QueueMaxBytes: 1})
	table.options.QueueCapacity = 0
	table.queue = queue.New(queue.Limits{})
	if _, err := table.Admit(t.Context(), newRequest(nil)); err == nil || err.Type != api.TypeQueueFull {
		t.Errorf("without an engine: %v", err)
	}
	f := table.attach(LastExit{})
	for range maxSentWhileUnloaded {
		table.admit(nil)
	}
	if _, err := table.Admit(t.Context(), newRequest(nil)); err == nil || err.Type != api.TypeQueueFull || len(f.infers) != maxSentWhileUnloaded {
		t.Errorf("without credit: %v, %d went", err, len(f.infers))
	}
}

func TestOversizeRequestIsRefused(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		large := withPrompt(strings.Repeat("x", maxPromptBytes+1))
		waited := table.admit(large)
		f := table.attach(LastExit{})
		for _, a := range []Answer{waited, table.admit(large)} {
			table.wantAnswer(a, "", api.TypeInvalidRequest, true)
			a.Settle(Failed)
		}
		table.wantMetric(2, "llm_requests_rejected_total", "reason=invalid_request")
		a := table.admit(nil)
		table.serve(f, f.last(t), 1)
		a.Settle(Delivered)
	})
}
