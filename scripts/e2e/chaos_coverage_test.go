package e2e

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// loggedReplay is a line of the proxy's log that says that a request was sent to another engine.
type loggedReplay struct {
	requestID      string
	request        int  // index in chaosTest.requests
	tokensBefore   int  // of the answer, received before
	tokensHeldBack int  // the newest of them, whose text wasn't sent yet
	constrained    bool // the answer obeys a grammar
}

var replayLine = regexp.MustCompile(`msg="request is sent again" request_id=(chaos-(\d+)-\d+) .* tokens=(\d+) held=(\d+) constrained=(\w+) `)

func (c *chaosTest) loggedReplays() []loggedReplay {
	var all []loggedReplay
	for line := range strings.Lines(c.server.proxy.log.String()) {
		m := replayLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		r := loggedReplay{requestID: m[1], constrained: m[5] == "true"}
		r.request, _ = strconv.Atoi(m[2]) // all three are digits
		r.tokensBefore, _ = strconv.Atoi(m[3])
		r.tokensHeldBack, _ = strconv.Atoi(m[4])
		all = append(all, r)
	}
	return all
}

// replayCoverage counts at which points answers were interrupted.
type replayCoverage struct {
	replays, beforeFirstToken, midAnswer int

	insideCharacter, insideStop, insideGrammar int

	beforeLastToken             int // only the last token was missing, which comes with the end
	neverAttached, whileLoading int // engines killed before their hello, before their model was loaded
}

func (c *chaosTest) coverage(replays []loggedReplay) (v replayCoverage) {
	for _, r := range replays {
		g := c.requests[r.request]
		v.replays++
		switch {
		case r.tokensBefore == 0:
			v.beforeFirstToken++
			continue
		case r.tokensBefore == g.tokens-1:
			v.beforeLastToken++
		}
		v.midAnswer++
		if r.constrained {
			v.insideGrammar++
		}
		switch {
		case r.tokensHeldBack == 0:
		case g.holdsBack == "character":
			v.insideCharacter++
		case g.holdsBack == "stop":
			v.insideStop++
		}
	}
	started, attached, loaded := c.countEngines()
	v.neverAttached, v.whileLoading = started-attached, attached-loaded
	return v
}

var (
	startedLine  = regexp.MustCompile(`msg="engine process started"`)
	attachedLine = regexp.MustCompile(`msg="engine attached"`)
	lostOrLoaded = regexp.MustCompile(`msg="(engine lost|model loaded)"`)
)

// countEngines counts the engines that were started, that sent their hello, and that loaded a model before they were
// lost.
func (c *chaosTest) countEngines() (started, attached, loaded int) {
	text := c.server.proxy.log.String()
	attached = len(attachedLine.FindAllString(text, -1))
	hasModel := false
	for _, m := range lostOrLoaded.FindAllStringSubmatch(text, -1) {
		switch {
		case m[1] == "engine lost":
			hasModel = false
		case !hasModel:
			hasModel = true
			loaded++
		}
	}
	return len(startedLine.FindAllString(c.server.engine.log.String(), -1)), attached, loaded
}

func (c *chaosTest) checkCoverage(scraped metrics, kills int) {
	t := c.server.t
	t.Helper()
	replays := c.loggedReplays()
	v := c.coverage(replays)
	t.Logf("%d replays: %d before a token, %d in mid-answer, of those %d inside a character, %d in the hold-back of a stop, %d in a grammar, %d before the last token",
		v.replays, v.beforeFirstToken, v.midAnswer, v.insideCharacter, v.insideStop, v.insideGrammar, v.beforeLastToken)
	t.Logf("engines killed before hello: %d, before their model was loaded: %d", v.neverAttached, v.whileLoading)
	outages := scraped.sum("llm_engine_recovery_seconds_count")
	interrupted, uninterrupted := c.longestGaps(replays)
	t.Logf("recovery: %.0f outages, mean %.0f ms; longest gap of a stream: median %v of %d that were cut, %v of %d that weren't",
		outages, 1000*scraped.sum("llm_engine_recovery_seconds_sum")/outages, median(interrupted), len(interrupted), median(uninterrupted), len(uninterrupted))
	if got := int(scraped.sum("llm_requests_replayed_total")); got > v.replays || got == 0 {
		t.Errorf("%d replays counted, %d logged", got, v.replays)
	}
	atLeast := func(what string, got, want int) {
		if got < want {
			t.Errorf("%d %s, at least %d should be covered", got, what, want)
		}
	}
	atLeast("replays", v.replays, kills)
	if !c.long || kills < 100 {
		return
	}
	atLeast("replays in mid-answer", v.midAnswer, 500)
	atLeast("cuts inside a character", v.insideCharacter, 20)
	atLeast("cuts in the hold-back of a stop", v.insideStop, 20)
	atLeast("cuts before the last token", v.beforeLastToken, 20)
	if withLlama {
		atLeast("cuts in a grammar", v.insideGrammar, 20)
	}
}

// longestGaps returns the longest gap of each stream that holds no text back, separately for those that were
// interrupted in mid-answer.
func (c *chaosTest) longestGaps(replays []loggedReplay) (interrupted, uninterrupted []time.Duration) {
	cuts, early := make(map[string]int), make(map[string]bool)
	for _, r := range replays {
		cuts[r.requestID]++
		early[r.requestID] = early[r.requestID] || r.tokensBefore == 0
	}
	for id, s := range c.streams {
		switch {
		case s.request.holdsBack != "" || early[id]:
		case cuts[id] == 0:
			uninterrupted = append(uninterrupted, s.longestGap)
		default:
			interrupted = append(interrupted, s.longestGap)
		}
	}
	return interrupted, uninterrupted
}

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2].Round(time.Millisecond)
}
