package batch

import (
	"cmp"
	"slices"
	"time"
)

const (
	// A turn of one adapter has as many steps as take turnTime, at least one: a switch costs 2 to 3 ms, and meanwhile
	// the streams of the others have a gap.
	turnTime           = 10 * time.Millisecond
	maxTurnSteps       = 4
	answerReserveCells = 16 // cells kept free for each sequence's answer when another is admitted
	// minReuseTokens: a shorter common prefix isn't reused. Copying cells costs nothing, but waiting for them costs a
	// step, for which worthAwaiting asks more.
	minReuseTokens = 8
)

// scheduler decides what one base decodes next. It knows no clock, no goroutine and no model: the executor reports what
// happened and carries out its decisions.
//
//	admit       → which sequence gets a slot, and which cells it reuses
//	plan        → which tokens of which sequences the next step holds
//	takeCleared → slots whose cells the runner must forget first
type scheduler struct {
	limits               Limits
	budget               stepBudget
	slots                []slot
	shared               sharedCells
	waiting              []*sequence // by arrival
	clearedSlots         []int
	adapterTurns         roundRobin[Adapter]
	stepsOfTurn          int64   // of each adapter, at least 1
	promptShare          float64 // of the step that is being planned
	undividedPromptShare float64 // the same, if no other owner had something to compute lately
	copyFailed           bool    // the runner couldn't copy cells, so nobody waits for any
	endings              uint64  // counts sequences that ended with kept cells, to find the oldest
	turns                uint64  // counts rows of divided steps
	use                  ownerUse
	othersNs             float64 // time that owners have saved up which aren't in each step

	// Scratch of one plan.
	readyAdapters []candidate[Adapter]
	prompting     []promptWork
	decoders      []*sequence
	prefills      []*sequence
	drawing       []*sequence
	chunks        []int // of prefills: tokens in the step
	owners        []ownerPart
}

// slot is one sequence id of the runner: free, in use, or holding the cells of a finished sequence until somebody needs
// them.
type slot struct {
	seq         *sequence
	keptTokens  []Token
	keptAdapter Adapter // of keptTokens
	keptSince   uint64  // value of endings when its sequence ended
}

// item is one sequence's part of a planned step.
type item struct {
	seq    *sequence
	tokens int
	prompt bool // a chunk of a prompt
}

// plan is one step, and the sequences preempted for it.
type plan struct {
	items        []item // decoding ones first, by slot
	decodes      int    // sequences that advance by one token
	promptTokens int    // prompt tokens, and those of sequences that advance by several
	forcedTokens int    // the latter alone
	cells        int    // cells that all tokens attend to
	preempted    []*sequence
	divided      bool      // between owners
	starved      *sequence // finds no cells, even alone
}

func (p *plan) reset() {
	clear(p.items)
	clear(p.preempted)
	*p = plan{items: p.items[:0], preempted: p.preempted[:0]}
}

// work is what the step computes.
func (p *plan) work() stepWork {
	return stepWork{decodes: p.decodes, prompts: p.promptTokens, cells: p.cells}
}

// computedPrompt is how many tokens of prompts the step computed, given its slices; one that failed computed none.
func (p *plan) computedPrompt(slices []Slice) int {
	n := 0
	for i, it := range p.items {
		if it.prompt && slices[i].Err == nil {
			n += it.tokens
		}
	}
	return n
}

// decoding is work before prompt tokens are planned; forced tokens aren't counted as prompts.
func (p *plan) decoding() stepWork { return stepWork{decodes: p.decodes, cells: p.cells} }

// work is what an item computes.
func (it item) work() stepWork {
	if it.prompt {
		return stepWork{prompts: it.tokens, cells: attendedCells(it.seq.filled, it.tokens)}
	}
	return it.seq.decodeWork()
}

// draws reports whether the step reaches the end of the sequence's known tokens, so that a token is drawn.
func (it item) draws() bool { return it.tokens == it.seq.pendingTokens() }

func newScheduler(l Limits, p stepBudget) scheduler {
	return scheduler{limits: l, budget: p, slots: make([]slot, l.Sequences), shared: newSharedCells(l.Sequences)}
}

// enqueue puts a sequence into the queue by its arrival, so one that was preempted comes before those submitted after
// it.
func (s *scheduler) enqueue(q *sequence) {
	q.stage = stageWaiting
	at, _ := slices.BinarySearchFunc(s.waiting, q, func(a, b *sequence) int {
		if a.arrival < b.arrival {
			return -1
		}
		return 1
	})
	s.waiting = slices.Insert(s.waiting, at, q)
}

// remove takes a sequence out, wherever it is. keepCells: they may be reused by a later one.
func (s *scheduler) remove(q *sequence, keepCells bool) {
	switch q.stage {
	case stageWaiting:
		if i := slices.Index(s.waiting, q); i >= 0 {
			s.waiting = slices.Delete(s.waiting, i, i+1)
		}
	case stageReady, stageAwaiting, stageDrawing:
		if keepCells && s.limits.Prefix && q.filled >= minReuseTokens {
			s.endings++
			s.slots[q.slot] = slot{keptTokens: q.tokens[:q.filled], keptAdapter: q.req.Adapter, keptSince: s.endings}
		} else {
			s.clearSlot(q.slot)
		}
	}
	q.stage = stageEnded
}

