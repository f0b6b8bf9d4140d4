package supervise

import "time"

const (
	crashWindow  = 60 * time.Second
	crashLimit   = 5
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 2 * time.Second
)

// restartDecision is what the supervisor does after an engine's end.
type restartDecision struct {
	giveUp  bool
	wait    time.Duration // before the next start
	crashes int           // without progress, within the window, this one included
}

// restartPolicy decides about restarts. It has no clock: times are arguments.
type restartPolicy struct {
	crashes     []time.Duration // when, without progress in between; since any fixed moment
	nextBackoff time.Duration
}

// engineEnded decides what to do after an end at now. progress: the engine generated at least one token.
func (p *restartPolicy) engineEnded(kind Kind, progress bool, now time.Duration) restartDecision {
	if kind == Upgrade || progress {
		p.crashes, p.nextBackoff = nil, 0
	}
	if kind == Upgrade {
		return restartDecision{}
	}
	for len(p.crashes) > 0 && now-p.crashes[0] > crashWindow {
		p.crashes = p.crashes[1:]
	}
	p.crashes = append(p.crashes, now)
	decision := restartDecision{crashes: len(p.crashes), wait: p.nextBackoff, giveUp: len(p.crashes) >= crashLimit}
	p.nextBackoff = min(max(2*p.nextBackoff, firstBackoff), lastBackoff)
	return decision
}
