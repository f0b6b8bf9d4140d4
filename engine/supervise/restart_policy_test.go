package supervise

import (
	"testing"
	"time"
)

func TestRestartPolicy(t *testing.T) {
	type end struct {
		at       time.Duration
		kind     Kind
		progress bool
		want     restartDecision
	}
	s, ms := time.Second, time.Millisecond
	for name, ends := range map[string][]end{
		"backs off and gives up": {
			{0, Signal, false, restartDecision{crashes: 1}},
			{1 * s, Signal, false, restartDecision{crashes: 2, wait: 100 * ms}},
			{2 * s, Exit, false, restartDecision{crashes: 3, wait: 200 * ms}},
			{3 * s, OOM, false, restartDecision{crashes: 4, wait: 400 * ms}},
			{4 * s, Stall, false, restartDecision{crashes: 5, wait: 800 * ms, giveUp: true}},
		},
		"progress starts over": {
			{0, Signal, false, restartDecision{crashes: 1}},
			{1 * s, Signal, false, restartDecision{crashes: 2, wait: 100 * ms}},
			{2 * s, Signal, true, restartDecision{crashes: 1}},
			{3 * s, Signal, false, restartDecision{crashes: 2, wait: 100 * ms}},
		},
		"kills with progress never end it": {
			{0, Signal, true, restartDecision{crashes: 1}},
			{1 * s, Signal, true, restartDecision{crashes: 1}},
			{2 * s, Signal, true, restartDecision{crashes: 1}},
			{3 * s, Signal, true, restartDecision{crashes: 1}},
			{4 * s, Signal, true, restartDecision{crashes: 1}},
			{5 * s, Signal, true, restartDecision{crashes: 1}},
		},
		"an upgrade is no crash": {
			{0, Signal, false, restartDecision{crashes: 1}},
			{1 * s, Upgrade, false, restartDecision{}},
			{2 * s, Signal, false, restartDecision{crashes: 1}},
		},
		"old crashes count no more, the wait stays bounded": {
			{0, Signal, false, restartDecision{crashes: 1}},
			{61 * s, Signal, false, restartDecision{crashes: 1, wait: 100 * ms}},
			{122 * s, Signal, false, restartDecision{crashes: 1, wait: 200 * ms}},
			{183 * s, Signal, false, restartDecision{crashes: 1, wait: 400 * ms}},
			{244 * s, Signal, false, restartDecision{crashes: 1, wait: 800 * ms}},
			{305 * s, Signal, false, restartDecision{crashes: 1, wait: 1600 * ms}},
			{366 * s, Signal, false, restartDecision{crashes: 1, wait: 2 * s}},
			{427 * s, Signal, false, restartDecision{crashes: 1, wait: 2 * s}},
		},
	} {
		var p restartPolicy
		for i, e := range ends {
			if got := p.engineEnded(e.kind, e.progress, e.at); got != e.want {
				t.Errorf("%s, end %d: %+v, want %+v", name, i, got, e.want)
			}
		}
	}
}
