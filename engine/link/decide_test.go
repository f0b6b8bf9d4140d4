package link

import (
	"errors"
	"fmt"
	"math"
	"testing"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
)

// setUnknown makes a call of a later schema.
func setUnknown(c schema.Call) { capnp.Struct(c).SetUint16(0, 77) }

func TestSamplingDefaults(t *testing.T) {
	f := func(v float32) *float32 { return &v }
	i := func(v int) *int { return &v }
	model := models.Defaults{Temperature: f(0.7), TopK: i(0)}
	for name, test := range map[string]struct {
		request sampling
		model   models.Defaults
		want    batch.Sampling
	}{
		"engine": {sampling{seed: 9}, models.Defaults{},
			batch.Sampling{TopK: 40, TopP: 0.95, MinP: 0.05, RepeatPenalty: 1, PenaltyWindow: 64, Seed: 9}},
		"model": {sampling{}, model,
			batch.Sampling{Temperature: 0.7, TopK: 0, TopP: 0.95, MinP: 0.05, RepeatPenalty: 1, PenaltyWindow: 64}},
		"request": {sampling{temperature: f(0), topK: i(5), topP: f(1), minP: f(0), choice: 2}, model,
			batch.Sampling{TopK: 5, TopP: 1, RepeatPenalty: 1, PenaltyWindow: 64, Choice: 2}},
	} {
		got, err := test.request.resolve(&test.model, "", 0)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: got %+v (%v), want %+v", name, got, err, test.want)
		}
	}
	nan := float32(math.NaN())
	for param, bad := range map[string]sampling{
		"temperature": {temperature: &nan}, "top_p": {topP: f(0)}, "min_p": {minP: f(2)}, "repeat_penalty": {repeatPenalty: f(0)},
		"top_k": {topK: i(-1)}, "penalty_window": {penaltyWindow: i(-1)}, "top_logprobs": {topLogprobs: 21},
		"presence_penalty": {presencePenalty: &nan}, "frequency_penalty": {frequencyPenalty: &nan},
		"logit_bias": {bias: map[batch.Token]float32{1: nan}},
	} {
		_, err := bad.resolve(&models.Defaults{}, "", 0)
		if field, ok := errors.AsType[*invalidField](err); !ok || field.param != param {
			t.Errorf("%s: got %v", param, err)
		}
	}
}

func TestTokensFor(t *testing.T) {
	ten := 10
	for name, test := range map[string]struct {
		given, prompt int
		model         models.Defaults
		want          int
		param         string
	}{
		"default":              {0, 10, models.Defaults{}, 256, ""},
		"default cut":          {0, 400, models.Defaults{}, 112, ""},
		"model's default":      {0, 10, models.Defaults{MaxNewTokens: &ten}, 10, ""},
		"given":                {7, 10, models.Defaults{MaxNewTokens: &ten}, 7, ""},
		"given and cut":        {500, 100, models.Defaults{}, 412, ""},
		"as large as context":  {512, 1, models.Defaults{}, 511, ""},
		"larger than context":  {513, 1, models.Defaults{}, 0, "max_new_tokens"},
		"no room":              {1, 512, models.Defaults{}, 0, "prompt"},
		"prompt over context":  {1, 600, models.Defaults{}, 0, "prompt"},
		"one token of room":    {5, 511, models.Defaults{}, 1, ""},
		"negative can't occur": {0, 0, models.Defaults{}, 256, ""},
	} {
		got, err := tokensFor(test.given, &test.model, test.prompt, 512)
		tight, _ := errors.AsType[*errContext](err)
		if got != test.want || (test.param != "") != (tight != nil) || tight != nil && tight.param != test.param {
			t.Errorf("%s: got %d (%v), want %d %q", name, got, err, test.want, test.param)
		}
	}
}

func TestEndings(t *testing.T) {
	for _, test := range []struct {
		err    error
		reason schema.FinishReason
		code   string
	}{
		{errCancelled, schema.FinishReason_cancelled, ""},
		{errLost, schema.FinishReason_cancelled, ""},
		{errDeadline, schema.FinishReason_deadline, ""},
		{errMoved, schema.FinishReason_movedAway, ""},
		{models.ErrClosed, schema.FinishReason_movedAway, ""},
		{batch.ErrClosed, schema.FinishReason_movedAway, ""},
		{models.ErrModelBusy, schema.FinishReason_error, "model_busy"},
		{batch.ErrTooMany, schema.FinishReason_error, "queue_full"},
		{batch.ErrContextExceeded, schema.FinishReason_error, "context_length_exceeded"},
		{batch.ErrGrammarTooComplex, schema.FinishReason_error, "grammar_too_complex"},
		{batch.ErrUnknownBase, schema.FinishReason_error, "internal"},
		{errModelChanged, schema.FinishReason_error, "model_changed"},
		{&errRender{errors.New("template"), false, "prompt"}, schema.FinishReason_error, "internal"},
		{&errRender{fmt.Errorf("%w: no system role", models.ErrMessages), true, "system"}, schema.FinishReason_error, "invalid_request"},
		{&errRender{models.ErrPromptTooLong, true, "prompt"}, schema.FinishReason_error, "context_length_exceeded"},
	} {
		got := endingOf(fmt.Errorf("wrapped: %w", test.err))
		if got.reason != test.reason || got.failure.code != test.code {
			t.Errorf("%v: got %v %q, want %v %q", test.err, got.reason, got.failure.code, test.reason, test.code)
		}
	}
}

func TestClientsAreToldWhatIsWrongWithAModel(t *testing.T) {
	broken := errors.New("open /srv/models/m/model.gguf: bad")
	for _, test := range []struct {
		err       models.LoadError
		text      string
		retryable bool
	}{
		{models.LoadError{Reason: models.ReasonBadFormat, What: "m@v1", Err: broken, Public: "model.gguf: bad"}, "m@v1 can't be loaded: bad_format: model.gguf: bad", false},
		{models.LoadError{Reason: models.ReasonBadFormat, What: "m@v1", Err: broken}, "m@v1 can't be loaded: bad_format", false},
		{models.LoadError{Reason: models.ReasonOther, What: "m@v1", Err: broken, Public: "open model.gguf: bad"}, "m@v1 can't be loaded: other", true}, // a disk, say
		{models.LoadError{Reason: models.ReasonAdapterMismatch, What: "m@v1", Err: broken, Public: "bad"}, "m@v1 can't be loaded: adapter_mismatch: bad", false},
		{models.LoadError{Reason: models.ReasonTimeout, What: "m@v1", Err: broken}, "m@v1 can't be loaded: timeout", true},
		{models.LoadError{Reason: models.ReasonOutOfMemory, What: "m@v1", Err: broken}, "m@v1 can't be loaded: out_of_memory", true},
	} {
		if got := endingOf(&test.err).failure; got.text != test.text || got.retryable != test.retryable {
			t.Errorf("%s: %+v", test.text, got)
		}
	}
}

func TestRingForgetsTheOldest(t *testing.T) {
	var r ring
	n := uint64(len(r.keys))
	for id := range 2 * n {
		r.add(key{id + 1, 1})
		r.add(key{id + 1, 1})
	}
	if len(r.used) != int(n) {
		t.Errorf("keeps %d", len(r.used))
	}
	if r.take(key{n, 1}) || !r.take(key{n + 1, 1}) || r.take(key{n + 1, 1}) || !r.take(key{2 * n, 1}) {
		t.Error("kept the wrong ones")
	}
}
