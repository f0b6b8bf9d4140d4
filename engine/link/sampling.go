package link

import (
	"fmt"
	"math"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// Values for what neither the request nor the model sets.
const (
	defaultRepeatPenalty = 1
	defaultPenaltyWindow = 64
	defaultMaxNewTokens  = 256
)

// samplerDefaults are the values, for what neither the request nor the model sets, that depend on the client's API.
type samplerDefaults struct {
	temperature, topP, minP float32
	topK                    int
}

// samplingDefaults returns the engine's own defaults, or those of plain sampling: temperature 1 and nothing else.
func samplingDefaults(plain bool) samplerDefaults {
	if plain {
		return samplerDefaults{temperature: 1, topP: 1}
	}
	return samplerDefaults{topK: 40, topP: 0.95, minP: 0.05}
}

// samplingParams are the sampling parameters of a request; nil: not set.
type samplingParams struct {
	temperature, topP, minP, repeatPenalty, presencePenalty, frequencyPenalty *float32
	topK, penaltyWindow                                                       *int
	seed                                                                      uint64
	choice                                                                    uint32
	logprobs                                                                  bool
	topLogprobs                                                               int
	logitBias                                                                 map[batch.Token]float32
	ignoreEnd                                                                 bool
}

// resolve fills in what the request left open, from the model's defaults and then from the others, and checks the
// outcome.
func (s *samplingParams) resolve(d *models.Defaults, others samplerDefaults, grammar string, budget time.Duration) (batch.Sampling, error) {
	out := batch.Sampling{
		Temperature:      firstGiven(s.temperature, d.Temperature, others.temperature),
		TopK:             firstGiven(s.topK, d.TopK, others.topK),
		TopP:             firstGiven(s.topP, d.TopP, others.topP),
		MinP:             firstGiven(s.minP, d.MinP, others.minP),
		RepeatPenalty:    firstGiven(s.repeatPenalty, d.RepeatPenalty, defaultRepeatPenalty),
		PresencePenalty:  firstGiven(s.presencePenalty, d.PresencePenalty, 0),
		FrequencyPenalty: firstGiven(s.frequencyPenalty, d.FrequencyPenalty, 0),
		PenaltyWindow:    firstGiven(s.penaltyWindow, d.PenaltyWindow, defaultPenaltyWindow),
		Seed:             s.seed,
		Choice:           s.choice,
		Logprobs:         s.logprobs,
		TopLogprobs:      s.topLogprobs,
		LogitBias:        s.logitBias,
		IgnoreEnd:        s.ignoreEnd,
		Grammar:          grammar,
		GrammarBudget:    budget,
	}
	return out, checkSampling(&out)
}

func firstGiven[T any](request, model *T, engine T) T {
	switch {
	case request != nil:
		return *request
	case model != nil:
		return *model
	}
	return engine
}

// invalidFieldError is the error of a request with an impossible field; the proxy checks too, with better messages.
type invalidFieldError struct{ param, text string }

func (e *invalidFieldError) Error() string { return e.param + " " + e.text }

// checkSampling refuses impossible values. NaN fails every comparison, so each is written as what must hold.
func checkSampling(s *batch.Sampling) error {
	for _, c := range []struct {
		param string
		holds bool
		must  string
	}{
		{"temperature", s.Temperature >= 0 && s.Temperature <= 100, "must be 0 to 100"},
		{"top_k", s.TopK >= 0, "must be 0 or more"},
		{"top_p", s.TopP > 0 && s.TopP <= 1, "must be over 0 and at most 1"},
		{"min_p", s.MinP >= 0 && s.MinP <= 1, "must be 0 to 1"},
		{"repeat_penalty", s.RepeatPenalty > 0 && s.RepeatPenalty <= 100, "must be over 0 and at most 100"},
		{"presence_penalty", s.PresencePenalty >= -100 && s.PresencePenalty <= 100, "must be -100 to 100"},
		{"frequency_penalty", s.FrequencyPenalty >= -100 && s.FrequencyPenalty <= 100, "must be -100 to 100"},
		{"penalty_window", s.PenaltyWindow >= 0, "must be 0 or more"},
		{"top_logprobs", s.TopLogprobs <= maxTopTokens, "must be at most 20"},
	} {
		if !c.holds {
			return &invalidFieldError{c.param, c.must}
		}
	}
	for token, b := range s.LogitBias {
		if math.IsNaN(float64(b)) || math.IsInf(float64(b), 0) {
			return &invalidFieldError{"logit_bias", fmt.Sprintf("of token %d is not a finite number", token)}
		}
	}
	return nil
}
