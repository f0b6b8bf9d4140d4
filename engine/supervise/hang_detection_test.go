package supervise

import (
	"testing"
	"time"
)

// TestFrozenTimeIsNoHang is a container that is frozen for a minute, 10 s after its engine was started and 9 s after
// the last heartbeat before, if there is one.
func TestFrozenTimeIsNoHang(t *testing.T) {
	const stall, frozen, thawed = 30 * time.Second, 10 * time.Second, 70 * time.Second
	step := func(sequence uint64, age time.Duration) *Heartbeat {
		return &Heartbeat{Sequence: sequence, Activities: []Activity{{Name: "cpu", Phase: "step", Age: age, Budget: stall}}}
	}
	for name, test := range map[string]struct {
		before, after *Heartbeat    // the last one before and the one that is written after it; nil: none
		hungAfter     time.Duration // seconds after the thaw; 0: never
	}{
		"it goes on":                    {&Heartbeat{Sequence: 1}, &Heartbeat{Sequence: 2}, 0},
		"it writes nothing more":        {&Heartbeat{Sequence: 1}, nil, 22 * time.Second},
		"in a step, which ends":         {step(1, time.Second), step(2, 0), 0},
		"in a step that goes on":        {step(1, time.Second), step(2, 61*time.Second), 31 * time.Second},
		"in a step, and writes no more": {step(1, time.Second), nil, 22 * time.Second},
		"before its first heartbeat":    {nil, nil, 51 * time.Second},
	} {
		d := hangDetector{stallTimeout: stall}
		see := func(now time.Duration, h *Heartbeat) string {
			d.look(now)
			if h != nil {
				d.observe(*h, now)
			}
			return d.overdueReason(now)
		}
		for now := time.Second; now <= frozen; now += time.Second {
			if why := see(now, test.before); why != "" {
				t.Errorf("%s: %q before it is frozen", name, why)
			}
		}
		if why := see(thawed, test.before); why != "" {
			t.Errorf("%s: %q at the thaw", name, why)
		}
		hungAfter := time.Duration(0)
		for after := time.Second; after < 2*time.Minute && hungAfter == 0; after += time.Second {
			h := test.before
			if test.after != nil {
				now := *test.after
				now.Activities = nil
				for _, a := range test.after.Activities {
					if a.Age > 0 {
						a.Age += after
					}
					now.Activities = append(now.Activities, a)
				}
				now.Sequence += uint64(after)
				h = &now
			}
			if see(thawed+after, h) != "" {
				hungAfter = after
			}
		}
		if hungAfter != test.hungAfter {
			t.Errorf("%s: hung %v after the thaw, want %v", name, hungAfter, test.hungAfter)
		}
	}
}

func TestHangDetector(t *testing.T) {
	const stall = 30 * time.Second
	heartbeat := func(age, budget time.Duration) Heartbeat {
		return Heartbeat{Sequence: 1, Activities: []Activity{{Name: "cpu", Phase: "step", Age: age, Budget: budget}}}
	}
	for name, test := range map[string]struct {
		seen *Heartbeat
		now  time.Duration
		hung bool
	}{
		"starting":                      {nil, 59 * time.Second, false},
		"never began":                   {nil, 61 * time.Second, true},
		"blank":                         {&Heartbeat{}, 59 * time.Second, false},
		"blank for too long":            {&Heartbeat{}, 61 * time.Second, true},
		"fresh":                         {&Heartbeat{Sequence: 1}, 0, false},
		"late":                          {&Heartbeat{Sequence: 1}, 29 * time.Second, false},
		"silent":                        {&Heartbeat{Sequence: 1}, 31 * time.Second, true},
		"long step within its budget":   {new(heartbeat(100*time.Second, 200*time.Second)), time.Second, false},
		"step over its budget":          {new(heartbeat(29500*time.Millisecond, stall)), time.Second, true},
		"without a budget":              {new(heartbeat(time.Hour, 0)), time.Second, false},
		"over it only with the silence": {new(heartbeat(29*time.Second, stall)), 2 * time.Second, true},
	} {
		w := hangDetector{stallTimeout: stall}
		if test.seen != nil {
			w.observe(*test.seen, 0)
			w.observe(*test.seen, test.now) // the same again is no sign of life
		}
		if why := w.overdueReason(test.now); (why != "") != test.hung {
			t.Errorf("%s: %q", name, why)
		}
	}
}
