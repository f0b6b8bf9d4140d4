package batch

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// The part of the scheduler that divides steps between owners. Where each sequence of a step costs time, as on a CPU,
// an owner with many of them would slow down one with few by as many times, however fairly they got their slots. So the
// owners with the least to compute, for their weights, are in each step, and the others get as much time beside them as
// their share of the weights is: what a processor that is shared by time would give them. Owners that used less than
// their share lately wait less than that, for some seconds. Where sequences cost next to nothing, as on a GPU that
// isn't full, all fit into a step.

const (
	// leastStretch: owners that used little lately find their steps this much longer than alone, on average.
	leastStretch = 4.0 / 3
	// leastGain: the others get this part of the time of light owners beside it at least, whatever their weights: they
	// keep their slots and cells until they end.
	leastGain = 1.0 / 16
	// longestStretch: the others save up their time until they make a step this much longer, or have time for all that
	// they have: many sequences in a step are cheaper than one by one. The gaps between tokens of an answer then have a
	// p99 of so many times their median.
	longestStretch = 3.0
	// sharedPromptShare is promptShare while several owners had something to compute in the last seconds, whoever has
	// now: one that comes back waits for the end of the step that it finds.
	sharedPromptShare = 0.5
	// alikeFactor: owners with up to so much more to compute than the lightest one are in each step, too.
	alikeFactor = 1.5
)

// ownerPart is what one owner has for a step.
type ownerPart struct {
	owner       string
	weight      float64
	decoders    []*sequence
	work        stepWork // of all decoders
	promptNs    float64  // what a step beside these would have of its prompts
	prompts     int
	promptCells int // that its prompts will have
	light       bool
	rows        int  // decoders in the step
	canMove     bool // it has decoders, or prompts
}

// ownerDivision is how a step is divided. The zero value is a step that isn't.
type ownerDivision struct {
	divided  bool
	promptNs float64 // for prompts of light owners
	aloneNs  float64 // for everything of light owners
	othersNs float64 // for everything of the others; 0: the step has nothing of them
}

// divideBetweenOwners removes from the collected decoders those that must wait for a later step.
func (s *scheduler) divideBetweenOwners(now time.Duration) ownerDivision {
	if !s.severalOwners() || !s.budget.promptSeen {
		s.forgetSavings()
		return ownerDivision{}
	}
	s.listOwners()
	s.markLight()
	light, others, used, saved := ownerPart{}, ownerPart{}, 0.0, s.othersNs
	for i := range s.owners {
		o := &s.owners[i]
		if !o.light {
			others.add(o)
			continue
		}
		light.add(o)
		used += s.use.of(o.owner, now)
	}
	d := ownerDivision{divided: others.weight > 0, promptNs: light.promptNs, aloneNs: s.aloneNs(&light)}
	if !d.divided || d.aloneNs <= 0 { // no time can be divided before anything is known to cost some
		s.forgetSavings()
		return ownerDivision{}
	}
	gain := max(leastGain, stretch(used, light.weight/(light.weight+others.weight))-1) * d.aloneNs
	least := s.leastForOthers(&light, &others, d.aloneNs)
	most := max(least, gain)
	s.othersNs = max(s.othersNs, min(s.othersNs+gain, most))
	if light.prompts == 0 {
		saved = s.othersNs + gain/2 // in the step that is nearest to when they have it
	} // a first token needn't wait for what is saved up meanwhile
	if saved >= least || !light.canMove {
		d.othersNs = max(min(s.othersNs, most), least)
	}
	s.chooseRows(d, others.promptNs)
	return d
}

// forgetSavings is called where there is nobody to share with. Other adapters' turns may have somebody.
func (s *scheduler) forgetSavings() {
	if len(s.readyAdapters) < 2 {
		s.othersNs = 0
	}
}

