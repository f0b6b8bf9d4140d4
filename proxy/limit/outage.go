package limit

import (
	"log/slog"
	"time"
)

// outage is the absence of the store, and what the log says about it: when it begins and when it ends, but of a store that comes and goes
// no more than once in sayEvery.
type outage struct {
	log    *slog.Logger // names the store
	since  time.Time    // zero: the store answers
	said   time.Time    // when the last one was logged
	silent bool         // this one was not
	unsaid int          // so many before it were not
}

func (o *outage) begin(err error, now time.Time) {
	if o.since.IsZero() {
		o.since = now
	}
	if !o.said.IsZero() && now.Sub(o.said) < sayEvery {
		o.silent = true
		return
	}
	o.log.Warn("the store of the rate limits is away; this proxy counts by itself until it answers", "error", err, "unlogged_before", o.unsaid)
	o.said, o.silent, o.unsaid = now, false, 0
}

// due tells whether an outage that was not logged has lasted until it may be.
func (o *outage) due(now time.Time) bool { return o.silent && now.Sub(o.said) >= sayEvery }

func (o *outage) end(now time.Time) {
	switch {
	case o.silent:
		o.unsaid++
	case !o.since.IsZero():
		o.log.Info("the store of the rate limits answers again; requests are counted there", "away", now.Sub(o.since).Round(time.Millisecond))
	}
	o.since, o.silent = time.Time{}, false
}