// clearSlot makes a slot free; its cells are gone once the executor has carried out takeCleared.
func (s *scheduler) clearSlot(at int) {
	s.slots[at] = slot{}
	s.shared.cut(at, 0)
	s.clearedSlots = append(s.clearedSlots, at)
}

// takeCleared returns the slots whose cells must be forgotten before the next admission or step; valid until the next
// call into s.
func (s *scheduler) takeCleared() []int {
	c := s.clearedSlots
	s.clearedSlots = s.clearedSlots[:0]
	return c
}

// hasWork reports whether a plan might find something to do.
func (s *scheduler) hasWork() bool {
	if len(s.waiting) > 0 {
		return true
	}
	for i := range s.slots {
		if q := s.slots[i].seq; q != nil && (q.stage == stageReady || s.waitIsOver(q)) {
			return true
		}
	}
	return false
}

// plan fills p with the step that begins now and reports whether there is anything to carry out. othersWait: another
// base waits for its turn.
func (s *scheduler) plan(p *plan, now time.Duration, othersWait bool) bool {
	p.reset()
	s.undividedPromptShare = s.choosePromptShare(now)
	s.promptShare = s.undividedPromptShare
	if s.use.severalLately(now) {
		s.promptShare = min(s.promptShare, sharedPromptShare)
	}
	for {
		preempted := len(p.preempted)
		s.listReadyAdapters(othersWait)
		for range len(s.readyAdapters) {
			adapter, _ := s.adapterTurns.pick(s.readyAdapters)
			s.planFor(p, adapter, now, othersWait)
			if len(p.items) > 0 {
				s.adapterTurns.charge(s.turnCost(p, adapter))
				return true
			}
			s.adapterTurns.endTurn()
		}
		if len(p.preempted) > preempted { // an adapter that was looked at earlier has cells now
			continue
		}
		if !s.breakDeadlock(p) {
			return p.starved != nil || len(p.preempted) > 0
		}
	}
}

// choosePromptShare is how many times the time of decoding prompts may take. While they have waited for less time than
// the answers in progress waited for their first tokens, they get less: when many requests came together, the last to
// get a first token would otherwise be held up once more, by the prompts of those who come after the first to end.
func (s *scheduler) choosePromptShare(now time.Duration) float64 {
	var waiting, waited time.Duration // of all prompts, and of all answers
	prompts, answers := 0, 0
	for i := range s.slots {
		switch q := s.slots[i].seq; {
		case q == nil || q.stage != stageReady && q.stage != stageAwaiting:
		case q.decoding():
			waited += q.firstTokenWait
			answers++
		default:
			waiting += now - q.submittedAt
			prompts++
		}
	}
	if waited == 0 || prompts == 0 {
		return promptShare
	}
	byMeans := float64(waiting) / float64(prompts) * float64(answers) / float64(waited)
	return min(max(leastPromptShare, waitShare*byMeans), promptShare)
}

// planFor plans a step of one turn.
func (s *scheduler) planFor(p *plan, adapter Adapter, now time.Duration, othersWait bool) {
	s.collect(adapter)
	for totalFeedTokens(s.decoders) > s.freeCells() && (s.evictOldestPrefix() || s.preemptVictim(p)) {
		s.collect(adapter)
	}
	s.decoders = s.oldestThatFit(s.decoders, min(s.freeCells(), s.limits.StepTokens))
	division := s.divideBetweenOwners(now)
	s.fill(p, division, othersWait)
	if division.divided && len(p.items) == 0 { // the light owners can't advance now
		division = ownerDivision{}
		s.collect(adapter)
		s.decoders = s.oldestThatFit(s.decoders, min(s.freeCells(), s.limits.StepTokens))
		s.fill(p, division, othersWait)
	}
	p.divided = division.divided
	s.noteUse(p, division, now)
}

// fill puts a token of each collected decoder into a step, then prompt chunks.
func (s *scheduler) fill(p *plan, division ownerDivision, othersWait bool) {
	for _, q := range s.decoders {
		p.add(q)
	}
	someoneWaits := othersWait || len(s.readyAdapters) > 1 || p.forcedTokens > 0
	allowance := s.perAdapter(s.budget.allowPrompts(p.decoding(), s.promptShare, someoneWaits))
	allowance.ns -= s.budget.cost.prompt(0, p.forcedTokens)
	allowance.least -= p.forcedTokens
	allowance.most = min(allowance.most, s.limits.StepTokens-p.decodes) - p.forcedTokens
	if division.divided {
		s.planDividedPrompts(p, allowance, division)
		return
	}
	s.sharePromptAllowance(p, allowance)
}