// leastForOthers is the time for which owners that aren't in each step wait: for all of their decoders and the prompts
// beside these, or prompts if they have no other work, as far as that makes no step too long.
func (s *scheduler) leastForOthers(light, others *ownerPart, aloneNs float64) float64 {
	need := s.budget.cost.predict(light.work.plus(others.work)) - s.budget.cost.predict(light.work)
	if need += min(others.promptNs, s.undividedPromptShare*need); others.work == (stepWork{}) {
		need = others.promptNs
	}
	return min(need, (longestStretch-1)*aloneNs)
}

// add adds what another owner has.
func (o *ownerPart) add(p *ownerPart) {
	o.weight += p.weight
	o.work = o.work.plus(p.work)
	o.prompts += p.prompts
	o.promptNs += p.promptNs
	o.canMove = o.canMove || p.canMove
}

// markLight finds the owners with the least to decode for their weights, now or when their prompts are computed.
func (s *scheduler) markLight() {
	least := math.Inf(1)
	for i := range s.owners {
		least = min(least, s.decodingNs(&s.owners[i])/s.owners[i].weight)
	}
	for i := range s.owners {
		s.owners[i].light = s.decodingNs(&s.owners[i])/s.owners[i].weight <= alikeFactor*least
	}
}

// decodingNs is how long a step of an owner's sequences alone will take when all of their prompts are computed.
func (s *scheduler) decodingNs(o *ownerPart) float64 {
	return s.budget.cost.predict(o.work.plus(stepWork{decodes: o.prompts, cells: o.promptCells}))
}

// severalOwners reports whether the collected sequences are those of more than one owner.
func (s *scheduler) severalOwners() bool {
	var first *sequence
	differs := func(q *sequence) bool {
		first = cmp.Or(first, q)
		return q.req.Owner != first.req.Owner
	}
	return slices.ContainsFunc(s.decoders, differs) || slices.ContainsFunc(s.prefills, differs) ||
		slices.ContainsFunc(s.drawing, differs)
}

// aloneNs is how long a step with an owner's part alone would take.
func (s *scheduler) aloneNs(o *ownerPart) float64 { return s.budget.cost.predict(o.work) + o.promptNs }

// listOwners lists the owners of the collected sequences, and of each those first that had no row for the longest time.
// One whose grammar is being prepared for a draw will be in the next step, so it counts.
func (s *scheduler) listOwners() {
	s.owners = s.owners[:0]
	for _, q := range s.decoders {
		o := s.ownerOf(q)
		o.decoders = append(o.decoders, q)
		o.work = o.work.plus(q.decodeWork())
	}
	for _, q := range s.drawing {
		o := s.ownerOf(q)
		o.work = o.work.plus(stepWork{decodes: 1, cells: attendedCells(q.filled, 1)})
	}
	for _, q := range s.prefills {
		o := s.ownerOf(q)
		o.prompts++
		o.promptCells += len(q.tokens)
		o.promptNs += s.budget.cost.prompt(q.filled, q.prefillTokensLeft())
	}
	for i := range s.owners {
		o := &s.owners[i]
		slices.SortFunc(o.decoders, byLastTurn)
		// a step's fixed part may be longer than its target
		alone := max(s.budget.allowPrompts(o.work, s.promptShare, true).ns, s.promptShare*s.budget.cost.predict(o.work))
		o.promptNs = max(0, min(o.promptNs, alone))
		o.canMove = len(o.decoders) > 0 || o.prompts > 0
	}
}

// ownerOf finds the part of a sequence's owner, or adds one.
func (s *scheduler) ownerOf(q *sequence) *ownerPart {
	at := slices.IndexFunc(s.owners, func(o ownerPart) bool { return o.owner == q.req.Owner })
	if at >= 0 {
		return &s.owners[at]
	}
	var room []*sequence // of an earlier step
	if n := len(s.owners); n < cap(s.owners) {
		room = s.owners[:n+1][n].decoders[:0]
	}
	s.owners = append(s.owners, ownerPart{owner: q.req.Owner, weight: q.weight(), decoders: room})
	return &s.owners[len(s.owners)-1]
}

