package supervise

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// HeartbeatWriter writes the file by which the supervisor and probes judge this process. Its methods may be called from
// any goroutine.
type HeartbeatWriter struct {
	path       string
	activities func() []Activity
	log        *slog.Logger
	writeNow   chan struct{} // a place for one
	started    atomic.Bool
	connected  atomic.Bool
	tokens     atomic.Uint64

	mu          sync.Mutex
	sequence    uint64
	loads       []Loading // under way, oldest first
	memory      []FoundMemory
	writeFailed bool // the last time
	stopped     bool // nothing is written any more
}

// NewHeartbeatWriter finds the place of the file; Run writes it. activities gives the state of everything that works;
// it is called from other goroutines from the first load on.
func NewHeartbeatWriter(socket string, activities func() []Activity, log *slog.Logger) (*HeartbeatWriter, error) {
	path, err := HeartbeatFile(socket)
	if err != nil {
		return nil, err
	}
	return &HeartbeatWriter{path: path, activities: activities, log: log, writeNow: make(chan struct{}, 1)}, nil
}

// SetStarted notes that preloading is over.
func (h *HeartbeatWriter) SetStarted() { h.started.Store(true) }

// SetConnected notes whether the proxy is connected.
func (h *HeartbeatWriter) SetConnected(connected bool) { h.connected.Store(connected) }

// AddTokens counts generated tokens. The first ones are written soon: they must be known if the process dies, since an
// engine that gave a token isn't in a crash loop.
func (h *HeartbeatWriter) AddTokens(n int) {
	if h.tokens.Add(uint64(n)) != uint64(n) {
		return
	}
	select {
	case h.writeNow <- struct{}{}:
	default:
	}
}

// SetLoading notes the begin or end of a load. It returns when that is in the file: whether the process dies in a load
// or just after it decides whether the model or a request is to blame.
func (h *HeartbeatWriter) SetLoading(l Loading, loading bool) {
	h.mu.Lock()
	if loading {
		h.loads = append(h.loads, l)
	} else if i := slices.IndexFunc(h.loads, func(x Loading) bool { return x.Model == l.Model && x.Version == l.Version }); i >= 0 {
		h.loads = slices.Delete(h.loads, i, i+1)
	}
	h.mu.Unlock()
	h.write()
}

// SetMemory notes what was found on accelerators, for the engine after this one.
func (h *HeartbeatWriter) SetMemory(found []FoundMemory) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.memory = found
}

// Run writes until ctx ends. Then it removes the file, unless that is the supervisor's, who keeps its room on the disk.
func (h *HeartbeatWriter) Run(ctx context.Context) {
	defer h.stop()
	tick := time.NewTicker(HeartbeatInterval)
	defer tick.Stop()
	for {
		h.write()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-h.writeNow:
		}
	}
}

func (h *HeartbeatWriter) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	if os.Getenv(heartbeatEnv) == "" {
		_ = os.Remove(h.path) // there may be none
	}
}

// write replaces the file. The first of several failures is logged.
func (h *HeartbeatWriter) write() {
	activities := h.activities()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return
	}
	h.sequence++
	err := WriteHeartbeat(h.path, Heartbeat{
		Sequence: h.sequence, PID: os.Getpid(), Started: h.started.Load(), Connected: h.connected.Load(),
		Progress: h.tokens.Load(), Activities: activities, Loads: h.loads, Memory: h.memory,
	})
	if err != nil && !h.writeFailed {
		h.log.Error("heartbeat can't be written", "err", err)
	}
	h.writeFailed = err != nil
}
