package e2e

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// replay is one line of the proxy's log: a request went to another engine.
type replay struct {
	id          string
	plan        int
	tokens      int  // received before
	held        int  // of them, the newest whose text is held back
	constrained bool // by a grammar
}

var replayLine = regexp.MustCompile(`msg="request is sent again" request_id=(chaos-(\d+)-\d+) .* tokens=(\d+) held=(\d+) constrained=(\w+) `)

func (c *chaos) replays() []replay {
	var all []replay
	for line := range strings.Lines(c.s.proxy.log.String()) {
		m := replayLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		r := replay{id: m[1], constrained: m[5] == "true"}
		r.plan, _ = strconv.Atoi(m[2]) // digits, all three
		r.tokens, _ = strconv.Atoi(m[3])
		r.held, _ = strconv.Atoi(m[4])
		all = append(all, r)
	}
	return all
}

// coverage counts where answers were cut.
type coverage struct {
	all, start, middle          int // no token, some
	character, stop, grammar    int // inside of them
	last                        int // only the last token, which comes with the end, was missing
	neverAttached, whileLoading int // engines killed before they said hello, before the model was there
}

func (c *chaos) coverage(replays []replay) (v coverage) {
	for _, r := range replays {
		p := c.plans[r.plan]
		v.all++
		switch {
		case r.tokens == 0:
			v.start++
			continue
		case r.tokens == p.tokens-1:
			v.last++
		}
		v.middle++
		if r.constrained {
			v.grammar++
		}
		switch {
		case r.held == 0:
		case p.holds == "character":
			v.character++
		case p.holds == "stop":
			v.stop++
		}
	}
	started, attached, loaded := c.engines()
	v.neverAttached, v.whileLoading = started-attached, attached-loaded
	return v
}

var (
	startedLine  = regexp.MustCompile(`msg="engine process started"`)
	attachedLine = regexp.MustCompile(`msg="engine attached"`)
	lostOrLoaded = regexp.MustCompile(`msg="(engine lost|model loaded)"`)
)

// engines counts those that were started, that said hello, and that had loaded a model before they were lost.
func (c *chaos) engines() (started, attached, loaded int) {
	text := c.s.proxy.log.String()
	attached = len(attachedLine.FindAllString(text, -1))
	has := false
	for _, m := range lostOrLoaded.FindAllStringSubmatch(text, -1) {
		switch {
		case m[1] == "engine lost":
			has = false
		case !has:
			has = true
			loaded++
		}
	}
	return len(startedLine.FindAllString(c.s.engine.log.String(), -1)), attached, loaded
}

func (c *chaos) checkCoverage(p page, kills int) {
	t := c.s.t
	t.Helper()
	replays := c.replays()
	v := c.coverage(replays)
	t.Logf("%d replays: %d before a token, %d in mid-answer, of those %d inside a character, %d in the hold-back of a stop, %d in a grammar, %d before the last token",
		v.all, v.start, v.middle, v.character, v.stop, v.grammar, v.last)
	t.Logf("engines killed before hello: %d, before their model was loaded: %d", v.neverAttached, v.whileLoading)
	outages := p.sum("llm_engine_recovery_seconds_count")
	cut, whole := c.gaps(replays)
	t.Logf("recovery: %.0f outages, mean %.0f ms; longest gap of a stream: median %v of %d that were cut, %v of %d that weren't",
		outages, 1000*p.sum("llm_engine_recovery_seconds_sum")/outages, median(cut), len(cut), median(whole), len(whole))
	if got := int(p.sum("llm_requests_replayed_total")); got > v.all || got == 0 {
		t.Errorf("%d replays counted, %d logged", got, v.all)
	}
	atLeast := func(what string, got, want int) {
		if got < want {
			t.Errorf("%d %s, at least %d should be covered", got, what, want)
		}
	}
	atLeast("replays", v.all, kills)
	if !c.long || kills < 100 {
		return
	}
	atLeast("replays in mid-answer", v.middle, 500)
	atLeast("cuts inside a character", v.character, 20)
	atLeast("cuts in the hold-back of a stop", v.stop, 20)
	atLeast("cuts before the last token", v.last, 20)
	if realModel {
		atLeast("cuts in a grammar", v.grammar, 20)
	}
}

// gaps gives the longest gap of each stream that holds no text back, apart for those that were cut in mid-answer.
func (c *chaos) gaps(replays []replay) (cut, whole []time.Duration) {
	cuts, early := make(map[string]int), make(map[string]bool)
	for _, r := range replays {
		cuts[r.id]++
		early[r.id] = early[r.id] || r.tokens == 0
	}
	for id, s := range c.streams {
		switch {
		case s.plan.holds != "" || early[id]:
		case cuts[id] == 0:
			whole = append(whole, s.gap)
		default:
			cut = append(cut, s.gap)
		}
	}
	return cut, whole
}

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2].Round(time.Millisecond)
}