// chooseRows chooses the step's decoders: all of the light owners and, if the others have time in it, one of the owner
// with the fewest for its weight, and so on, one of each at least. Their prompts have as much of that time as in a step
// without light owners: with less, ever fewer of their answers would be in progress.
func (s *scheduler) chooseRows(d ownerDivision, othersPromptNs float64) {
	var work stepWork
	s.decoders = s.decoders[:0]
	for i := range s.owners {
		if o := &s.owners[i]; o.light {
			o.rows = len(o.decoders)
			work = work.plus(o.work)
		}
	}
	end := d.aloneNs + d.othersNs - min(othersPromptNs, d.othersNs*s.undividedPromptShare/(1+s.undividedPromptShare))
	for next := s.fewestRows(); next != nil && d.othersNs > 0; next = s.fewestRows() {
		work = work.plus(next.decoders[next.rows].decodeWork())
		if next.rows > 0 && s.budget.cost.predict(work)+d.promptNs > end {
			break
		}
		next.rows++
	}
	for i := range s.owners {
		for _, q := range s.owners[i].decoders[:s.owners[i].rows] {
			s.turns++
			q.lastTurn = s.turns
			s.decoders = append(s.decoders, q)
		}
	}
	slices.SortFunc(s.decoders, bySlot)
}

// fewestRows is the owner with the fewest rows for its weight of those that have more decoders; nil: none has.
func (s *scheduler) fewestRows() *ownerPart {
	var fewest *ownerPart
	for i := range s.owners {
		o := &s.owners[i]
		if o.rows < len(o.decoders) && (fewest == nil || float64(o.rows)/o.weight < float64(fewest.rows)/fewest.weight) {
			fewest = o
		}
	}
	return fewest
}

// planDividedPrompts plans prompt chunks: those of the light owners as if they were alone, then those of the others
// with what is left of their time.
func (s *scheduler) planDividedPrompts(p *plan, a promptAllowance, d ownerDivision) {
	all, light := s.prefills, 0
	for i, q := range all {
		if s.ownerOf(q).light {
			all[i], all[light] = all[light], q
			light++
		}
	}
	before, left := p.promptTokens, d.aloneNs+d.othersNs-s.budget.cost.predict(p.decoding())
	s.prefills = all[:light]
	own := promptAllowance{ns: d.promptNs + 1, least: a.least, most: a.most} // + 1: sums of fractions aren't exact
	s.sharePromptAllowance(p, own)
	if d.othersNs == 0 {
		return
	}
	s.prefills = all[light:]
	used := p.promptTokens - before
	a.most, a.least = a.most-used, min(a.least, 2) // a token for the first prompt, and one for the shortest
	a.ns = left - s.budget.cost.prompt(0, used)
	s.sharePromptAllowance(p, a)
}

// byLastTurn puts the sequence first that had no row for the longest time.
func byLastTurn(a, b *sequence) int {
	return cmp.Or(cmp.Compare(a.lastTurn, b.lastTurn), cmp.Compare(a.arrival, b.arrival))
}

// noteUse notes what the owners of a divided step would have taken alone, and takes what the others did take from
// their time.
func (s *scheduler) noteUse(p *plan, d ownerDivision, now time.Duration) {
	if !d.divided {
		return
	}
	for i := range s.owners {
		s.owners[i].work = stepWork{}
	}
	var light stepWork
	for _, it := range p.items {
		o := s.ownerOf(it.seq)
		o.work = o.work.plus(it.work())
		if o.light {
			light = light.plus(it.work())
		}
	}
	for i := range s.owners {
		if o := &s.owners[i]; o.work != (stepWork{}) {
			s.use.add(o.owner, s.budget.cost.predict(o.work), now)
		}
	}
	if light != (stepWork{}) { // or they only had what was left over
		s.othersNs -= s.budget.cost.predict(p.work()) - s.budget.cost.predict(light)
	}
}
