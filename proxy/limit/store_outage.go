package limit

import (
	"log/slog"
	"time"
)

// storeOutage is the time during which the store doesn't answer, and what is logged about it: its begin and its end,
// but for a store that comes and goes at most once in logInterval.
type storeOutage struct {
	log            *slog.Logger // names the store
	downSince      time.Time    // zero: the store answers
	loggedAt       time.Time    // when the last outage was logged
	unlogged       bool         // this outage was not logged
	unloggedBefore int          // how many outages before it were not
}

func (o *storeOutage) begin(err error, now time.Time) {
	if o.downSince.IsZero() {
		o.downSince = now
	}
	if !o.loggedAt.IsZero() && now.Sub(o.loggedAt) < logInterval {
		o.unlogged = true
		return
	}
	o.log.Warn("the store of the rate limits is away; this proxy counts by itself until it answers", "error", err, "unlogged_before", o.unloggedBefore)
	o.loggedAt, o.unlogged, o.unloggedBefore = now, false, 0
}

// logDue reports whether an outage that was not logged has lasted until it may be.
func (o *storeOutage) logDue(now time.Time) bool {
	return o.unlogged && now.Sub(o.loggedAt) >= logInterval
}

func (o *storeOutage) end(now time.Time) {
	switch {
	case o.unlogged:
		o.unloggedBefore++
	case !o.downSince.IsZero():
		o.log.Info("the store of the rate limits answers again; requests are counted there", "away", now.Sub(o.downSince).Round(time.Millisecond))
	}
	o.downSince, o.unlogged = time.Time{}, false
}