// add puts a decoding sequence into the plan.
func (p *plan) add(q *sequence) {
	p.items = append(p.items, item{seq: q, tokens: q.feedTokens()})
	w := q.decodeWork()
	p.decodes += w.decodes
	p.promptTokens += w.prompts
	p.forcedTokens += w.prompts
	p.cells += w.cells
}

// totalFeedTokens is how many tokens the sequences feed together.
func totalFeedTokens(list []*sequence) int {
	n := 0
	for _, q := range list {
		n += q.feedTokens()
	}
	return n
}

// collect finds the sequences of a turn, in slot order, which stays the same from step to step.
func (s *scheduler) collect(adapter Adapter) {
	s.decoders, s.prefills, s.drawing = s.decoders[:0], s.prefills[:0], s.drawing[:0]
	s.noteNeeds()
	for i := range s.slots {
		q := s.slots[i].seq
		switch {
		case q == nil || s.turnOf(q) != adapter:
		case q.stage == stageDrawing:
			s.drawing = append(s.drawing, q)
		case q.stage != stageReady:
		case q.decoding():
			s.decoders = append(s.decoders, q)
		default:
			s.prefills = append(s.prefills, q)
		}
	}
}

// oldestThatFit keeps the oldest sequences that feed at most n tokens together, in slot order.
func (s *scheduler) oldestThatFit(list []*sequence, n int) []*sequence {
	if totalFeedTokens(list) <= n {
		return list
	}
	slices.SortFunc(list, byArrival)
	fit := 0
	for ; fit < len(list) && list[fit].feedTokens() <= n; fit++ {
		n -= list[fit].feedTokens()
	}
	list = list[:fit]
	slices.SortFunc(list, bySlot)
	return list
}

func bySlot(a, b *sequence) int { return a.slot - b.slot }

func byArrival(a, b *sequence) int {
	if a.arrival < b.arrival {
		return -1
	}
	return 1
}

// sharePromptAllowance plans prompt chunks. Half of the time goes to the prompt that came first, so a long one always
// advances; the rest goes to the shortest prompts, so that most are done early and a short one never waits for a long
// one (shortest remaining processing time).
func (s *scheduler) sharePromptAllowance(p *plan, a promptAllowance) {
	if len(s.prefills) == 0 || a.most <= 0 {
		return
	}
	s.orderPrompts()
	wanted := s.chooseChunks(a, p.scoredTokens())
	for s.freeCells()-p.decodes-p.promptTokens < wanted && s.evictOldestPrefix() {
	}
	left := min(wanted, s.freeCells()-p.decodes-p.promptTokens)
	for i, q := range s.prefills {
		if n := min(s.chunks[i], left); n > 0 {
			p.addPrompt(q, n)
			left -= n
		}
	}
}

// scoredTokens is how many tokens of prompts in the step are scored.
func (p *plan) scoredTokens() (n int) {
	for _, it := range p.items {
		if it.prompt && it.seq.wantsScores() {
			n += it.tokens
		}
	}
	return n
}

// chooseChunks sets how many tokens of each of the prompts the step has, beside some that are scored, and returns their
// sum.
func (s *scheduler) chooseChunks(a promptAllowance, scored int) int {
	s.chunks = s.chunks[:0]
	cost, left := &s.budget.cost, a
	othersNs, othersTokens := 0.0, 0
	for _, q := range s.prefills[1:] {
		othersNs += cost.prompt(q.filled, q.prefillTokensLeft())
		othersTokens += q.prefillTokensLeft()
	}
	for i, q := range s.prefills {
		own := left
		if i == 0 {
			own.ns = max(a.ns/2, a.ns-othersNs)
			own.most = max((a.most+1)/2, a.most-othersTokens)
			own.least = max((a.least+1)/2, a.least-othersTokens)
		}
		n := max(0, min(s.budget.promptTokens(own, q.filled), left.most, q.prefillTokensLeft()))
		if q.wantsScores() {
			n = min(n, MaxScoredTokens-scored)
			scored += n
		}
		s.chunks = append(s.chunks, n)
		left.ns -= cost.prompt(q.filled, n)
		left.most -= n
		left.least = max(0, left.least-n)
	}
	return a.most - left.most
}

// addPrompt puts a chunk of a prompt into the plan.
func (p *plan) addPrompt(q *sequence, tokens int) {
	p.promptTokens += tokens
	p.cells += attendedCells(q.filled, tokens)
	p.items = append(p.items, item{seq: q, tokens: tokens, prompt: true})
}

// orderPrompts puts the prompt that came first at the front and the others behind it by what is left of them, or of the
// beginning that another one awaits.
func (s *scheduler) orderPrompts() {
	list := s.prefills
	for i := range list {
		if list[i].arrival < list[0].arrival {
			list[0], list[i] = list[i], list[0]
		}
	}
	slices.SortFunc(list[1:], func(a, b *sequence) int {
		return cmp.Or(cmp.Compare(a.urgency(), b.urgency()), cmp.Compare(a.arrival, b.arrival))
	})
}
