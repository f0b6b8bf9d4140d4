package admission

import (
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// crowd asks for promises for so many clients of a key.
func crowd(p *Promises, key uint64, clients int, wait, takes, at time.Duration) (seconds []int) {
	for range clients {
		seconds = append(seconds, int(p.Next(key, wait, takes, start.Add(at))/time.Second))
	}
	return seconds
}

func TestPromises(t *testing.T) {
	type group struct {
		key              uint64
		clients          int
		wait, takes, now time.Duration
		want             []int // of the last ones
	}
	tests := []struct {
		name   string
		groups []group
	}{
		{"room soon", []group{{1, 1, 0, 300 * ms, 0, []int{1}}}},
		{"not before there is room", []group{{1, 1, 2300 * ms, 300 * ms, 0, []int{3}}}},
		{"one after the other, as fast as they can be served", []group{{1, 8, 1500 * ms, 300 * ms, 0, []int{2, 2, 2, 3, 3, 3, 4, 4}}}},
		{"work that goes on in the next second", []group{{1, 4, 0, 600 * ms, 0, []int{1, 1, 2, 3}}}},
		{"much work", []group{{1, 1, 0, 9 * time.Second, 0, []int{1}}, {1, 2, 0, 300 * ms, 0, []int{11, 11}}}},
		{"promises pass", []group{{1, 9, 0, 300 * ms, 0, []int{3}}, {1, 1, 0, 300 * ms, 2 * time.Second, []int{2}}, {1, 1, 0, 300 * ms, time.Minute, []int{1}}}},
		{"each second has its own", []group{{1, 3, 0, 300 * ms, 0, []int{1}}, {1, 4, 0, 300 * ms, time.Second, []int{1, 1, 1, 2}}}},
		{"room before others", []group{{1, 3, 30 * time.Second, 300 * ms, 0, []int{30}}, {1, 1, 0, 300 * ms, 0, []int{1}}, {1, 1, 30 * time.Second, 300 * ms, 0, []int{31}}}},
		{"a minute at most, without a promise", []group{{1, 183, 0, 300 * ms, 0, []int{60, 60, 60, 60}}, {1, 4, 0, 300 * ms, time.Second, []int{60, 60, 60, 60}}, {1, 1, 0, 300 * ms, 61 * time.Second, []int{1}}}},
		{"a wait of more than a minute isn't a promise", []group{{1, 100, time.Hour, 300 * ms, 0, []int{60}}, {1, 1, time.Minute, 300 * ms, 0, []int{60}}, {1, 1, 59 * time.Second, 300 * ms, 0, []int{59}}}},
		{"promises to other keys", []group{{1, 100, 0, 300 * ms, 0, []int{34}}, {2, 4, 0, 300 * ms, 0, []int{1, 1, 1, 2}}}},
		{"the speed isn't known", []group{{1, 100, 0, 0, 0, []int{1, 1, 1}}}},
		{"the clock is set back", []group{{1, 4, 0, 300 * ms, time.Minute, []int{2}}, {1, 1, 0, 300 * ms, -time.Hour, []int{2}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p Promises
			for i, g := range tt.groups {
				got := crowd(&p, g.key, g.clients, g.wait, g.takes, g.now)
				if !slices.Equal(got[len(got)-len(g.want):], g.want) {
					t.Errorf("group %d: %v, want %v at the end", i, got, g.want)
				}
			}
		})
	}
}

// Keys whose promises have passed aren't kept.
func TestPromisesAreForgotten(t *testing.T) {
	var p Promises
	for key := range uint64(10 * manyPromises) {
		crowd(&p, key, 1, 0, time.Second, time.Duration(key)*10*time.Second)
	}
	if len(p.byKey) > manyPromises {
		t.Errorf("%d keys", len(p.byKey))
	}
}
