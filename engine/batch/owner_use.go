package batch

import (
	"math"
	"time"
)

const (
	// useMemory is over how long an owner's use is averaged.
	useMemory = 10 * time.Second
	// forgottenUse: an owner that used less isn't remembered.
	forgottenUse = float64(100 * time.Microsecond)
)

// ownerUse is how much of the last seconds each owner's parts of divided steps would have taken alone, in ns, earlier
// ones weighing less.
type ownerUse struct {
	ns map[string]float64
	at time.Duration // as of when
}

// add counts an owner's part of a step.
func (u *ownerUse) add(owner string, ns float64, now time.Duration) {
	u.fadeTo(now)
	if u.ns == nil {
		u.ns = make(map[string]float64)
	}
	u.ns[owner] += ns
}

func (u *ownerUse) fadeTo(now time.Duration) {
	if now == u.at {
		return
	}
	keep := math.Exp(-(now - u.at).Seconds() / useMemory.Seconds())
	u.at = now
	for owner := range u.ns {
		if u.ns[owner] *= keep; u.ns[owner] < forgottenUse {
			delete(u.ns, owner)
		}
	}
}

// of is what part of the time an owner used.
func (u *ownerUse) of(owner string, now time.Duration) float64 {
	u.fadeTo(now)
	return u.ns[owner] / float64(useMemory)
}

// severalLately reports whether several owners had something to compute in the last seconds, or a minute if it was
// much.
func (u *ownerUse) severalLately(now time.Duration) bool {
	if len(u.ns) < 2 { // of one alone it makes no difference how much it was
		return false
	}
	u.fadeTo(now)
	return len(u.ns) > 1
}

// stretch is how many times as long as alone the steps of owners with a share of the weights may be on average: as many
// as the share makes them, or fewer while they used less of the time than that.
func stretch(used, share float64) float64 {
	return min(1/share, max(leastStretch, used/(share*share)))
}
