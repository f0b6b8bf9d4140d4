package inflight

import (
	"slices"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/journal"
)

// answerGroup is a request with several choices. Each is an entry of its own, so that engines, replay and the journal
// know only single answers. At most windowOfChoices of them are in the table at a time; when one is done, the next
// takes its place. It implements Answer.
type answerGroup struct {
	table *Table
	req   Request
	ready chan struct{}
	// window is how many choices are in the table at a time, while there is room for them
	window int

	// Guarded by the table's mutex.
	entries []*entry // those made so far
	undone  int      // of them, those that aren't done
	taken   int      // whose end was taken
	open    int      // the first one whose end wasn't taken
	at      int      // where Take looks first
	started bool     // its first choices were taken in together
	// requeuedFrom is the engine that choices were taken back from last.
	requeuedFrom    *engine
	pendingRequeues []Requeue // not taken yet
	closed          bool      // cancelled, failed or settled: no further entry is made
}

// windowOfChoices is how many choices of one request are in the table at a time, so that a list of thousands of texts
// doesn't fill the queue.
const windowOfChoices = 32

// admitGroup takes a request with several choices in, or refuses it. The first window of choices is admitted together
// or not at all.
func (t *Table) admitGroup(r Request, now time.Time) (Answer, *api.Error) {
	window := min(r.Infer.ChoiceCount(), windowOfChoices, max(1, t.options.QueueCapacity))
	g := &answerGroup{table: t, req: r, ready: make(chan struct{}, 1), window: window}
	for len(g.entries) < g.window {
		if err := g.admitNext(now); err != nil {
			g.discard(err, now)
			return nil, err
		}
		if len(g.entries) == 1 { // with it the model is known
			g.window = g.choicesThatFit()
		}
	}
	g.started = true
	return g, nil
}

// admitNext makes the entry of the next choice.
func (g *answerGroup) admitNext(now time.Time) *api.Error {
	choice := len(g.entries)
	r := g.req
	r.Infer = g.infer(choice)
	en := g.table.newEntry(r, now)
	en.group, en.choice, en.ready = g, choice, g.ready
	if choice > 0 { // all choices of a request draw from one seed
		en.seed = g.entries[0].seed
	}
	g.undone++
	if err := g.table.admit(en, now); err != nil {
		g.undone--
		return err
	}
	g.entries = append(g.entries, en)
	return nil
}

// infer is what is asked of a model for one choice.
func (g *answerGroup) infer(choice int) *api.Request {
	return g.req.Infer.ForInput(choice / max(1, g.req.Infer.Choices))
}

// choicesThatFit is for how many choices an empty journal has room at a time. Waiting would get a request that needs
// more nowhere.
func (g *answerGroup) choicesThatFit() int {
	n, left := 0, g.table.journal.MaxBytes()
	for n < g.window {
		if left -= g.bytesOf(n); left < 0 {
			break
		}
		n++
	}
	return max(1, n)
}

// bytesOf is what a choice may need of the journal.
func (g *answerGroup) bytesOf(choice int) int64 {
	return journal.EstimateBytes(g.infer(choice), g.first().askedTokens)
}

// reservedBytes is what the choices have of the journal, those included that are done.
func (g *answerGroup) reservedBytes() int64 {
	n := int64(0)
	for _, en := range g.entries {
		n += en.rec.Reserved()
	}
	return n
}

// discard takes back what was admitted of a request that is refused. Nothing of it is counted.
func (g *answerGroup) discard(because *api.Error, now time.Time) {
	g.cancel(because, now)
	for _, en := range g.entries {
		g.table.forget(en)
	}
}

// entryDone is called when an entry of the group is done: others take its place, unless it failed.
func (g *answerGroup) entryDone(en *entry, now time.Time) {
	g.undone--
	if en.err != nil {
		g.closed = true
	}
	g.admitMore(en, now)
}

// admitMore takes further choices in, where en is done. While the journal has no room for the next one, that comes
// later: when another choice is done or, without any, when others have given some back.
func (g *answerGroup) admitMore(en *entry, now time.Time) {
	for !g.closed && g.undone < g.window && len(g.entries) < g.req.Infer.ChoiceCount() {
		if bytes := g.bytesOf(len(g.entries)); !g.table.journal.HasRoom(bytes) {
			if g.undone > 0 {
				return
			}
			if g.reservedBytes()+bytes <= g.table.journal.MaxBytes() {
				g.table.stalled = append(g.table.stalled, g)
				return
			}
		}
		if err := g.admitNext(now); err != nil {
			g.fail(en, err)
		}
	}
}

// fail ends the request with the error of a choice that wasn't taken in; en, which is done, has it.
func (g *answerGroup) fail(en *entry, err *api.Error) {
	g.closed = true
	en.result, en.err, en.doneTaken = nil, err, false
	g.open = min(g.open, en.choice)
	en.notify()
}

