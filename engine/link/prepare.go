package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
)

// prepareRequest takes a request to the executor: acquire the model, render and tokenise, send accepted, submit. It
// runs on a goroutine of its own.
func (s *session) prepareRequest(r *inFlightRequest) {
	err := s.prepareAndSubmit(r)
	if err == nil {
		return
	}
	if cause := context.Cause(r.ctx); cause != nil {
		err = cause // the reason for what failed then
	} else if r.in.isReplay() {
		err = replayError(err)
	}
	s.sendEnding(r, endingFor(err))
	s.removeRequest(r)
}

func (s *session) prepareAndSubmit(r *inFlightRequest) error {
	if r.in.invalid != nil {
		return r.in.invalid
	}
	if r.in.embed.task != 0 {
		return s.prepareAndEmbed(r)
	}
	lease, err := s.acquire(r)
	if err != nil {
		return err
	}
	r.lease = lease
	if err := checkTask(0, lease); err != nil {
		return err
	}
	prompt, err := s.renderPrompt(r)
	if err != nil {
		return err
	}
	batchRequest, err := s.executorRequest(r, prompt)
	if err != nil {
		return err
	}
	if err := s.link.o.Executor.Check(batchRequest); err != nil { // a request that is refused is never accepted
		return err
	}
	stream, err := r.splitOutput(batchRequest, prompt)
	if err != nil {
		return err
	}
	if err := s.conn.Send(func(f schema.Frame) error { return writeAccepted(f, r, batchRequest, prompt) }); err != nil {
		stream.close()
		return err
	}
	if err := s.submit(r, batchRequest, stream); err != nil {
		stream.close()
		return err
	}
	s.noteSubmitted(r)
	return nil
}

// splitOutput returns the part stream of a request that wants one, else one that nobody uses, and lets the executor
// show the parser what it needs.
func (r *inFlightRequest) splitOutput(to *batch.Request, prompt models.Prompt) (*partStream, error) {
	stream := &partStream{}
	if !r.in.input.SplitOutput {
		return stream, nil
	}
	var err error
	if stream.parser, err = r.lease.Base.NewParser(prompt.Parser); err != nil {
		return nil, fmt.Errorf("make the answer's parser: %w", err)
	}
	if stream.parser != nil {
		to.Shown = stream.parser.Shown()
	}
	to.Replayed = func(text []byte) { stream.take(nil, text, 0) }
	return stream, nil
}

// submit passes a request to the executor. After an error the stream is still the caller's.
func (s *session) submit(r *inFlightRequest, to *batch.Request, stream *partStream) error {
	to.Release = func() { s.removeRequest(r) }
	if r.in.input.SplitOutput {
		if stream.parser == nil {
			r.stream = stream
		} else {
			r.parsing = newAnswerParsing(s, r, stream)
			to.Release = r.parsing.release
		}
		s.mu.Lock()
		s.splitting++
		s.mu.Unlock()
	}
	r.submittedAt = time.Now()
	if err := s.link.o.Executor.Submit(to); err != nil {
		r.submittedAt = time.Time{}
		return err
	}
	if r.parsing != nil {
		s.work.Go(r.parsing.run)
	}
	return nil
}

func (s *session) acquire(r *inFlightRequest) (*models.Lease, error) {
	version := r.in.version
	if version == "" {
		version = s.defaultVersion(r.in.model)
	}
	return s.lease(r.ctx, r.in.model, version, r.in.countCache)
}

// lease acquires a version. What was loaded for it, or couldn't be, the proxy knows before it sees what comes of it.
func (s *session) lease(ctx context.Context, model, version string, counted bool) (*models.Lease, error) {
	acquire := s.link.o.Models.AcquireReplay
	if counted {
		acquire = s.link.o.Models.Acquire
	}
	l, err := acquire(ctx, model, version)
	s.link.o.Models.AwaitEvents(ctx)
	return l, err
}

// defaultVersion is the version of a request that names none.
func (s *session) defaultVersion(model string) string {
	for _, m := range s.link.o.Catalog.Snapshot() {
		if m.Name == model {
			return m.Resolve(s.link.o.DefaultVersion)
		}
	}
	return ""
}

// renderPrompt returns the prompt's tokens, grammar and stops, the request's own stops included: those of the first
// attempt, or new ones.
func (s *session) renderPrompt(r *inFlightRequest) (models.Prompt, error) {
	if r.in.isReplay() {
		if models.SameRevision(r.in.expectRevision, r.lease.Revision) {
			return *r.in.rendered, nil
		}
		if len(r.in.generated) > 0 {
			return models.Prompt{}, errModelChanged
		}
	}
	prompt, err := s.link.render(r.ctx, r.lease.Base, r.in.input, &r.renderTime)
	prompt.Stops = slices.Concat(prompt.Stops, r.in.stops)
	return prompt, err
}

