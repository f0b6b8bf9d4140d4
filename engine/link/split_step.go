package link

import "tandem/engine/batch"

// splitScratch is memory of splitStep that is reused from step to step.
type splitScratch struct {
	step batch.Step
	text []byte
	ends []int // of the texts of step.Tokens in text; -1: not one of text
}

// splitStep replaces the texts of answers that are sent as a part stream. What needs a parser is taken out of the step
// and queued for the request's own goroutine. The result is valid until the next call.
func (s *session) splitStep(step *batch.Step) *batch.Step {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.splitting == 0 {
		return step
	}
	x := &s.split
	x.step.Base, x.step.Duration, x.step.Prompts = step.Base, step.Duration, step.Prompts
	x.step.Tokens, x.step.Done = x.step.Tokens[:0], x.step.Done[:0]
	x.text, x.ends = x.text[:0], x.ends[:0]
	for i := 0; i < len(step.Tokens); {
		n := sameRequest(step.Tokens[i:])
		s.splitTokens(step, step.Tokens[i:i+n])
		i += n
	}
	for i := range step.Done {
		s.splitDone(step, &step.Done[i])
	}
	x.pointTexts()
	return &x.step
}

// sameRequest is how many tokens at the beginning are of one request.
func sameRequest(tokens []batch.StepToken) int {
	n := 1
	for n < len(tokens) && tokens[n].ID == tokens[0].ID && tokens[n].Attempt == tokens[0].Attempt {
		n++
	}
	return n
}

// splitTokens takes the tokens of one request. Called with mu held.
func (s *session) splitTokens(step *batch.Step, tokens []batch.StepToken) {
	x := &s.split
	r := s.requests[attemptKey{tokens[0].ID, tokens[0].Attempt}]
	if r != nil && r.parsing != nil {
		to := parsingStep{base: step.Base, duration: step.Duration, tokens: append([]batch.StepToken(nil), tokens...)}
		for i := range step.Done {
			if d := &step.Done[i]; d.ID == tokens[0].ID && d.Attempt == tokens[0].Attempt {
				to.done = []doneSummary{s.doneOf(d)}
			}
		}
		r.parsing.add(to)
		return
	}
	for _, t := range tokens {
		end := -1
		if r != nil && r.stream != nil {
			x.text = r.stream.take(x.text, t.Text, 0)
			t.TextEnd, end = r.stream.end, len(x.text)
		}
		x.step.Tokens, x.ends = append(x.step.Tokens, t), append(x.ends, end)
	}
}

// splitDone takes a summary, unless it was queued together with its last token. Called with mu held.
func (s *session) splitDone(step *batch.Step, d *batch.Summary) {
	r := s.requests[attemptKey{d.ID, d.Attempt}]
	if r == nil || r.parsing == nil {
		s.split.step.Done = append(s.split.step.Done, *d)
		return
	}
	for i := range step.Tokens {
		if step.Tokens[i].ID == d.ID && step.Tokens[i].Attempt == d.Attempt {
			return
		}
	}
	r.parsing.add(parsingStep{base: step.Base, duration: step.Duration, done: []doneSummary{s.doneOf(d)}})
}

// pointTexts points the tokens to their texts, once those don't move any more.
func (x *splitScratch) pointTexts() {
	start := 0
	for i, end := range x.ends {
		if end >= 0 {
			x.step.Tokens[i].Text = x.text[start:end:end]
			start = end
		}
	}
}
