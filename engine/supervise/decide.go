package supervise

import (
	"fmt"
	"time"
)

const (
	crashWindow  = 60 * time.Second
	crashLimit   = 5
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 2 * time.Second
	startTimeout = 60 * time.Second // until an engine's first heartbeat, at least
)

// verdict is what follows an engine's end.
type verdict struct {
	giveUp  bool
	wait    time.Duration // before the next start
	crashes int           // without progress, within the window, this one included
}

// policy decides about restarts. Pure: it sees no clock but what it is told.
type policy struct {
	crashes []time.Duration // when, without progress in between; since any fixed moment
	backoff time.Duration
}

// ended tells what to do after an end at now. progress: the engine gave at least one token.
func (p *policy) ended(kind Kind, progress bool, now time.Duration) verdict {
	if kind == Upgrade || progress {
		p.crashes, p.backoff = nil, 0
	}
	if kind == Upgrade {
		return verdict{}
	}
	for len(p.crashes) > 0 && now-p.crashes[0] > crashWindow {
		p.crashes = p.crashes[1:]
	}
	p.crashes = append(p.crashes, now)
	v := verdict{crashes: len(p.crashes), wait: p.backoff, giveUp: len(p.crashes) >= crashLimit}
	p.backoff = min(max(2*p.backoff, firstBackoff), lastBackoff)
	return v
}

// watch judges an engine by its heartbeats. Times are of the supervisor's own clock, so that a suspended machine hurts nobody.
type watch struct {
	stall    time.Duration // without a new heartbeat
	begun    time.Duration
	seen     bool
	sequence uint64
	changed  time.Duration // when sequence was seen to move
	last     Heartbeat
}

// observe takes the present content of the heartbeat file, if there is one of this engine.
func (w *watch) observe(h Heartbeat, now time.Duration) {
	if w.seen && h.Sequence == w.sequence {
		return
	}
	w.seen, w.sequence, w.changed, w.last = true, h.Sequence, now, h
}

// overdue says why the engine counts as hung, or nothing.
func (w *watch) overdue(now time.Duration) string {
	if !w.seen {
		if limit := max(startTimeout, w.stall); now-w.begun > limit {
			return fmt.Sprintf("no heartbeat within %v of the start", limit)
		}
		return ""
	}
	silent := now - w.changed
	if silent > w.stall {
		return fmt.Sprintf("no heartbeat for %v", silent.Round(time.Second))
	}
	for _, b := range w.last.Activities {
		if age := b.Age + silent; b.Budget > 0 && age > b.Budget {
			return fmt.Sprintf("%s is in phase %s without progress for %v, allowed are %v", b.Name, b.Phase, age.Round(time.Millisecond), b.Budget)
		}
	}
	return ""
}
