package batch

import "time"

// outbox gathers what a step produced, one Step for each sink. Its buffers are reused from step to step.
type outbox struct {
	steps     []sinkStep // the first used ones are in use
	used      int
	goneSinks []Sink // their receivers are gone, as the last flush found
}

type sinkStep struct {
	sink Sink
	step Step
}

// stepFor returns the step that is being gathered for a sink.
func (o *outbox) stepFor(sink Sink) *Step {
	for i := range o.used {
		if o.steps[i].sink == sink {
			return &o.steps[i].step
		}
	}
	if o.used == len(o.steps) {
		o.steps = append(o.steps, sinkStep{})
	}
	o.steps[o.used].sink = sink
	o.used++
	return &o.steps[o.used-1].step
}

// flush emits every step once and collects in goneSinks the sinks whose receiver is gone.
func (o *outbox) flush(base string, took time.Duration) {
	o.goneSinks = o.goneSinks[:0]
	for i := range o.used {
		s := &o.steps[i]
		s.step.Base, s.step.Duration = base, took
		alive := s.sink.Emit(&s.step)
		clear(s.step.Prompts)
		clear(s.step.Tokens)
		clear(s.step.Done)
		s.step.Prompts, s.step.Tokens, s.step.Done = s.step.Prompts[:0], s.step.Tokens[:0], s.step.Done[:0]
		if !alive {
			o.goneSinks = append(o.goneSinks, s.sink)
		}
		s.sink = nil
	}
	o.used = 0
}
