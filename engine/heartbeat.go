package main

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tandem/engine/metrics"
	"tandem/engine/models"
	"tandem/engine/supervise"
)

// heartbeat writes the file by which the supervisor and probes judge this process.
type heartbeat struct {
	path       string
	activities func() []supervise.Activity
	log        *slog.Logger
	wake       chan struct{} // a place for one: write now
	started    atomic.Bool
	connected  atomic.Bool
	tokens     atomic.Uint64

	mu       sync.Mutex
	sequence uint64
	loads    []supervise.Loading // under way, oldest first
	failing  bool                // the last write failed
	over     bool                // nothing is written any more
}

// open finds the place of the file. activities gives the state of everything that works; it is called from other goroutines from the first
// load on.
func (h *heartbeat) open(socket string, activities func() []supervise.Activity, log *slog.Logger) (err error) {
	h.activities, h.log, h.wake = activities, log, make(chan struct{}, 1)
	h.path, err = supervise.HeartbeatFile(socket)
	return err
}

// nudge asks for a heartbeat soon, because something happened that must be known if the process dies.
func (h *heartbeat) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// load notes the begin or end of a load. It returns when that is in the file: whether the process dies in a load or just after it decides
// whether the model or a request is to blame.
func (h *heartbeat) load(l models.LoadHeartbeat, loading bool) {
	h.mu.Lock()
	if loading {
		h.loads = append(h.loads, supervise.Loading{Model: l.Model, Version: l.Version, Revision: l.Revision})
	} else if i := slices.IndexFunc(h.loads, func(x supervise.Loading) bool { return x.Model == l.Model && x.Version == l.Version }); i >= 0 {
		h.loads = slices.Delete(h.loads, i, i+1)
	}
	h.mu.Unlock()
	h.write()
}

// run writes until ctx ends and removes the file then.
func (h *heartbeat) run(ctx context.Context) {
	defer h.end()
	tick := time.NewTicker(supervise.HeartbeatInterval)
	defer tick.Stop()
	for {
		h.write()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.wake:
		}
	}
}

func (h *heartbeat) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	_ = os.Remove(h.path) // the supervisor may have been faster
}

// write replaces the file. The first of several failures is logged.
func (h *heartbeat) write() {
	activities := h.activities()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return
	}
	h.sequence++
	b := supervise.Heartbeat{
		Sequence: h.sequence, PID: os.Getpid(), Started: h.started.Load(), Connected: h.connected.Load(), Progress: h.tokens.Load(), Activities: activities, Loads: h.loads,
	}
	err := supervise.WriteHeartbeat(h.path, b)
	if err != nil && !h.failing {
		h.log.Error("heartbeat can't be written", "err", err)
	}
	h.failing = err != nil
}

// activities are of everything that works now.
func (e *engine) activities() []supervise.Activity {
	var all []supervise.Activity
	for _, b := range e.link.Heartbeats() {
		all = append(all, supervise.Activity{Name: b.Name, Phase: b.Phase, Counter: b.Counter, Age: b.Age, Budget: b.Budget})
	}
	return all
}

// observer counts for the metrics and, of tokens, for the heartbeat: an engine that gave one isn't in a crash loop.
type observer struct {
	*metrics.Metrics
	heartbeat *heartbeat
}

func (o *observer) Tokens(base, kind string, n int) {
	o.Metrics.Tokens(base, kind, n)
	if kind == "generated" && n > 0 && o.heartbeat.tokens.Add(uint64(n)) == uint64(n) {
		o.heartbeat.nudge() // the first ones
	}
}
