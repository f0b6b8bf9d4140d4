package e2e

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// changedAnswer isn't the undisturbed one. That is allowed only where the first other token was nearly the undisturbed one, too.
type changedAnswer struct {
	plan   *chaosPlan
	id     string
	text   string
	tokens int
}

// marginBound is inflight.MarginBound, which docs/restarts.md states.
const marginBound = 0.1

func (c *chaos) differs(a changedAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed = append(c.changed, a)
}

func (c *chaos) same(p *chaosPlan, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.equal == nil {
		c.equal = make(map[string]*chaosPlan)
	}
	c.equal[id] = p
}

// closeCall is a token whose lead over the runner-up was below the bound (inflight.MarginBound); the proxy says so at level debug.
type closeCall struct {
	index    int
	margin   float64
	from, to int // bytes of the answer that came with it
}

var closeLine = regexp.MustCompile(`msg="close call" request_id=(\S+) index=(\d+) margin=(\S+) from=(\d+) to=(\d+)`)

// closeCalls are those of each request, by its id.
func (s *stack) closeCalls() map[string][]closeCall {
	calls := make(map[string][]closeCall)
	for line := range strings.Lines(s.proxy.log.String()) {
		m := closeLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		var call closeCall
		call.index, _ = strconv.Atoi(m[2]) // written by a program of ours, all four
		call.margin, _ = strconv.ParseFloat(m[3], 64)
		call.from, _ = strconv.Atoi(m[4])
		call.to, _ = strconv.Atoi(m[5])
		calls[m[1]] = append(calls[m[1]], call)
	}
	return calls
}

// heldBack is how much later than its token a text may come: the rest of a character, or all that a stop string holds back.
func (p *chaosPlan) heldBack() int {
	if p.holds == "stop" {
		return 100
	}
	return 4
}

// judge takes the answers that may differ from the faults, and gives their number.
func (c *chaos) judge() (within int) {
	c.mu.Lock()
	changed := c.changed
	c.changed = nil
	c.mu.Unlock()
	if len(changed) == 0 {
		return 0
	}
	calls := c.s.closeCalls()
	for _, a := range changed {
		at := firstDifference(a.text, a.plan.answer)
		margin, ok := closest(append(calls[a.plan.id], calls[a.id]...), at, a.plan.heldBack())
		if !ok {
			c.fault("%s %s: %d tokens %q, undisturbed %d tokens %q, and no close call at byte %d", a.plan.name, a.id, a.tokens, a.text, a.plan.tokens, a.plan.answer, at)
			continue
		}
		within++
		c.s.t.Logf("%s %s: goes on differently from byte %d of %d, where the margin was %.4f", a.plan.name, a.id, at, len(a.plan.answer), margin)
	}
	return within
}

func firstDifference(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// closest gives the smallest margin among the tokens that may have decided about the byte at a place.
func closest(calls []closeCall, at, heldBack int) (margin float64, ok bool) {
	for _, c := range calls {
		if c.from <= at && at <= c.to+heldBack && (!ok || c.margin < margin) {
			margin, ok = c.margin, true
		}
	}
	return margin, ok
}

// noise compares the margins of answers that are the undisturbed ones, token by token, and reports how much a replay moved them: a token
// whose lead is larger than that can't change.
func (c *chaos) noise() {
	calls := c.s.closeCalls()
	undisturbed := make(map[string]map[int]float64)
	var most float64
	compared := 0
	for id, plan := range c.equal {
		if undisturbed[plan.id] == nil {
			undisturbed[plan.id] = make(map[int]float64)
			for _, call := range calls[plan.id] {
				undisturbed[plan.id][call.index] = call.margin
			}
		}
		for _, call := range calls[id] {
			if before, ok := undisturbed[plan.id][call.index]; ok {
				compared++
				most = max(most, math.Abs(call.margin-before))
			}
		}
	}
	c.s.t.Logf("margins below the bound: %d compared with those of the undisturbed answers, moved by %.6f at most", compared, most)
	if most > marginBound {
		c.s.t.Errorf("a margin moved by %v, the stated bound is %v", most, marginBound)
	}
}
