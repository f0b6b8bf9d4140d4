package link

import (
	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
)

func writeAccepted(f schema.Frame, r *inFlightRequest, batchRequest *batch.Request, prompt models.Prompt) error {
	f.SetId(r.id)
	f.SetAttempt(r.attempt)
	to, err := f.NewAccepted()
	if err != nil {
		return err
	}
	to.SetMaxNewTokens(uint32(batchRequest.MaxNewTokens))
	to.SetCacheHit(cacheLookup(r.lease))
	w := fieldWriter{}
	w.text(to.SetModel, r.lease.Model)
	w.text(to.SetVersion, r.lease.Version)
	w.data(to.SetRevision, r.lease.Revision)
	if w.err != nil {
		return w.err
	}
	if err := writeRendered(to, batchRequest, &prompt); err != nil {
		return err
	}
	return writeSampling(to, &batchRequest.Sampling)
}

func cacheLookup(l *models.Lease) schema.CacheLookup {
	switch {
	case !l.Counted:
		return schema.CacheLookup_uncounted
	case l.Hit:
		return schema.CacheLookup_hit
	}
	return schema.CacheLookup_miss
}

func writeRendered(to schema.Accepted, batchRequest *batch.Request, prompt *models.Prompt) error {
	rendered, err := to.NewRendered()
	if err != nil {
		return err
	}
	ids, err := rendered.NewPromptTokens(int32(len(batchRequest.Prompt)))
	if err != nil {
		return err
	}
	for i, id := range batchRequest.Prompt {
		ids.Set(i, id)
	}
	stops, err := rendered.NewStops(int32(len(batchRequest.Stops)))
	if err != nil {
		return err
	}
	for i, text := range batchRequest.Stops {
		if err := stops.Set(i, text); err != nil {
			return err
		}
	}
	w := fieldWriter{}
	w.text(rendered.SetGrammar, prompt.Grammar)
	w.data(rendered.SetParserState, prompt.Parser)
	if w.err != nil || len(prompt.Triggers) == 0 {
		return w.err
	}
	triggers, err := rendered.NewTriggers(int32(len(prompt.Triggers)))
	if err != nil {
		return err
	}
	for i, t := range prompt.Triggers {
		triggers.At(i).SetKind(uint8(t.Kind))
		triggers.At(i).SetToken(t.Token)
		if err := triggers.At(i).SetValue(t.Value); err != nil {
			return err
		}
	}
	return nil
}

// allPresent marks the first eight fields of Sampling as set.
const allPresent = 1<<8 - 1

func writeSampling(to schema.Accepted, s *batch.Sampling) error {
	out, err := to.NewSampling()
	if err != nil {
		return err
	}
	out.SetPresent(allPresent)
	out.SetTemperature(s.Temperature)
	out.SetTopK(int32(s.TopK))
	out.SetTopP(s.TopP)
	out.SetMinP(s.MinP)
	out.SetRepeatPenalty(s.RepeatPenalty)
	out.SetPresencePenalty(s.PresencePenalty)
	out.SetFrequencyPenalty(s.FrequencyPenalty)
	out.SetPenaltyWindow(int32(s.PenaltyWindow))
	out.SetChoice(s.Choice)
	out.SetWantLogprobs(s.Logprobs)
	out.SetTopLogprobs(uint8(s.TopLogprobs))
	seeds, err := out.NewSeeds(1)
	if err != nil {
		return err
	}
	seeds.Set(0, s.Seed)
	bias, err := out.NewLogitBias(int32(len(s.LogitBias)))
	if err != nil {
		return err
	}
	i := 0
	for token, b := range s.LogitBias {
		bias.At(i).SetToken(token)
		bias.At(i).SetBias(b)
		i++
	}
	return nil
}
