package models

import (
	"cmp"
	"slices"
	"time"
)

// seat is a cache entry as the decision sees it.
type seat struct {
	state     seatState
	leases    int
	requested time.Time // last Acquire
	resident  time.Time // since when it is loaded
	reprieve  bool      // it is condemned, and only to make room
}

// seatState is where an entry is in its life.
type seatState uint8

const (
	seatQueued    seatState = iota // wants to be loaded, has no place yet
	seatLoading                    // has a place
	seatResident                   // loaded
	seatCondemned                  // loaded, takes no new sequences, goes when the last one ends
	seatClosing                    // being freed, still has its place
)

// verdict is what shall happen to the entries, by their index.
type verdict struct {
	start   []int     // queued → loading
	evict   []int     // resident or condemned, and empty → closing
	condemn []int     // resident → condemned
	pardon  []int     // condemned → resident: nobody waits for its place any more
	wake    time.Time // when to decide again although nothing happened; zero: no need
}

// decide gives out places to the queued entries (in the order of the slice) and makes room for the others: idle entries go first, the
// least recently requested one before the others; when all are busy, the least recently requested one that has been resident for at
// least minResident stops taking new sequences.
func decide(places int, seats []seat, now time.Time, minResident time.Duration) verdict {
	var v verdict
	byState := map[seatState][]int{}
	for i, s := range seats {
		byState[s.state] = append(byState[s.state], i)
	}
	queued, resident, condemned := byState[seatQueued], byState[seatResident], byState[seatCondemned]
	leaving := len(byState[seatClosing])

	free := places - len(seats) + len(queued)
	for len(queued) > 0 && free > 0 {
		v.start = append(v.start, queued[0])
		queued, free = queued[1:], free-1
	}
	var waitsToEmpty []int
	for _, i := range condemned {
		if seats[i].leases == 0 {
			v.evict = append(v.evict, i)
			leaving++
		} else {
			waitsToEmpty = append(waitsToEmpty, i)
		}
	}

	lru := func(a, b int) int { return cmp.Compare(seats[a].requested.UnixNano(), seats[b].requested.UnixNano()) }
	slices.SortStableFunc(resident, lru)
	missing := len(queued) - leaving
	for _, i := range resident {
		if missing > 0 && seats[i].leases == 0 {
			v.evict = append(v.evict, i)
			missing--
		}
	}
	missing -= len(waitsToEmpty) // only after the idle ones: those are free at once
	for _, i := range resident {
		if missing <= 0 {
			break
		}
		if seats[i].leases == 0 {
			continue
		}
		if due := seats[i].resident.Add(minResident); due.After(now) {
			if v.wake.IsZero() || due.Before(v.wake) {
				v.wake = due
			}
			continue
		}
		v.condemn = append(v.condemn, i)
		missing--
	}
	v.pardon = pardons(seats, waitsToEmpty, -missing, lru)
	return v
}

// pardons picks the entries that needn't go after all, the most recently requested first.
func pardons(seats []seat, condemned []int, spare int, lru func(a, b int) int) []int {
	var list []int
	slices.SortStableFunc(condemned, lru)
	for _, i := range slices.Backward(condemned) {
		if spare <= 0 {
			break
		}
		if seats[i].reprieve {
			list = append(list, i)
			spare--
		}
	}
	return list
}
