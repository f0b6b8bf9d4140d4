package batch

// The part of the scheduler that lets a prompt wait for a beginning which another one is computing: several choices of
// one request, or requests with the same system text that come together. A sequence that waits has its slot already, so
// it keeps its place and others pass it; when its leader has computed the beginning, or ends, or is preempted, it is
// placed again as if it had just come.

// nextOverWait is the oldest sequence whose wait for another's cells is over; nil: there is none.
func (s *scheduler) nextOverWait() *sequence {
	var oldest *sequence
	for i := range s.slots {
		if q := s.slots[i].seq; q != nil && s.waitIsOver(q) && (oldest == nil || q.arrival < oldest.arrival) {
			oldest = q
		}
	}
	return oldest
}

// waitIsOver reports whether a sequence awaits cells that are there now, or that its leader computes no more.
func (s *scheduler) waitIsOver(q *sequence) bool {
	if q.stage != stageAwaiting {
		return false
	}
	return s.slots[q.leader.slot].seq != q.leader || q.leader.filled >= q.awaitedTokens
}

// prefixInPrefill finds the sequence whose prefill will have computed the longest prefix of q, and how long that is.
// Only one that needs nobody's cells itself is waited for, so nobody waits in a circle.
func (s *scheduler) prefixInPrefill(q *sequence) (leader *sequence, common int) {
	if !s.limits.Prefix || s.copyFailed {
		return nil, 0
	}
	most := q.reusableTokens()
	for i := range s.slots {
		o := s.slots[i].seq
		if o == nil || o.stage != stageReady || o.req.Adapter != q.req.Adapter || o.decoding() {
			continue
		}
		if o.wantsScores() || o.req.Owner != q.req.Owner && s.use.severalLately(s.use.at) { // it may take many steps
			continue
		}
		n := commonPrefix(o.tokens[:o.filled+o.prefillTokensLeft()], q.tokens[:most])
		if n > common {
			leader, common = o, n
		}
	}
	return leader, common
}

// worthAwaiting reports whether a sequence should wait for tokens that another one computes. Waiting holds up this
// sequence by about a step; computing them twice holds up every sequence in a slot by what they cost.
func (s *scheduler) worthAwaiting(tokens int) bool {
	if tokens < max(minReuseTokens, s.limits.CopyTokens) {
		return false
	}
	active, decoding := 1, stepWork{}
	for i := range s.slots {
		if q := s.slots[i].seq; q != nil && q.stage != stageAwaiting {
			active++
			if q.decoding() {
				decoding.decodes++
				decoding.cells += q.filled
			}
		}
	}
	cost := &s.budget.cost
	return float64(active)*cost.prompt(0, tokens) >= cost.predict(decoding)
}

// noteNeeds notes for each sequence what others await from it.
func (s *scheduler) noteNeeds() {
	for i := range s.slots {
		if q := s.slots[i].seq; q != nil {
			q.neededTokens = 0
		}
	}
	for i := range s.slots {
		q := s.slots[i].seq
		if q == nil || q.stage != stageAwaiting {
			continue
		}
		if l := q.leader; l.neededTokens == 0 || q.awaitedTokens < l.neededTokens {
			l.neededTokens = q.awaitedTokens
		}
	}
}

// urgency is how many tokens are left until the sequence, or one that waits for it, has what it wants.
func (s *sequence) urgency() int {
	left := s.prefillTokensLeft()
	if s.neededTokens > s.filled {
		return min(left, s.neededTokens-s.filled)
	}
	return left
}
