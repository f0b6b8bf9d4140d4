package models

import (
	"slices"
	"testing"
	"time"
)

func TestPlanSlots(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	now := at(100)
	queued := cacheSlot{state: slotQueued, lastRequest: now}
	loading := cacheSlot{state: slotLoading, lastRequest: now}
	unloading := cacheSlot{state: slotUnloading, lastRequest: at(1)}
	idle := func(requested int) cacheSlot {
		return cacheSlot{state: slotResident, lastRequest: at(requested), loadedAt: at(0)}
	}
	busy := func(requested, resident int) cacheSlot {
		return cacheSlot{state: slotResident, leases: 1, lastRequest: at(requested), loadedAt: at(resident)}
	}
	forRoom := cacheSlot{state: slotDraining, leases: 1, lastRequest: at(5), loadedAt: at(0), drainingForRoom: true}
	changed := cacheSlot{state: slotDraining, leases: 1, lastRequest: at(5), loadedAt: at(0)}
	empty := cacheSlot{state: slotDraining, lastRequest: at(5), loadedAt: at(0)}

	tests := []struct {
		name     string
		capacity int
		slots    []cacheSlot
		want     slotPlan
	}{
		{"nothing to do", 2, []cacheSlot{idle(1), busy(2, 0)}, slotPlan{}},
		{"a free place", 2, []cacheSlot{idle(1), queued}, slotPlan{load: []int{1}}},
		{"two free places, first come first", 3, []cacheSlot{idle(1), queued, queued, queued}, slotPlan{load: []int{1, 2}, evict: []int{0}}},
		{"the idle one that nobody asked for longest goes", 3, []cacheSlot{idle(9), idle(3), idle(7), queued}, slotPlan{evict: []int{1}}},
		{"an idle one goes before a busy one that is older", 2, []cacheSlot{busy(1, 0), idle(50), queued}, slotPlan{evict: []int{1}}},
		{"all busy: the least recently requested one must drain", 2, []cacheSlot{busy(9, 0), busy(4, 0), queued}, slotPlan{drain: []int{1}}},
		{"not before it was there for two seconds", 1, []cacheSlot{busy(4, 99), queued}, slotPlan{replanAt: at(101)}},
		{"another one that was there longer", 2, []cacheSlot{busy(4, 99), busy(9, 0), queued}, slotPlan{drain: []int{1}, replanAt: at(101)}},
		{"one is already draining", 2, []cacheSlot{forRoom, busy(9, 0), queued}, slotPlan{}},
		{"one is already unloading", 2, []cacheSlot{unloading, busy(9, 0), queued}, slotPlan{}},
		{"two waiting, one unloading", 2, []cacheSlot{unloading, busy(9, 0), queued, queued}, slotPlan{drain: []int{1}}},
		{"places of loads under way count", 2, []cacheSlot{loading, loading, queued}, slotPlan{}},
		{"empty and draining", 2, []cacheSlot{empty, busy(9, 0), queued}, slotPlan{evict: []int{0}}},
		{"nobody waits any more", 2, []cacheSlot{forRoom, busy(9, 0)}, slotPlan{keep: []int{0}}},
		{"an idle one goes although another is draining", 2, []cacheSlot{forRoom, idle(9), queued}, slotPlan{evict: []int{1}, keep: []int{0}}},
		{"an idle one goes before more must drain", 2, []cacheSlot{forRoom, idle(9), queued, queued}, slotPlan{evict: []int{1}}},
		{"one whose files changed isn't kept", 2, []cacheSlot{changed, busy(9, 0)}, slotPlan{}},
		{"unloading makes room, so the draining one may stay", 2, []cacheSlot{forRoom, unloading, queued}, slotPlan{keep: []int{0}}},
		{"idle ones stay while there is room", 5, []cacheSlot{idle(1), idle(2), idle(3)}, slotPlan{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := planSlots(tt.capacity, tt.slots, now, 2*time.Second)
			if !slices.Equal(got.load, tt.want.load) || !slices.Equal(got.evict, tt.want.evict) ||
				!slices.Equal(got.drain, tt.want.drain) || !slices.Equal(got.keep, tt.want.keep) || !got.replanAt.Equal(tt.want.replanAt) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}
