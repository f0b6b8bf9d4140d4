package models

import (
	"slices"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	now := at(100)
	queued := seat{state: seatQueued, requested: now}
	loading := seat{state: seatLoading, requested: now}
	closing := seat{state: seatClosing, requested: at(1)}
	idle := func(requested int) seat { return seat{state: seatResident, requested: at(requested), resident: at(0)} }
	busy := func(requested, resident int) seat {
		return seat{state: seatResident, leases: 1, requested: at(requested), resident: at(resident)}
	}
	making := seat{state: seatCondemned, leases: 1, requested: at(5), resident: at(0), reprieve: true}
	changed := seat{state: seatCondemned, leases: 1, requested: at(5), resident: at(0)}
	empty := seat{state: seatCondemned, requested: at(5), resident: at(0)}

	tests := []struct {
		name   string
		places int
		seats  []seat
		want   verdict
	}{
		{"nothing to do", 2, []seat{idle(1), busy(2, 0)}, verdict{}},
		{"a free place", 2, []seat{idle(1), queued}, verdict{start: []int{1}}},
		{"two free places, first come first", 3, []seat{idle(1), queued, queued, queued}, verdict{start: []int{1, 2}, evict: []int{0}}},
		{"the idle one that nobody asked for longest goes", 3, []seat{idle(9), idle(3), idle(7), queued}, verdict{evict: []int{1}}},
		{"an idle one goes before a busy one that is older", 2, []seat{busy(1, 0), idle(50), queued}, verdict{evict: []int{1}}},
		{"all busy: the least recently requested one must empty", 2, []seat{busy(9, 0), busy(4, 0), queued}, verdict{condemn: []int{1}}},
		{"not before it was there for two seconds", 1, []seat{busy(4, 99), queued}, verdict{wake: at(101)}},
		{"another one that was there longer", 2, []seat{busy(4, 99), busy(9, 0), queued}, verdict{condemn: []int{1}, wake: at(101)}},
		{"one is already emptying", 2, []seat{making, busy(9, 0), queued}, verdict{}},
		{"one is already closing", 2, []seat{closing, busy(9, 0), queued}, verdict{}},
		{"two waiting, one closing", 2, []seat{closing, busy(9, 0), queued, queued}, verdict{condemn: []int{1}}},
		{"places of loads in hand count", 2, []seat{loading, loading, queued}, verdict{}},
		{"empty and condemned", 2, []seat{empty, busy(9, 0), queued}, verdict{evict: []int{0}}},
		{"nobody waits any more", 2, []seat{making, busy(9, 0)}, verdict{pardon: []int{0}}},
		{"an idle one goes although another is emptying", 2, []seat{making, idle(9), queued}, verdict{evict: []int{1}, pardon: []int{0}}},
		{"an idle one goes before more must empty", 2, []seat{making, idle(9), queued, queued}, verdict{evict: []int{1}}},
		{"one whose files changed isn't pardoned", 2, []seat{changed, busy(9, 0)}, verdict{}},
		{"closing makes room, so the emptying one may stay", 2, []seat{making, closing, queued}, verdict{pardon: []int{0}}},
		{"idle ones stay while there is room", 5, []seat{idle(1), idle(2), idle(3)}, verdict{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := decide(tt.places, tt.seats, now, 2*time.Second)
			if !slices.Equal(got.start, tt.want.start) || !slices.Equal(got.evict, tt.want.evict) ||
				!slices.Equal(got.condemn, tt.want.condemn) || !slices.Equal(got.pardon, tt.want.pardon) || !got.wake.Equal(tt.want.wake) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}
