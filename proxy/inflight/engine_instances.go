package inflight

import (
	"maps"
	"time"
)

// engineInstances are the engine processes that the proxy has met, by their hello's Instance. One that connects again
// is no other engine.
type engineInstances struct {
	met    uint64 // how many
	latest map[uint64]engineInstance
}

// engineInstance is one process.
type engineInstance struct {
	number uint64    // in the order in which they were met
	lostAt time.Time // zero: it is attached
}

// forgetInstanceAfter is how long an engine that was lost is remembered; one that still runs comes again at once.
const forgetInstanceAfter = time.Hour

// attached returns the number of an engine process that connected, and whether it was met before.
func (i *engineInstances) attached(instance uint64, now time.Time) (number uint64, again bool) {
	maps.DeleteFunc(i.latest, func(_ uint64, x engineInstance) bool {
		return !x.lostAt.IsZero() && now.Sub(x.lostAt) > forgetInstanceAfter
	})
	x, again := i.latest[instance]
	if !again {
		i.met++
		x.number = i.met
	}
	i.latest[instance] = engineInstance{number: x.number}
	return x.number, again
}

// lost notes that the connection of an engine process ended.
func (i *engineInstances) lost(instance uint64, now time.Time) {
	i.latest[instance] = engineInstance{i.latest[instance].number, now}
}
