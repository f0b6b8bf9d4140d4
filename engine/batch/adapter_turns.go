package batch

import "slices"

// The part of the scheduler that gives adapters their turns where steps can't mix them.

// turnCost is what a step takes of its adapter's turn. One that is divided between owners takes as much as all of its
// sequences would, or the turns of other adapters would come as much later as it leaves out.
func (s *scheduler) turnCost(p *plan, adapter Adapter) int64 {
	cost := int64(p.decodes + p.promptTokens)
	if !p.divided {
		return cost
	}
	at := slices.IndexFunc(s.readyAdapters, func(c candidate[Adapter]) bool { return c.key == adapter })
	return max(cost, s.readyAdapters[at].quantum/s.stepsOfTurn)
}

// turnOf is the adapter whose turn a sequence needs: none if steps mix them.
func (s *scheduler) turnOf(q *sequence) Adapter {
	if s.limits.MixedAdapters {
		return nil
	}
	return q.req.Adapter
}

// listReadyAdapters lists the adapters that have work. A turn is worth as many steps for each, at what it can use in a
// step, so every sequence advances at a similar rate, whichever adapter it has.
func (s *scheduler) listReadyAdapters(othersWait bool) {
	s.readyAdapters, s.prompting = s.readyAdapters[:0], s.prompting[:0]
	decoding := stepWork{}
	for i := range s.slots {
		q := s.slots[i].seq
		if q == nil || q.stage != stageReady {
			continue
		}
		at := slices.IndexFunc(s.readyAdapters, func(c candidate[Adapter]) bool { return c.key == s.turnOf(q) })
		if at < 0 {
			at = len(s.readyAdapters)
			s.readyAdapters = append(s.readyAdapters, candidate[Adapter]{key: s.turnOf(q)})
		}
		if q.decoding() {
			s.readyAdapters[at].quantum++
			decoding.decodes++
			decoding.cells += q.filled
		} else {
			s.addPrompting(at, q)
		}
	}
	allowance, prompts := s.perAdapter(s.budget.allowPrompts(decoding, s.promptShare, othersWait)), 0
	for _, w := range s.prompting {
		n := min(w.tokens, s.budget.promptTokens(allowance, w.position))
		s.readyAdapters[w.adapter].quantum += int64(n)
		prompts = max(prompts, n)
	}
	s.stepsOfTurn = s.turnSteps(decoding, prompts)
	for i := range s.readyAdapters {
		s.readyAdapters[i].quantum *= s.stepsOfTurn
	}
}

// promptWork is what the adapter at a place of readyAdapters has to prefill.
type promptWork struct {
	adapter  int
	tokens   int
	position int // the largest at which one of its prompts goes on
}

func (s *scheduler) addPrompting(adapter int, q *sequence) {
	at := slices.IndexFunc(s.prompting, func(w promptWork) bool { return w.adapter == adapter })
	if at < 0 {
		at = len(s.prompting)
		s.prompting = append(s.prompting, promptWork{adapter: adapter})
	}
	w := &s.prompting[at]
	w.tokens += q.prefillTokensLeft()
	w.position = max(w.position, q.filled)
}

// turnSteps is how many steps a turn has.
func (s *scheduler) turnSteps(decoding stepWork, prompts int) int64 {
	turns := max(1, len(s.readyAdapters))
	step := s.budget.predict(stepWork{decodes: decoding.decodes / turns, prompts: prompts, cells: decoding.cells / turns})
	if step <= 0 { // not known yet
		return maxTurnSteps
	}
	return int64(max(1, min(turnTime/step, maxTurnSteps)))
}

// perAdapter divides what prompts may take in a step between the adapters with prompts, so that their turns together
// hold up the next tokens of the others by as much as one step with prompts does.
func (s *scheduler) perAdapter(a promptAllowance) promptAllowance {
	if len(s.readyAdapters) < 2 || len(s.prompting) < 2 {
		return a
	}
	return a.divide(len(s.prompting))
}
