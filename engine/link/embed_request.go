package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
)

// embedInput is the part of a request that is about an embedding or a score. With the zero value an answer is wanted.
type embedInput struct {
	task   models.Task
	tokens []int32 // in place of the text; nil: the text
}

func decodeEmbed(r schema.InferRequest) (embedInput, error) {
	var in embedInput
	switch r.Task() {
	case schema.Task_embed:
		in.task = models.TaskEmbed
	case schema.Task_score:
		in.task = models.TaskScore
	default:
		return in, nil
	}
	d := fieldReader{}
	in.tokens = d.int32s(r.PromptTokens())
	return in, d.err
}

// prepareAndEmbed computes an embedding or a score: acquire the model, tokenise, send accepted, wait for the result,
// send it. Such a request is never at the executor: what ends it early is its context.
func (s *session) prepareAndEmbed(r *inFlightRequest) error {
	lease, err := s.acquire(r)
	if err != nil {
		return err
	}
	r.lease = lease
	if err := checkTask(r.in.embed.task, lease); err != nil {
		return err
	}
	tokens, err := s.embedTokens(r)
	if err != nil {
		return err
	}
	if err := checkTokenCount(len(tokens), lease.Base.Facts().ContextTokens); err != nil {
		return err
	}
	accepted := &batch.Request{Prompt: tokens}
	if err := s.conn.Send(func(f schema.Frame) error { return writeAccepted(f, r, accepted, models.Prompt{Tokens: tokens}) }); err != nil {
		return err
	}
	r.submittedAt = time.Now()
	vector, err := lease.Base.Embed(r.ctx, r.in.embed.task, lease.Adapter, tokens)
	if err != nil {
		return embedError(err, lease)
	}
	s.sendEmbedding(r, len(tokens), vector)
	s.removeRequest(r)
	return nil
}

// checkTask refuses what the model can't do.
func checkTask(task models.Task, lease *models.Lease) error {
	facts := lease.Base.Facts()
	switch {
	case task == 0 && facts.EncoderOnly:
		return &taskError{lease.Model, "can't generate text: it is an encoder, which only gives embeddings or scores"}
	case task == models.TaskEmbed && !facts.Embeddings:
		return &taskError{lease.Model, "can't give embeddings: it is a reranker, which only scores documents"}
	case task == models.TaskScore && !facts.Scores:
		return &taskError{lease.Model, "can't score documents: it has no classifier for that"}
	}
	return nil
}

// taskError is the error of a request for what its model can't do.
type taskError struct{ model, text string }

func (e *taskError) Error() string { return "model " + e.model + " " + e.text }

// embedTokens returns the tokens of the request: those of the first attempt, those that the client gave, or those of
// its text.
func (s *session) embedTokens(r *inFlightRequest) ([]int32, error) {
	in, base := &r.in, r.lease.Base
	switch {
	case in.isReplay() && models.SameRevision(in.expectRevision, r.lease.Revision):
		return in.rendered.Tokens, nil
	case in.embed.task == models.TaskEmbed && in.embed.tokens != nil:
		return in.embed.tokens, nil
	}
	limit := base.Facts().ContextTokens
	var tokens []int32
	err := s.link.withRenderSlot(r.ctx, &r.renderTime, func() (err error) {
		if in.embed.task == models.TaskEmbed {
			tokens, err = base.Tokenize(r.ctx, in.input.Prompt, true, limit)
			return err
		}
		if len(in.input.Messages) != 2 {
			return &invalidFieldError{"messages", "must be a query and a document"}
		}
		tokens, err = base.ScoreTokens(r.ctx, in.input.Messages[0].Content, in.input.Messages[1].Content)
		return err
	})
	if errors.Is(err, models.ErrPromptTooLong) {
		return nil, tooLongToEmbed(limit)
	}
	return tokens, err
}

func checkTokenCount(n, limit int) error {
	switch {
	case n == 0:
		return &invalidFieldError{"prompt", "has no tokens"}
	case n > limit:
		return tooLongToEmbed(limit)
	}
	return nil
}

func tooLongToEmbed(limit int) error {
	return &contextLengthError{param: "prompt", text: fmt.Sprintf("the text is longer than the model's context of %d tokens; shorten it", limit)}
}

// embedError gives an error of Embed the words and the type that clients get.
func embedError(err error, lease *models.Lease) error {
	unknown, isUnknown := errors.AsType[*models.TokenError](err)
	switch {
	case isUnknown:
		return &invalidFieldError{"prompt", "has a token that can't be used: " + unknown.Error()}
	case errors.Is(err, models.ErrPromptTooLong):
		return tooLongToEmbed(lease.Base.Facts().ContextTokens)
	}
	return err
}

// withRenderSlot runs what tokenises. Options.Workers run at a time, so that the step loop keeps its processor; the
// others wait.
func (l *Link) withRenderSlot(ctx context.Context, took *time.Duration, call func() error) error {
	select {
	case l.renderSlots <- struct{}{}:
		defer func() { <-l.renderSlots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	began := time.Now()
	err := call()
	*took = time.Since(began)
	return err
}

// sendEmbedding sends the summary of a request whose embedding or score was computed.
func (s *session) sendEmbedding(r *inFlightRequest, tokens int, vector []float32) {
	r.reason = schema.FinishReason_stop.String()
	r.summary.PromptTokens = tokens
	r.summary.Prefill = time.Since(r.submittedAt)
	_ = s.conn.Send(func(f schema.Frame) error { // the reader notices a lost connection
		step, err := f.NewStep()
		if err != nil {
			return err
		}
		done, err := step.NewDone(1)
		if err != nil {
			return err
		}
		to := done.At(0)
		to.SetRequestId(r.id)
		to.SetAttempt(r.attempt)
		to.SetReason(schema.FinishReason_stop)
		to.SetPromptTokens(uint32(tokens))
		to.SetQueueNs(nanos(r.submittedAt.Sub(r.arrived) - r.renderTime))
		to.SetPrefillNs(nanos(r.summary.Prefill))
		to.SetRendererNs(nanos(r.renderTime))
		return to.SetEmbedding(encodeVector(vector))
	})
}

// encodeVector writes numbers as float32, little-endian.
func encodeVector(vector []float32) []byte {
	out := make([]byte, 0, 4*len(vector))
	for _, x := range vector {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	return out
}
