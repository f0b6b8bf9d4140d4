package link

import (
	"fmt"
	"math"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// What applies when neither the request nor the model says anything.
const (
	defaultTemperature   = 0
	defaultTopK          = 40
	defaultTopP          = 0.95
	defaultMinP          = 0.05
	defaultRepeatPenalty = 1
	defaultPenaltyWindow = 64
	defaultMaxNewTokens  = 256
)

// sampling is what a request says about drawing; nil: nothing.
type sampling struct {
	temperature, topP, minP, repeatPenalty, presencePenalty, frequencyPenalty *float32
	topK, penaltyWindow                                                       *int
	seed                                                                      uint64
	choice                                                                    uint32
	logprobs                                                                  bool
	topLogprobs                                                               int
	bias                                                                      map[batch.Token]float32
}

// resolve fills in what the request left open, from the model's defaults and then from the engine's, and checks the outcome.
func (s *sampling) resolve(d *models.Defaults, grammar string, budget time.Duration) (batch.Sampling, error) {
	out := batch.Sampling{
		Temperature:      first(s.temperature, d.Temperature, defaultTemperature),
		TopK:             first(s.topK, d.TopK, defaultTopK),
		TopP:             first(s.topP, d.TopP, defaultTopP),
		MinP:             first(s.minP, d.MinP, defaultMinP),
		RepeatPenalty:    first(s.repeatPenalty, d.RepeatPenalty, defaultRepeatPenalty),
		PresencePenalty:  first(s.presencePenalty, d.PresencePenalty, 0),
		FrequencyPenalty: first(s.frequencyPenalty, d.FrequencyPenalty, 0),
		PenaltyWindow:    first(s.penaltyWindow, d.PenaltyWindow, defaultPenaltyWindow),
		Seed:             s.seed,
		Choice:           s.choice,
		Logprobs:         s.logprobs,
		TopLogprobs:      s.topLogprobs,
		LogitBias:        s.bias,
		Grammar:          grammar,
		GrammarBudget:    budget,
	}
	return out, check(&out)
}

func first[T any](request, model *T, engine T) T {
	switch {
	case request != nil:
		return *request
	case model != nil:
		return *model
	}
	return engine
}

// invalidField is a request that can't be right; the proxy checks as well, with nicer words.
type invalidField struct{ param, text string }

func (e *invalidField) Error() string { return e.param + " " + e.text }

// check refuses what no sampler could obey. NaN fails every comparison, so each is written as what must hold.
func check(s *batch.Sampling) error {
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
			return &invalidField{c.param, c.must}
		}
	}
	for token, b := range s.LogitBias {
		if math.IsNaN(float64(b)) {
			return &invalidField{"logit_bias", fmt.Sprintf("of token %d is not a number", token)}
		}
	}
	return nil
}

// errContext is a request that the model's context can't hold.
type errContext struct{ param, text string }

func (e *errContext) Error() string { return e.text }

// tokensFor decides how long the answer may become: what was asked for, cut to what the prompt leaves of the context. given 0: not asked.
func tokensFor(given int, d *models.Defaults, promptTokens, contextTokens int) (int, error) {
	if given > contextTokens {
		return 0, &errContext{"max_new_tokens", fmt.Sprintf("max_new_tokens is %d, the context holds %d tokens", given, contextTokens)}
	}
	if promptTokens >= contextTokens {
		return 0, &errContext{"prompt", fmt.Sprintf("the prompt has %d tokens, the context of %d leaves no room for an answer", promptTokens, contextTokens)}
	}
	if given == 0 {
		given = defaultMaxNewTokens
		if d.MaxNewTokens != nil {
			given = *d.MaxNewTokens
		}
	}
	return min(given, contextTokens-promptTokens), nil
}
