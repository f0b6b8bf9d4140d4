package server

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/schema/parts"
)

// choice collects what came of one choice of a reply.
type choice struct {
	content   []byte
	reasoning []byte
	calls     []api.ToolCall
	arguments []byte // of the last call
	logprobs  []api.TokenLogprob
	result    *inflight.Result
	final     *api.Result // made once, when the choice is complete
	unwritten int         // tokens in events that weren't written yet
}

// add takes a piece in and appends what is new in it to deltas. The texts of deltas point into the piece.
func (c *choice) add(x *exchange, deltas []api.Delta, p *inflight.Piece) ([]api.Delta, error) {
	before := len(deltas)
	c.unwritten += p.Tokens
	c.logprobs = append(c.logprobs, p.Logprobs...)
	if p.Done {
		c.result = p.Result
	}
	if !x.request.SplitOutput {
		if len(p.Text) > 0 || len(p.Logprobs) > 0 {
			c.content = append(c.content, p.Text...)
			deltas = append(deltas, api.Delta{Choice: p.Choice, Text: p.Text, Logprobs: p.Logprobs, Tokens: p.Tokens, Took: p.Took})
		}
		return deltas, nil
	}
	for rest := p.Text; len(rest) > 0; {
		part, next, err := parts.Next(rest)
		if err != nil {
			return deltas, fmt.Errorf("read the answer from the engine: %w", err)
		}
		rest = next
		d, err := c.addPart(x.id, p.Choice, &part)
		if err != nil {
			return deltas, err
		}
		deltas = append(deltas, d)
	}
	if len(deltas) > before {
		deltas[before].Tokens, deltas[before].Took = p.Tokens, p.Took
	}
	return attachLogprobs(deltas, before, p), nil
}

func (c *choice) addPart(requestID string, at int, p *parts.Part) (api.Delta, error) {
	d := api.Delta{Choice: at, Text: p.Text}
	switch p.Kind {
	case parts.Content:
		c.content = append(c.content, p.Text...)
	case parts.Reasoning:
		d.Kind = api.DeltaReasoning
		c.reasoning = append(c.reasoning, p.Text...)
	case parts.ToolCall:
		c.endCall()
		call := api.ToolCall{ID: p.ID, Name: p.Name}
		if call.ID == "" {
			call.ID = toolCallID(requestID, at, len(c.calls))
		}
		c.calls = append(c.calls, call)
		d.Kind, d.ToolCall, d.CallAt = api.DeltaToolCall, &call, len(c.calls)-1
	case parts.Arguments:
		if len(c.calls) == 0 {
			return d, fmt.Errorf("read the answer from the engine: %w: arguments without a tool call", parts.ErrMalformed)
		}
		c.arguments = append(c.arguments, p.Text...)
		d.Kind, d.CallAt = api.DeltaToolArguments, len(c.calls)-1
	}
	return d, nil
}

// endCall moves the arguments to the last call.
func (c *choice) endCall() {
	if n := len(c.calls); n > 0 && len(c.arguments) > 0 {
		c.calls[n-1].Arguments = string(c.arguments)
		c.arguments = c.arguments[:0]
	}
}

// attachLogprobs gives the log-probabilities of a piece to its first text, or to a delta of their own.
func attachLogprobs(deltas []api.Delta, before int, p *inflight.Piece) []api.Delta {
	if len(p.Logprobs) == 0 {
		return deltas
	}
	for i := before; i < len(deltas); i++ {
		if deltas[i].Kind == api.DeltaContent {
			deltas[i].Logprobs = p.Logprobs
			return deltas
		}
	}
	return append(deltas, api.Delta{Choice: p.Choice, Logprobs: p.Logprobs})
}

// toolCallID is the id of a call to which the model gave none. It is the same whenever it is made. The client sends it
// back, and chat templates of Mistral's refuse ids that aren't nine letters and digits.
func toolCallID(requestID string, at, call int) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", requestID, at, call))
	rest := binary.BigEndian.Uint64(sum[:])
	id := make([]byte, 9)
	for i := range id {
		id[i] = digits[rest%uint64(len(digits))]
		rest /= uint64(len(digits))
	}
	return string(id)
}

// addPiece takes a piece into its choice and returns the deltas in it, which are valid until the next call.
func (x *exchange) addPiece(p *inflight.Piece) ([]api.Delta, error) {
	if x.choices == nil {
		x.choices = make([]choice, x.request.ChoiceCount())
	}
	c := &x.choices[p.Choice]
	var err error
	x.deltas, err = c.add(x, x.deltas[:0], p)
	return x.deltas, err
}

// finalResult is the whole of one choice that is complete.
func (x *exchange) finalResult(at int) *api.Result {
	c := &x.choices[at]
	if c.final != nil {
		return c.final
	}
	c.endCall()
	if x.s.opts.LogPrompts {
		x.s.log.Debug("answer", "request_id", x.id, "trace_id", x.span.TraceID(), "choice", at, "answer", string(c.content))
	}
	c.final = &api.Result{
		Text: string(c.content), Reasoning: string(c.reasoning), ToolCalls: c.calls, Logprobs: c.logprobs,
		PromptLogprobs: c.result.PromptLogprobs, Embedding: c.result.Embedding, Metadata: x.metadata(c.result),
	}
	return c.final
}

// metadata of one choice. ResponseTime is the time until now.
func (x *exchange) metadata(r *inflight.Result) api.Metadata {
	return api.Metadata{
		Model: x.answer.Model(), Version: x.answer.Version(), Stop: r.Stop, ReasoningTokens: r.ReasoningTokens,
		TokensGenerated: r.OutputTokens, PromptTokens: r.PromptTokens, CachedTokens: r.CachedTokens, Seed: r.Seed, FinishReason: api.FinishReason(r.FinishReason),
		GenerationTime: r.GenerationTime, QueueTime: r.Queue, PrefillTime: r.Prefill, DecodeTime: r.Decode, ResponseTime: x.sinceReceived(),
	}
}

// finalReply is the reply with all its choices.
func (x *exchange) finalReply() api.Reply {
	reply := api.Reply{Results: make([]api.Result, len(x.choices))}
	for i := range x.choices {
		reply.Results[i] = *x.finalResult(i)
	}
	reply.Usage = x.usage(reply.Results)
	x.result = &reply.Usage
	return reply
}

// usage adds the choices up: every prompt once, every answer. Of a prompt that several choices share, any of them may
// be the one for which it was computed.
func (x *exchange) usage(results []api.Result) api.Metadata {
	total := results[0].Metadata
	perInput := max(1, x.request.Choices)
	total.CachedTokens = 0
	for input := range slices.Chunk(results, perInput) {
		fewest := slices.MinFunc(input, func(a, b api.Result) int { return cmp.Compare(a.Metadata.CachedTokens, b.Metadata.CachedTokens) })
		total.CachedTokens += fewest.Metadata.CachedTokens
	}
	for i := range results[1:] {
		m := &results[i+1].Metadata
		total.TokensGenerated += m.TokensGenerated
		total.ReasoningTokens += m.ReasoningTokens
		total.GenerationTime += m.GenerationTime
		total.PrefillTime += m.PrefillTime
		total.DecodeTime += m.DecodeTime
		if (i+1)%perInput == 0 {
			total.PromptTokens += m.PromptTokens
		}
	}
	return total
}