// resumeStalled goes on with the requests that wait for room in the journal, or ends them when their time is over.
func (t *Table) resumeStalled(now time.Time) {
	stalled := t.stalled
	t.stalled = nil
	for _, g := range stalled {
		last := g.entries[len(g.entries)-1]
		switch {
		case g.closed:
		case !last.deadline.IsZero() && !now.Before(last.deadline):
			g.fail(last, last.deadlineError(now))
		default:
			g.admitMore(last, now)
		}
	}
}

// Model implements Answer.
func (g *answerGroup) Model() string { return g.first().Model() }

// Version implements Answer.
func (g *answerGroup) Version() string { return g.first().Version() }

// ModelID implements Answer.
func (g *answerGroup) ModelID() string { return g.first().ModelID() }

// Revision implements Answer.
func (g *answerGroup) Revision() []byte { return g.first().Revision() }

func (g *answerGroup) first() *entry { return g.entries[0] } // made before the group was anybody's

// PromptTokens implements Answer. A prompt counts once, however many choices it has.
func (g *answerGroup) PromptTokens() int {
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	n := 0
	for _, en := range g.entries {
		if !en.sharesPrompt() {
			n += en.promptTokens()
		}
	}
	return n
}

// OutputTokens implements Answer.
func (g *answerGroup) OutputTokens() int {
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	n := 0
	for _, en := range g.entries {
		n += len(en.rec.Generated)
	}
	return n
}

// Ready implements Answer.
func (g *answerGroup) Ready() <-chan struct{} { return g.ready }

// Take implements Answer. Choices are taken in turns.
func (g *answerGroup) Take(dst []byte) Piece {
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	en := g.nextWithNews()
	if en == nil {
		first := g.entries[0]
		return Piece{Text: dst, Accepted: first.everAccepted, Requeues: g.takeRequeues()}
	}
	p := en.take(dst)
	p.Requeues = g.takeRequeues()
	if p.Done {
		g.taken++
	}
	p.Last = g.taken == g.req.Infer.ChoiceCount() || p.Err != nil
	p.More = !p.Last && g.nextWithNews() != nil
	return p
}

func (g *answerGroup) takeRequeues() []Requeue {
	requeues := g.pendingRequeues
	g.pendingRequeues = nil
	return requeues
}

// nextWithNews is the next entry of which Take would return something; nil: none.
func (g *answerGroup) nextWithNews() *entry {
	for g.open < len(g.entries) && g.entries[g.open].doneTaken { // lists are long, and few of them are at work
		g.open++
	}
	for range g.entries[g.open:] {
		if g.at < g.open || g.at >= len(g.entries) {
			g.at = g.open
		}
		if en := g.entries[g.at]; en.hasNews() {
			return en // where it is looked first again, before it is taken
		}
		g.at++
	}
	return nil
}

// Wrote implements Answer.
func (g *answerGroup) Wrote(choice, tokens int, now time.Time) {
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	g.entries[choice].wrote(tokens, now)
}

// Cancel implements Answer.
func (g *answerGroup) Cancel(because *api.Error) {
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	g.cancel(because, time.Now())
}

func (g *answerGroup) cancel(because *api.Error, now time.Time) {
	g.closed = true
	for _, en := range g.entries {
		g.table.cancel(en, because, now)
	}
}

// Settle implements Answer.
func (g *answerGroup) Settle(outcome Outcome) {
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	g.settle(outcome, time.Now())
}

func (g *answerGroup) settle(outcome Outcome, now time.Time) {
	g.closed = true
	if outcome == Failed {
		g.shareError(now)
	}
	for _, en := range g.entries {
		g.table.settle(en, outcome, now)
	}
}

// shareError gives all choices the error of the one that failed, since the request counts with its first one.
func (g *answerGroup) shareError(now time.Time) {
	i := slices.IndexFunc(g.entries, func(en *entry) bool { return en.err != nil })
	if i < 0 {
		return
	}
	err := g.entries[i].err
	for _, en := range g.entries {
		g.table.cancel(en, err, now)
		en.err = err
	}
}

// wasTakenIn reports whether the entry is a further choice of a request that was admitted. The queue and the time that
// is left don't refuse it, so that other clients' requests don't end one that is half done.
func (en *entry) wasTakenIn() bool { return en.group != nil && en.group.started }

// sharesPrompt reports whether the entry's prompt is counted with another choice of the same input.
func (en *entry) sharesPrompt() bool { return en.drawChoice() > 0 }

// cachedTokens is how much of the prompt came from the KV cache. Of a prompt that several choices share, any of them
// may be the one for which it was computed.
func (en *entry) cachedTokens() int {
	fewest := en.summary.CachedTokens
	if en.group == nil || en.result == nil {
		return fewest
	}
	first := en.choice - int(en.drawChoice())
	last := min(first+max(1, en.req.Infer.Choices), len(en.group.entries))
	for _, other := range en.group.entries[first:last] {
		if other.result != nil {
			fewest = min(fewest, other.summary.CachedTokens)
		}
	}
	return fewest
}

// isFurtherChoice reports whether the entry's request is counted with its first choice.
func (en *entry) isFurtherChoice() bool { return en.choice > 0 }
