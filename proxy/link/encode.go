package link

import (
	"slices"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/schema"
)

// inferFrame is a submission that is encoded when its turn to be written has come.
type inferFrame struct {
	*inflight.Submission
	tools     []byte   // JSON
	toolCalls [][]byte // JSON, one a message; nil: no message has any
}

func newInferFrame(s *inflight.Submission) *inferFrame {
	f := &inferFrame{Submission: s}
	if len(s.Tools) > 0 {
		f.tools = api.AppendTools(nil, s.Tools)
	}
	for i := range s.Messages {
		if calls := s.Messages[i].ToolCalls; len(calls) > 0 {
			if f.toolCalls == nil {
				f.toolCalls = make([][]byte, len(s.Messages))
			}
			f.toolCalls[i] = api.AppendToolCalls(nil, calls)
		}
	}
	return f
}

// requestOverheadBytes is more than what a request takes in a frame besides its texts and token ids, stopOverheadBytes
// what a stop string takes besides its text.
const (
	requestOverheadBytes = 2 << 10
	stopOverheadBytes    = 16
	messageOverheadBytes = 96 // six pointers, and the ends of six texts, rounded up to words
	biasBytes            = 8
)

// Size implements wire.Later. It is never less than the frame will be.
func (s *inferFrame) Size() int {
	n := requestOverheadBytes + len(s.Prompt) + len(s.System) + len(s.JSONSchema) + 4*len(s.Generated) + 4*len(s.PromptTokens)
	n += len(s.Grammar) + len(s.tools) + len(s.ToolChoice.Name) + len(s.TemplateValues) + biasBytes*len(s.Sampling.LogitBias)
	stops := s.Stops
	if s.Rendered != nil {
		n += int(s.Rendered.Bytes())
		stops = slices.Concat(stops, s.Rendered.Stops)
	}
	for _, stop := range stops {
		n += stopOverheadBytes + len(stop)
	}
	for i := range s.Messages {
		m := &s.Messages[i]
		n += messageOverheadBytes + len(m.Role) + len(m.Content) + len(m.Reasoning) + len(m.Name) + len(m.ToolCallID)
	}
	for _, calls := range s.toolCalls {
		n += len(calls)
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
	return s.write(to)
}

// write fills in an InferRequest.
func (s *inferFrame) write(to schema.InferRequest) error {
	to.SetRaw(s.Raw)
	to.SetTask(schema.Task(s.Task))
	to.SetSplitOutput(s.SplitOutput)
	to.SetParallelToolCalls(s.ParallelCalls)
	to.SetPromptLogprobs(s.PromptLogprobs)
	to.SetIgnoreEnd(s.IgnoreEnd)
	to.SetMaxNewTokens(uint32(s.MaxNewTokens))
	to.SetFitContext(s.FitContext)
	to.SetPlainSampling(s.PlainSampling)
	to.SetTimeoutNs(uint64(max(s.Timeout, 0)))
	to.SetOwner(s.Owner)
	to.SetOwnerWeight(float32(s.OwnerWeight))
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
	w.text(to.SetGrammar, s.Grammar)
	w.data(to.SetTemplateOptions, s.TemplateValues)
	if len(s.tools) > 0 {
		w.data(to.SetTools, s.tools)
		w.data(to.SetToolChoice, api.AppendToolChoice(nil, s.ToolChoice))
	}
	if w.err != nil {
		return w.err
	}
	if err := s.writeMessages(to); err != nil {
		return err
	}
	if err := writeIDs(to.NewPromptTokens, s.PromptTokens); err != nil {
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
	if err := writeTriggers(rendered, s.Rendered.Triggers); err != nil {
		return err
	}
	w := fieldWriter{}
	w.text(rendered.SetGrammar, s.Rendered.Grammar)
	w.data(rendered.SetParserState, s.Rendered.ParserState)
	w.data(to.SetExpectRevision, s.ExpectRevision)
	return w.err
}

func writeTriggers(to schema.Rendered, triggers []inflight.Trigger) error {
	if len(triggers) == 0 {
		return nil
	}
	list, err := to.NewTriggers(int32(len(triggers)))
	if err != nil {
		return err
	}
	for i, t := range triggers {
		list.At(i).SetKind(t.Kind)
		list.At(i).SetToken(t.Token)
		if err := list.At(i).SetValue(t.Value); err != nil {
			return err
		}
	}
	return nil
}

func (s *inferFrame) writeMessages(to schema.InferRequest) error {
	if len(s.Messages) == 0 {
		return nil
	}
	list, err := to.NewMessages(int32(len(s.Messages)))
	if err != nil {
		return err
	}
	w := fieldWriter{}
	for i := range s.Messages {
		m, one := &s.Messages[i], list.At(i)
		w.text(one.SetRole, m.Role)
		w.data(one.SetContent, []byte(m.Content))
		w.data(one.SetReasoning, []byte(m.Reasoning))
		w.text(one.SetName, m.Name)
		w.text(one.SetToolCallId, m.ToolCallID)
		if s.toolCalls != nil {
			w.data(one.SetToolCalls, s.toolCalls[i])
		}
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
	out.SetWantLogprobs(s.Logprobs)
	out.SetTopLogprobs(uint8(s.TopLogprobs))
	seeds, err := out.NewSeeds(1)
	if err != nil {
		return err
	}
	seeds.Set(0, s.Seed)
	return writeLogitBias(out, s.LogitBias)
}

func writeLogitBias(out schema.Sampling, biases []api.TokenBias) error {
	if len(biases) == 0 {
		return nil
	}
	list, err := out.NewLogitBias(int32(len(biases)))
	if err != nil {
		return err
	}
	for i, b := range biases {
		list.At(i).SetToken(b.Token)
		list.At(i).SetBias(b.Bias)
	}
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
