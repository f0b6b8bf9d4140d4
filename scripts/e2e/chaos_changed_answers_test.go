package e2e

import (
	"math"
	"regexp"
	"strconv"
	"strings"
)

// changedAnswer is an answer that differs from the undisturbed one. That is allowed only where the first different
// token was a close call.
type changedAnswer struct {
	request   *goldenRequest
	requestID string
	text      string
	tokens    int
}

// marginBound is inflight.MarginBound, as docs/restarts.md states it.
const marginBound = 0.1

func (c *chaosTest) recordChanged(a changedAnswer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changedAnswers = append(c.changedAnswers, a)
}

func (c *chaosTest) recordUnchanged(g *goldenRequest, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unchangedAnswers[id] = g
}

// closeCall is a token whose lead over the runner-up was below the bound (inflight.MarginBound); the proxy says so at
// level debug.
type closeCall struct {
	index    int
	margin   float64
	from, to int // bytes of the answer that the token brought
}

var closeCallLine = regexp.MustCompile(`msg="close call" request_id=(\S+) index=(\d+) margin=(\S+) from=(\d+) to=(\d+)`)

// closeCalls returns the close calls of each request, by request id.
func (s *testServer) closeCalls() map[string][]closeCall {
	calls := make(map[string][]closeCall)
	for line := range strings.Lines(s.proxy.log.String()) {
		m := closeCallLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		var call closeCall
		call.index, _ = strconv.Atoi(m[2]) // all four were written by our proxy
		call.margin, _ = strconv.ParseFloat(m[3], 64)
		call.from, _ = strconv.Atoi(m[4])
		call.to, _ = strconv.Atoi(m[5])
		calls[m[1]] = append(calls[m[1]], call)
	}
	return calls
}

// maxHeldBack is how many bytes after its token a text may be sent: the rest of a character, or all that a stop string
// holds back.
func (g *goldenRequest) maxHeldBack() int {
	if g.holdsBack == "stop" {
		return 100
	}
	return 4
}

// checkChangedAnswers turns each changed answer into a failure, unless a close call explains it, and returns how many
// were explained.
func (c *chaosTest) checkChangedAnswers() (explained int) {
	c.mu.Lock()
	changed := c.changedAnswers
	c.changedAnswers = nil
	c.mu.Unlock()
	if len(changed) == 0 {
		return 0
	}
	calls := c.server.closeCalls()
	for _, a := range changed {
		at := firstDifference(a.text, a.request.answer)
		margin, ok := smallestMargin(append(calls[a.request.recordedID], calls[a.requestID]...), at, a.request.maxHeldBack())
		if !ok {
			c.fail("%s %s: %d tokens %q, undisturbed %d tokens %q, and no close call at byte %d", a.request.name, a.requestID, a.tokens, a.text, a.request.tokens, a.request.answer, at)
			continue
		}
		explained++
		c.server.t.Logf("%s %s: goes on differently from byte %d of %d, where the margin was %.4f", a.request.name, a.requestID, at, len(a.request.answer), margin)
	}
	return explained
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

// smallestMargin returns the smallest margin among the tokens that may have decided the byte at an index.
func smallestMargin(calls []closeCall, at, heldBack int) (margin float64, ok bool) {
	for _, c := range calls {
		if c.from <= at && at <= c.to+heldBack && (!ok || c.margin < margin) {
			margin, ok = c.margin, true
		}
	}
	return margin, ok
}

// checkMarginShift compares the margins of unchanged answers with those of the undisturbed ones, token by token, and
// reports by how much a replay moved them: a token with a larger lead than that can't change.
func (c *chaosTest) checkMarginShift() {
	calls := c.server.closeCalls()
	undisturbed := make(map[string]map[int]float64)
	var most float64
	compared := 0
	for id, g := range c.unchangedAnswers {
		if undisturbed[g.recordedID] == nil {
			undisturbed[g.recordedID] = make(map[int]float64)
			for _, call := range calls[g.recordedID] {
				undisturbed[g.recordedID][call.index] = call.margin
			}
		}
		for _, call := range calls[id] {
			if before, ok := undisturbed[g.recordedID][call.index]; ok {
				compared++
				most = max(most, math.Abs(call.margin-before))
			}
		}
	}
	c.server.t.Logf("margins below the bound: %d compared with those of the undisturbed answers, moved by %.6f at most", compared, most)
	if most > marginBound {
		c.server.t.Errorf("a margin moved by %v, the stated bound is %v", most, marginBound)
	}
}
