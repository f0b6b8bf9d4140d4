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

// prepare takes a request from its frame to the executor: model, template and tokens, accepted, submitted. It runs on a goroutine of the
// request, which ends with it.
func (s *session) prepare(r *request) {
	err := s.submit(r)
	if err == nil {
		return
	}
	if cause := context.Cause(r.ctx); cause != nil {
		err = cause // whatever failed then, this is why
	}
	s.sendEnding(r, endingOf(err))
	s.forget(r)
}

func (s *session) submit(r *request) error {
	if r.in.unsupported != "" {
		return &invalidField{r.in.unsupported, "is not supported"}
	}
	lease, err := s.acquire(r)
	if err != nil {
		return err
	}
	r.lease = lease
	prompt, err := s.rendered(r)
	if err != nil {
		return err
	}
	todo, err := s.plan(r, prompt)
	if err != nil {
		return err
	}
	if err := s.conn.Send(func(f schema.Frame) error { return writeAccepted(f, r, todo, prompt) }); err != nil {
		return err
	}
	r.handedOver = time.Now()
	if err := s.link.o.Executor.Submit(todo); err != nil {
		r.handedOver = time.Time{}
		return err
	}
	s.submitted(r)
	return nil
}

func (s *session) acquire(r *request) (*models.Lease, error) {
	version := r.in.version
	if version == "" {
		version = s.versionOf(r.in.model)
	}
	if r.in.countCache {
		return s.link.o.Models.Acquire(r.ctx, r.in.model, version)
	}
	return s.link.o.Models.AcquireReplay(r.ctx, r.in.model, version)
}

// versionOf gives the version that a request means which names none.
func (s *session) versionOf(model string) string {
	for _, m := range s.link.o.Catalog.Snapshot() {
		if m.Name == model {
			return m.Resolve(s.link.o.DefaultVersion)
		}
	}
	return ""
}

// rendered gives the prompt as tokens and what follows from it, the request's own stops included: of the first attempt, or anew.
func (s *session) rendered(r *request) (models.Prompt, error) {
	if r.in.replay() {
		if models.SameRevision(r.in.expectRevision, r.lease.Revision) {
			return *r.in.rendered, nil
		}
		if len(r.in.generated) > 0 {
			return models.Prompt{}, errModelChanged
		}
	}
	prompt, err := s.link.render(r.ctx, r.lease.Base, r.in.input, &r.prepared)
	prompt.Stops = slices.Concat(prompt.Stops, r.in.stops)
	return prompt, err
}

// render applies the template and tokenises. A few prompts are rendered at a time, so that the step loop keeps its processor; the
// others wait for a place.
func (l *Link) render(ctx context.Context, base models.Base, in models.Input, took *time.Duration) (models.Prompt, error) {
	select {
	case l.workers <- struct{}{}:
		defer func() { <-l.workers }()
	case <-ctx.Done():
		return models.Prompt{}, context.Cause(ctx)
	}
	began := time.Now()
	in.MaxTokens = base.Facts().ContextTokens
	prompt, err := base.Render(ctx, in)
	*took = time.Since(began)
	if errors.Is(err, models.ErrPromptTooLong) {
		return prompt, &errContext{"prompt", fmt.Sprintf("the prompt is longer than the model's context of %d tokens; shorten it", in.MaxTokens)}
	}
	if err != nil {
		param := "prompt"
		if in.HasSystem {
			param = "system"
		}
		return prompt, &errRender{err, in.Grammar != "" || len(in.JSONSchema) > 0, param}
	}
	return prompt, nil
}

// plan makes the executor's request.
func (s *session) plan(r *request, prompt models.Prompt) (*batch.Request, error) {
	in := &r.in
	draws, err := in.sampling.resolve(&r.lease.Defaults, prompt.Grammar, s.link.o.GrammarBudget)
	if err != nil {
		return nil, err
	}
	most, err := tokensFor(in.maxNewTokens, &r.lease.Defaults, len(prompt.Tokens), r.lease.Base.Facts().ContextTokens)
	if err != nil {
		return nil, err
	}
	todo := &batch.Request{
		ID: r.id, Attempt: r.attempt, Base: r.lease.BaseKey,
		Prompt: prompt.Tokens, Generated: in.generated, ReplaySteps: in.replaySteps,
		MaxNewTokens: most, Stops: prompt.Stops, Sampling: draws, Owner: strconv.FormatUint(in.owner, 36),
		Sink: s, Release: func() { s.forget(r) },
	}
	if r.lease.Adapter != nil {
		todo.Adapter = r.lease.Adapter
	}
	if in.timeout > 0 {
		if todo.Timeout = in.timeout - time.Since(r.arrived); todo.Timeout <= 0 {
			return nil, errDeadline
		}
	}
	return todo, nil
}

// submitted notes that the executor has the request, and cancels it there if that was asked for meanwhile.
func (s *session) submitted(r *request) {
	s.mu.Lock()
	r.submitted = true
	cancel := r.cancelled
	s.mu.Unlock()
	if cancel {
		s.link.o.Executor.Cancel(r.id, r.attempt)
	}
}

// sendEnding answers a request that the executor doesn't have.
func (s *session) sendEnding(r *request, e ending) {
	r.reason, r.failed = e.reason.String(), e.failure.code
	_ = s.conn.Send(func(f schema.Frame) error { // a lost connection is the reader's business
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
		to.SetQueueNs(nanos(time.Since(r.arrived) - r.prepared))
		to.SetRendererNs(nanos(r.prepared))
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