// render applies the template and tokenises. Options.Workers prompts are rendered at a time, so that the step loop
// keeps its processor; the others wait.
func (l *Link) render(ctx context.Context, base models.Base, in models.Input, took *time.Duration) (models.Prompt, error) {
	select {
	case l.renderSlots <- struct{}{}:
		defer func() { <-l.renderSlots }()
	case <-ctx.Done():
		return models.Prompt{}, context.Cause(ctx)
	}
	began := time.Now()
	in.MaxTokens = base.Facts().ContextTokens
	prompt, err := base.Render(ctx, in)
	*took = time.Since(began)
	if errors.Is(err, models.ErrPromptTooLong) {
		return prompt, &contextLengthError{param: "prompt", text: fmt.Sprintf("the prompt is longer than the model's context of %d tokens; shorten it", in.MaxTokens)}
	}
	if err != nil {
		param := "prompt"
		if in.HasSystem {
			param = "system"
		}
		return prompt, &renderError{err, constraintOf(in), param}
	}
	return prompt, nil
}

// constraintOf is the field that an answer's grammar is made of; empty: there is none.
func constraintOf(in models.Input) string {
	switch {
	case len(in.JSONSchema) > 0:
		return "json_schema"
	case in.Grammar != "":
		return "grammar"
	case len(in.Tools) > 0:
		return "tools"
	}
	return ""
}

// executorRequest makes the request for the executor.
func (s *session) executorRequest(r *inFlightRequest, prompt models.Prompt) (*batch.Request, error) {
	in := &r.in
	sampling, err := in.sampling.resolve(&r.lease.Defaults, samplingDefaults(in.plainSampling), prompt.Grammar, s.link.o.GrammarBudget)
	if err != nil {
		return nil, err
	}
	for _, t := range prompt.Triggers {
		sampling.Triggers = append(sampling.Triggers, batch.Trigger{Kind: batch.TriggerKind(t.Kind), Value: t.Value, Token: t.Token})
	}
	contextTokens := r.lease.Base.Facts().ContextTokens
	if err := checkReplayFits(len(prompt.Tokens), len(in.generated), contextTokens); err != nil {
		return nil, err
	}
	maxNewTokens, err := maxAnswerTokens(in.maxNewTokens, in.fitContext, &r.lease.Defaults, len(prompt.Tokens), contextTokens)
	if err != nil {
		return nil, err
	}
	batchRequest := &batch.Request{
		ID: r.id, Attempt: r.attempt, Base: r.lease.BaseKey,
		Prompt: prompt.Tokens, Generated: in.generated, ReplaySteps: in.replaySteps,
		MaxNewTokens: maxNewTokens, Stops: prompt.Stops, Sampling: sampling, PromptLogprobs: in.promptLogprobs,
		Owner: strconv.FormatUint(in.owner, 36), OwnerWeight: in.ownerWeight,
		Sink: s,
	}
	if r.lease.Adapter != nil {
		batchRequest.Adapter = r.lease.Adapter
	}
	if in.timeout > 0 {
		if batchRequest.Timeout = in.timeout - time.Since(r.arrived); batchRequest.Timeout <= 0 {
			return nil, errDeadline
		}
	}
	return batchRequest, nil
}

// noteSubmitted notes that the executor has the request, and cancels it there if a cancel came meanwhile.
func (s *session) noteSubmitted(r *inFlightRequest) {
	s.mu.Lock()
	r.submitted = true
	cancel := r.cancelled
	s.mu.Unlock()
	if cancel {
		s.link.o.Executor.Cancel(r.id, r.attempt)
	}
}

// sendEnding sends the summary of a request that the executor doesn't have.
func (s *session) sendEnding(r *inFlightRequest, e earlyEnding) {
	r.reason, r.errorType = e.reason.String(), e.failure.code
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
		to.SetReason(e.reason)
		to.SetOutputTokens(uint32(len(r.in.generated)))
		to.SetQueueNs(nanos(time.Since(r.arrived) - r.renderTime))
		to.SetRendererNs(nanos(r.renderTime))
		if e.reason != schema.FinishReason_error {
			return nil
		}
		failed, err := to.NewFailure()
		if err != nil {
			return err
		}
		return e.failure.write(failed)
	})
}
