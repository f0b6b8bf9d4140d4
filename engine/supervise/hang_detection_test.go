package supervise

import (
	"testing"
	"time"
)

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
