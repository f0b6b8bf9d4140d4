package link

import (
	"slices"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/schema"
)

// inferFrame is a submission that is encoded when its turn to be written has come.
type inferFrame inflight.Submission

// requestOverheadBytes is more than what a request takes in a frame besides its texts and token ids, stopOverheadBytes
// what a stop string takes besides its text.
const (
	requestOverheadBytes = 2 << 10
	stopOverheadBytes    = 16
	messageOverheadBytes = 64 // five pointers, and the ends of role and content, rounded up to words
)

// Size implements wire.Later. It is never less than the frame will be.
func (s *inferFrame) Size() int {
	n := requestOverheadBytes + len(s.Prompt) + len(s.System) + len(s.JSONSchema) + 4*len(s.Generated)
	stops := s.Stops
	if s.Rendered != nil {
		n += 4*len(s.Rendered.PromptTokens) + len(s.Rendered.Grammar) + len(s.Rendered.ParserState)
		stops = slices.Concat(stops, s.Rendered.Stops)
	}
	for _, stop := range stops {
		n += stopOverheadBytes + len(stop)
	}
	for _, m := range s.Messages {
		n += messageOverheadBytes + len(m.Role) + len(m.Content)
	}
	return n
}

// Release implements wire.Later.
func (s *inferFrame) Release() {}

// Build implements wire.Later. A replay carries the prompt's text as well: an engine whose model has changed renders it
// again when no token was generated.
func (s *inferFrame) Build(f schema.Frame) error {
	f.SetId(s.ID)
	f.SetAttempt(s.Attempt)
	to, err := f.NewInfer()
	if err != nil {
		return err
	}
	to.SetRaw(s.Raw)
	to.SetMaxNewTokens(uint32(s.MaxNewTokens))
	to.SetFitContext(s.FitContext)
	to.SetPlainSampling(s.PlainSampling)
	to.SetTimeoutNs(uint64(max(s.Timeout, 0)))
	to.SetOwner(s.Owner)
	w := fieldWriter{}
	w.text(to.SetModel, s.Model)
	w.text(to.SetVersion, s.Version)
	w.text(to.SetTraceparent, s.Traceparent)
	w.text(to.SetRequestKey, s.RequestID)
	w.data(to.SetPrompt, []byte(s.Prompt))
	if s.HasSystem && s.System == "" && w.err == nil { // its presence tells the template not to add its own
		w.err = to.SetSystem([]byte{})
	}
	w.data(to.SetSystem, []byte(s.System))
	w.data(to.SetJsonSchema, s.JSONSchema)
	if w.err != nil {
		return w.err
	}
	if err := writeMessages(to, s.Messages); err != nil {
		return err
	}
	if err := writeTexts(to.NewStops, s.Stops); err != nil {
		return err
	}
	if err := writeSampling(to, &s.Sampling); err != nil {
		return err
	}
	return s.writeReplay(to)
}

func (s *inferFrame) writeReplay(to schema.InferRequest) error {
	if s.Rendered == nil {
		return nil
	}
	to.SetCountCache(false)
	to.SetReplay(schema.ReplayMode_prefill)
	if s.ReplaySteps {
		to.SetReplay(schema.ReplayMode_decode)
	}
	if err := writeIDs(to.NewGenerated, s.Generated); err != nil {
		return err
	}
	rendered, err := to.NewRendered()
	if err != nil {
		return err
	}
	if err := writeIDs(rendered.NewPromptTokens, s.Rendered.PromptTokens); err != nil {
		return err
	}
	if err := writeTexts(rendered.NewStops, s.Rendered.Stops); err != nil {
		return err
	}
	w := fieldWriter{}
	w.text(rendered.SetGrammar, s.Rendered.Grammar)
	w.data(rendered.SetParserState, s.Rendered.ParserState)
	w.data(to.SetExpectRevision, s.ExpectRevision)
	return w.err
}

func writeMessages(to schema.InferRequest, messages []api.Message) error {
	if len(messages) == 0 {
		return nil
	}
	list, err := to.NewMessages(int32(len(messages)))
	if err != nil {
		return err
	}
	w := fieldWriter{}
	for i, m := range messages {
		one := list.At(i)
		w.text(one.SetRole, m.Role)
		w.data(one.SetContent, []byte(m.Content))
	}
	return w.err
}

// writeSampling sets what was given and marks it as present.
func writeSampling(to schema.InferRequest, s *inflight.Sampling) error {
	out, err := to.NewSampling()
	if err != nil {
		return err
	}
	present := uint32(0)
	setOptional(&present, 0, s.Temperature, out.SetTemperature)
	setOptional(&present, 1, s.TopK, out.SetTopK)
	setOptional(&present, 2, s.TopP, out.SetTopP)
	setOptional(&present, 3, s.MinP, out.SetMinP)
	setOptional(&present, 4, s.RepeatPenalty, out.SetRepeatPenalty)
	setOptional(&present, 5, s.PresencePenalty, out.SetPresencePenalty)
	setOptional(&present, 6, s.FrequencyPenalty, out.SetFrequencyPenalty)
	out.SetPresent(present)
	out.SetChoice(s.Choice)
	seeds, err := out.NewSeeds(1)
	if err != nil {
		return err
	}
	seeds.Set(0, s.Seed)
	return nil
}

// setOptional sets a field that was given and marks it as present.
func setOptional[T any](present *uint32, ordinal int, v *T, set func(T)) {
	if v != nil {
		*present |= 1 << ordinal
		set(*v)
	}
}

func writeIDs[L interface{ Set(int, int32) }](alloc func(int32) (L, error), ids []int32) error {
	if len(ids) == 0 {
		return nil
	}
	list, err := alloc(int32(len(ids)))
	if err != nil {
		return err
	}
	for i, id := range ids {
		list.Set(i, id)
	}
	return nil
}

func writeTexts[L interface{ Set(int, string) error }](alloc func(int32) (L, error), texts []string) error {
	if len(texts) == 0 {
		return nil
	}
	list, err := alloc(int32(len(texts)))
	if err != nil {
		return err
	}
	for i, text := range texts {
		if err := list.Set(i, text); err != nil {
			return err
		}
	}
	return nil
}

// fieldWriter sets fields and keeps the first error of several setters. It leaves out empty values: they read the same.
type fieldWriter struct{ err error }

func (w *fieldWriter) text(set func(string) error, v string) {
	if w.err == nil && v != "" {
		w.err = set(v)
	}
}

func (w *fieldWriter) data(set func([]byte) error, v []byte) {
	if w.err == nil && len(v) > 0 {
		w.err = set(v)
	}
}
