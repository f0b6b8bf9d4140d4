package link

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"tandem/engine/batch"
	"tandem/engine/models"
)

func TestSamplingDefaults(t *testing.T) {
	f := func(v float32) *float32 { return &v }
	i := func(v int) *int { return &v }
	model := models.Defaults{Temperature: f(0.7), TopK: i(0)}
	for name, test := range map[string]struct {
		request samplingParams
		model   models.Defaults
		plain   bool
		want    batch.Sampling
	}{
		"plain": {samplingParams{}, models.Defaults{}, true,
			batch.Sampling{Temperature: 1, TopP: 1, RepeatPenalty: 1, PenaltyWindow: 64}},
		"plain, model": {samplingParams{topK: i(7)}, model, true,
			batch.Sampling{Temperature: 0.7, TopK: 7, TopP: 1, RepeatPenalty: 1, PenaltyWindow: 64}},
		"engine": {samplingParams{seed: 9}, models.Defaults{}, false,
			batch.Sampling{TopK: 40, TopP: 0.95, MinP: 0.05, RepeatPenalty: 1, PenaltyWindow: 64, Seed: 9}},
		"model": {samplingParams{}, model, false,
			batch.Sampling{Temperature: 0.7, TopK: 0, TopP: 0.95, MinP: 0.05, RepeatPenalty: 1, PenaltyWindow: 64}},
		"request": {samplingParams{temperature: f(0), topK: i(5), topP: f(1), minP: f(0), choice: 2}, model, false,
			batch.Sampling{TopK: 5, TopP: 1, RepeatPenalty: 1, PenaltyWindow: 64, Choice: 2}},
	} {
		got, err := test.request.resolve(&test.model, samplingDefaults(test.plain), "", 0)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: got %+v (%v), want %+v", name, got, err, test.want)
		}
	}
	nan := float32(math.NaN())
	for param, bad := range map[string]samplingParams{
		"temperature": {temperature: &nan}, "top_p": {topP: f(0)}, "min_p": {minP: f(2)}, "repeat_penalty": {repeatPenalty: f(0)},
		"top_k": {topK: i(-1)}, "penalty_window": {penaltyWindow: i(-1)}, "top_logprobs": {topLogprobs: 21},
		"presence_penalty": {presencePenalty: &nan}, "frequency_penalty": {frequencyPenalty: &nan},
		"logit_bias": {logitBias: map[batch.Token]float32{1: nan}},
	} {
		_, err := bad.resolve(&models.Defaults{}, samplingDefaults(false), "", 0)
		if field, ok := errors.AsType[*invalidFieldError](err); !ok || field.param != param {
			t.Errorf("%s: got %v", param, err)
		}
	}
}
