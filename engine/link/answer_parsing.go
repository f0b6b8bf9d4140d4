package link

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"tandem/engine/batch"
)

// answerParsing parses one answer on a goroutine of its own, since a parser may take longer than the step loop can
// wait. It sends the answer's tokens and its summary itself, in order. What waits for it is bounded by the answer's
// length.
type answerParsing struct {
	session *session
	request *inFlightRequest
	stream  *partStream
	wake    chan struct{} // a place for one: there is something to do

	mu       sync.Mutex
	waiting  []parsingStep
	released bool // the executor is done with the request
	ended    bool // the goroutine has ended
}

// parsingStep is what one decode step has for a request.
type parsingStep struct {
	base     string
	duration time.Duration
	tokens   []batch.StepToken
	done     []doneSummary // one or none
}

func newAnswerParsing(s *session, r *inFlightRequest, stream *partStream) *answerParsing {
	return &answerParsing{session: s, request: r, stream: stream, wake: make(chan struct{}, 1)}
}

// add queues what a step has for the request; the texts are copied. The step loop calls it.
func (p *answerParsing) add(step parsingStep) {
	for i := range step.tokens {
		t := &step.tokens[i]
		t.Text, t.Top = bytes.Clone(t.Text), slices.Clone(t.Top)
	}
	p.mu.Lock()
	p.waiting = append(p.waiting, step)
	p.mu.Unlock()
	p.signal()
}

// release ends the request once everything that waits is sent. The step loop calls it, or a preparation that failed.
func (p *answerParsing) release() {
	p.mu.Lock()
	p.released = true
	ended := p.ended
	p.mu.Unlock()
	if ended {
		p.session.removeRequest(p.request)
		return
	}
	p.signal()
}

func (p *answerParsing) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run parses and sends until the executor has released the request or the connection is lost.
func (p *answerParsing) run() {
	defer p.stream.close()
	for {
		select {
		case <-p.wake:
		case <-p.session.ctx.Done():
		}
		steps, released, lost := p.next()
		if !lost {
			for i := range steps {
				p.send(&steps[i])
			}
		}
		if released {
			p.session.removeRequest(p.request)
		}
		if released || lost {
			return
		}
	}
}

// next returns what waits, and whether nothing will come any more or nobody is there to get it.
func (p *answerParsing) next() (steps []parsingStep, released, lost bool) {
	lost = p.session.ctx.Err() != nil
	p.mu.Lock()
	defer p.mu.Unlock()
	steps, p.waiting = p.waiting, nil
	p.ended = p.released || lost
	return steps, p.released, lost
}

// send sends one step with the part stream in place of the texts.
func (p *answerParsing) send(step *parsingStep) {
	f := stepFrames.Get().(*stepFrame)
	f.base, f.duration = step.base, step.duration
	reason := answerEnd(step.done)
	for i := range step.tokens {
		t := &step.tokens[i]
		end := batch.FinishReason(0)
		if i == len(step.tokens)-1 {
			end = reason
		}
		t.Text = p.stream.take(nil, t.Text, end)
		t.TextEnd = p.stream.end
	}
	f.copyTokens(step.tokens)
	if choice := p.request.in.sampling.choice; choice != 0 {
		for range step.tokens {
			f.choices = append(f.choices, choice)
		}
	}
	for i := range step.done {
		step.done[i].reasoningTokens = p.stream.reasoning
	}
	f.done = append(f.done, step.done...)
	_ = p.session.conn.SendLater(f) // the reader notices a lost connection
}

// answerEnd is how an answer ends in a step; 0 if it goes on.
func answerEnd(done []doneSummary) batch.FinishReason {
	if len(done) == 0 {
		return 0
	}
	return done[0].Reason
}
