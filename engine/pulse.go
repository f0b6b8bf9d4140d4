package main

import (
	"context"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"tandem/engine/metrics"
	"tandem/engine/supervise"
)

// heartbeat writes the file by which the supervisor and probes judge this process. One goroutine writes; the flags are set by others.
type heartbeat struct {
	path      string
	wake      chan struct{} // a place for one: write now
	sequence  uint64
	started   atomic.Bool
	connected atomic.Bool
	tokens    atomic.Uint64
}

func (h *heartbeat) open(socket string) (err error) {
	h.wake = make(chan struct{}, 1)
	h.path, err = supervise.HeartbeatFile(socket)
	return err
}

// nudge asks for a heartbeat now, because something happened that must be known if the process dies in the next moment.
func (h *heartbeat) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends and removes the file then. A write that fails is logged once.
func (h *heartbeat) run(ctx context.Context, content func() supervise.Heartbeat, log *slog.Logger) {
	defer os.Remove(h.path)
	tick := time.NewTicker(supervise.HeartbeatInterval)
	defer tick.Stop()
	failing := false
	for {
		b := content()
		h.sequence++
		b.Sequence, b.PID = h.sequence, os.Getpid()
		b.Started, b.Connected, b.Progress = h.started.Load(), h.connected.Load(), h.tokens.Load()
		err := supervise.WriteHeartbeat(h.path, b)
		if err != nil && !failing {
			log.Error("heartbeat can't be written", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.wake:
		}
	}
}

// pulse is the content of a heartbeat now.
func (e *engine) pulse() supervise.Heartbeat {
	var h supervise.Heartbeat
	for _, b := range e.link.Beats() {
		h.Beats = append(h.Beats, supervise.Beat{Name: b.Name, Phase: b.Phase, Counter: b.Counter, Age: b.Age, Budget: b.Budget})
	}
	if loads := e.cache.Loads(); len(loads) > 0 {
		l := loads[0]
		h.Loading = &supervise.Loading{Model: l.Model, Version: l.Version, Revision: l.Revision}
	}
	return h
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
