package batch

import "time"

// outbox gathers what a step produced, one Step for each sink. Its buffers are reused from step to step.
type outbox struct {
	steps []sinkStep // the first used ones are in use
	used  int
	gone  []Sink // whose receiver left, found by the last flush
}

type sinkStep struct {
	sink Sink
	step Step
}

// to returns the step under way for a sink.
func (o *outbox) to(sink Sink) *Step {
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

// flush emits every step once and leaves in gone the sinks whose receiver left.
func (o *outbox) flush(base string, took time.Duration) {
	o.gone = o.gone[:0]
	for i := range o.used {
		s := &o.steps[i]
		s.step.Base, s.step.Duration = base, took
		alive := s.sink.Emit(&s.step)
		clear(s.step.Tokens)
		clear(s.step.Done)
		s.step.Tokens, s.step.Done = s.step.Tokens[:0], s.step.Done[:0]
		if !alive {
			o.gone = append(o.gone, s.sink)
		}
		s.sink = nil
	}
	o.used = 0
}
