package supervise

import (
	"fmt"
	"time"
)

// startTimeout is how long an engine may take to its first heartbeat, or stallTimeout if that is longer.
const startTimeout = 60 * time.Second

// maxLookGap is how far apart the supervisor's looks at an engine may be. With more between them the supervisor didn't
// run, and so probably neither did the engine: the container, the unit or the machine was frozen.
const maxLookGap = 3 * checkInterval

// hangDetector decides by the heartbeats whether an engine hangs. Times are of the supervisor's own clock, which stands
// while the machine is suspended, but not while processes are frozen; time between looks that are too far apart
// doesn't count.
type hangDetector struct {
	stallTimeout  time.Duration // without a new heartbeat
	startedAt     time.Duration
	seen          bool
	sequence      uint64
	changedAt     time.Duration // when sequence was last seen to change
	lastHeartbeat Heartbeat
	lookedAt      time.Duration
	resumedAt     time.Duration // when a gap between looks ended; 0: there was none
}

// look notes that the supervisor looks at the engine, before it observes what there is to see.
func (d *hangDetector) look(now time.Duration) {
	gap := now - max(d.lookedAt, d.startedAt)
	d.lookedAt = now
	if gap <= maxLookGap {
		return
	}
	d.startedAt += gap
	d.changedAt += gap
	d.resumedAt = now
}

// observe takes the content of the heartbeat file, if this engine has written one.
func (d *hangDetector) observe(h Heartbeat, now time.Duration) {
	if h.Sequence == 0 || d.seen && h.Sequence == d.sequence {
		return
	}
	d.seen, d.sequence, d.changedAt, d.lastHeartbeat = true, h.Sequence, now, h
}

// overdueReason says why the engine counts as hung; empty: it doesn't.
func (d *hangDetector) overdueReason(now time.Duration) string {
	if !d.seen {
		if limit := max(startTimeout, d.stallTimeout); now-d.startedAt > limit {
			return fmt.Sprintf("no heartbeat within %v of the start", limit)
		}
		return ""
	}
	silent := now - d.changedAt
	if silent > d.stallTimeout {
		return fmt.Sprintf("no heartbeat for %v", silent.Round(time.Second))
	}
	for _, b := range d.lastHeartbeat.Activities {
		age := b.Age + silent
		if d.resumedAt > 0 { // the engine's own clock went on in the gap
			age = min(age, now-d.resumedAt)
		}
		if b.Budget > 0 && age > b.Budget {
			return fmt.Sprintf("%s is in phase %s without progress for %v, allowed are %v", b.Name, b.Phase, age.Round(time.Millisecond), b.Budget)
		}
	}
	return ""
}
