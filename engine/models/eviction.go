package models

import (
	"cmp"
	"slices"
	"time"
)

// cacheSlot is a cache entry as planSlots sees it.
type cacheSlot struct {
	state           slotState
	leases          int
	lastRequest     time.Time // last Acquire
	loadedAt        time.Time
	drainingForRoom bool // it is draining, and only to make room
}

// slotState is where an entry is in its life.
type slotState uint8

const (
	slotQueued    slotState = iota // is to be loaded, has no place in the cache yet
	slotLoading                    // has a place
	slotResident                   // loaded
	slotDraining                   // loaded, takes no new sequences, is evicted when the last one ends
	slotUnloading                  // being freed, still has its place
)

// slotPlan is what is to happen to the entries, by their index.
type slotPlan struct {
	load     []int     // queued → loading
	evict    []int     // resident or draining, and without leases → unloading
	drain    []int     // resident → draining
	keep     []int     // draining → resident: nobody waits for its place any more
	replanAt time.Time // when to plan again although nothing happened; zero: no need
}

// planSlots gives places to the queued entries (in the order of the slice) and makes room for the others: idle
// entries go first, the least recently requested one before the others; when all are busy, the least recently
// requested one that has been resident for at least minResident stops taking new sequences.
func planSlots(capacity int, slots []cacheSlot, now time.Time, minResident time.Duration) slotPlan {
	var plan slotPlan
	byState := map[slotState][]int{}
	for i, s := range slots {
		byState[s.state] = append(byState[s.state], i)
	}
	queued, resident, draining := byState[slotQueued], byState[slotResident], byState[slotDraining]
	leaving := len(byState[slotUnloading])

	free := capacity - len(slots) + len(queued)
	for len(queued) > 0 && free > 0 {
		plan.load = append(plan.load, queued[0])
		queued, free = queued[1:], free-1
	}
	var busyDraining []int
	for _, i := range draining {
		if slots[i].leases == 0 {
			plan.evict = append(plan.evict, i)
			leaving++
		} else {
			busyDraining = append(busyDraining, i)
		}
	}

	lru := func(a, b int) int {
		return cmp.Compare(slots[a].lastRequest.UnixNano(), slots[b].lastRequest.UnixNano())
	}
	slices.SortStableFunc(resident, lru)
	missing := len(queued) - leaving
	for _, i := range resident {
		if missing > 0 && slots[i].leases == 0 {
			plan.evict = append(plan.evict, i)
			missing--
		}
	}
	missing -= len(busyDraining) // only after the idle ones: those are free at once
	for _, i := range resident {
		if missing <= 0 {
			break
		}
		if slots[i].leases == 0 {
			continue
		}
		if due := slots[i].loadedAt.Add(minResident); due.After(now) {
			if plan.replanAt.IsZero() || due.Before(plan.replanAt) {
				plan.replanAt = due
			}
			continue
		}
		plan.drain = append(plan.drain, i)
		missing--
	}
	plan.keep = slotsToKeep(slots, busyDraining, -missing, lru)
	return plan
}

// slotsToKeep picks the draining entries that needn't go after all, the most recently requested first.
func slotsToKeep(slots []cacheSlot, draining []int, spare int, lru func(a, b int) int) []int {
	var list []int
	slices.SortStableFunc(draining, lru)
	for _, i := range slices.Backward(draining) {
		if spare <= 0 {
			break
		}
		if slots[i].drainingForRoom {
			list = append(list, i)
			spare--
		}
	}
	return list
}
