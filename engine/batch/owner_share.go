package batch

import (
	"cmp"
	"slices"
	"time"
)

// The part of the scheduler that divides a step between owners. Where each sequence of a step costs time, as on a CPU,
// an owner with many of them would slow down one with few by as many times, however fairly they got their slots. So a
// step takes at most as long as the lightest owner's part of it would take alone, divided by that owner's share of all
// weights: what a processor that is shared by time would give it. An owner that used less than its share lately gets
// more than that for some seconds. The other owners' sequences take turns. Where they cost next to nothing, as on a GPU
// that isn't full, a step has room for all.

// leastStretch: an owner that used little lately finds its steps this much longer than alone, where its share would
// make them longer still. On a GPU a step has room for many sequences in that time.
const leastStretch = 1.5

// ownerPart is what one owner has for a step.
type ownerPart struct {
	owner    string
	weight   float64
	decoders []*sequence
	work     stepWork // of all decoders
	promptNs float64  // of all that is left of its prompts, until they are cut to what they would get alone
	rows     int      // decoders that the step has room for
}

// ownerDivision is how a step is divided. The zero value is a step that isn't.
type ownerDivision struct {
	lightest string
	promptNs float64 // for the lightest owner's prompts
	stepNs   float64 // for everything; 0: the step isn't divided
}

// divideBetweenOwners removes from the collected decoders those that must wait for a later step.
func (s *scheduler) divideBetweenOwners(now time.Duration) ownerDivision {
	if !s.severalOwners() || !s.budget.promptSeen {
		return ownerDivision{}
	}
	s.listOwners()
	weights, lightest := 0.0, &s.owners[0]
	for i := range s.owners {
		o := &s.owners[i]
		weights += o.weight
		if s.aloneNs(o)/o.weight < s.aloneNs(lightest)/lightest.weight {
			lightest = o
		}
	}
	stretch := s.use.stretch(lightest.owner, lightest.weight/weights, now)
	d := ownerDivision{lightest: lightest.owner, promptNs: lightest.promptNs, stepNs: stretch * s.aloneNs(lightest)}
	if d.stepNs > 0 { // or nothing costs anything
		s.chooseRows(lightest, d)
	}
	return d
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

// listOwners lists the owners of the collected sequences, and of each those first that were in no step for the longest
// time. One whose grammar is being prepared for a draw will be in the next step, so it counts.
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
		s.ownerOf(q).promptNs += s.budget.cost.prompt(q.filled, q.prefillTokensLeft())
	}
	for i := range s.owners {
		o := &s.owners[i]
		slices.SortFunc(o.decoders, byLastStep)
		o.promptNs = min(o.promptNs, s.budget.allowPrompts(o.work, s.promptShare, true).ns)
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

// chooseRows fills a step up to its time: all decoders of the lightest owner, then one of the owner with the fewest for
// its weight, and so on. The prompts of the others have their part of what they get together, as in a step that isn't
// divided. Where there is time for nothing, each has a row at least, or in every other step some tokens of a prompt.
func (s *scheduler) chooseRows(lightest *ownerPart, d ownerDivision) {
	lightest.rows = len(lightest.decoders)
	others := d.stepNs - s.aloneNs(lightest)
	promptNs := d.promptNs + min(s.othersPromptNs(lightest), others*s.promptShare/(1+s.promptShare))
	work := lightest.work
	for next := s.fewestRows(); next != nil; next = s.fewestRows() {
		work = work.plus(next.decoders[next.rows].decodeWork())
		isLeast := next.rows == 0 && (next.promptNs == 0 || s.rowsFirst())
		if !isLeast && s.budget.cost.predict(work)+promptNs > d.stepNs {
			break
		}
		next.rows++
	}
	s.decoders = s.decoders[:0]
	for i := range s.owners {
		s.decoders = append(s.decoders, s.owners[i].decoders[:s.owners[i].rows]...)
	}
	slices.SortFunc(s.decoders, bySlot)
}

// othersPromptNs is what the prompts of all owners but one may take.
func (s *scheduler) othersPromptNs(one *ownerPart) float64 {
	ns := 0.0
	for i := range s.owners {
		if o := &s.owners[i]; o != one {
			ns += o.promptNs
		}
	}
	return ns
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

// planPrompts plans prompt chunks. In a step that is divided these are what the lightest owner's prompts would have
// alone, then those of the others with what is left of the step's time.
func (s *scheduler) planPrompts(p *plan, a promptAllowance, d ownerDivision) {
	if d.stepNs == 0 {
		s.sharePromptAllowance(p, a)
		return
	}
	isLight := func(q *sequence) bool { return q.req.Owner == d.lightest }
	all, light := s.prefills, 0
	for i, q := range all {
		if isLight(q) {
			all[i], all[light] = all[light], q
			light++
		}
	}
	before, left := p.promptTokens, d.stepNs-s.budget.cost.predict(p.decoding())
	s.prefills = all[:light]
	s.sharePromptAllowance(p, promptAllowance{ns: d.promptNs, least: a.least, most: a.most})
	s.prefills = all[light:]
	used := p.promptTokens - before
	a.most, a.least = a.most-used, min(a.least, 2) // a token for the first prompt, and one for the shortest
	if s.rowsFirst() && p.hasOthers(d.lightest) {
		a.least = 0
	}
	a.ns = min(a.ns, left) - s.budget.cost.prompt(0, used)
	s.sharePromptAllowance(p, a)
}

// rowsFirst reports whether owners whose time in the step is over get a row of it, rather than tokens of prompts.
func (s *scheduler) rowsFirst() bool { return s.steps%2 == 0 }

// hasOthers reports whether the step has something of owners other than this one.
func (p *plan) hasOthers(owner string) bool {
	return slices.ContainsFunc(p.items, func(it item) bool { return it.seq.req.Owner != owner })
}

// byLastStep puts the sequence first that was in no step for the longest time.
func byLastStep(a, b *sequence) int {
	return cmp.Or(cmp.Compare(a.lastStep, b.lastStep), cmp.Compare(a.arrival, b.arrival))
}

// noteUse notes what the owners of a step would have taken alone.
func (s *scheduler) noteUse(p *plan, now time.Duration) {
	s.owners = s.owners[:0]
	for _, it := range p.items {
		o := s.ownerOf(it.seq)
		o.work = o.work.plus(it.work())
	}
	if len(s.owners) < 2 {
		return // what isn't shared harms nobody
	}
	for i := range s.owners {
		s.use.add(s.owners[i].owner, s.aloneNs(&s.owners[i]), now)
	}
}
