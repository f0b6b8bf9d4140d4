package inflight

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/journal"
	"tandem/proxy/metrics"
	"tandem/proxy/queue"
)

// Table owns every request from admission to its end. It implements server.Requests for the HTTP side and EngineHandler
// for the engines' side. One mutex guards everything; what is called under it never blocks.
type Table struct {
	options Options
	metrics *metrics.Metrics
	log     *slog.Logger

	mu        sync.Mutex
	entries   map[uint64]*entry // those that aren't done, by id
	unsettled int               // entries whose Settle hasn't come, done or not
	lastID    uint64
	lastOrder uint64
	queue     *queue.Queue
	journal   *journal.Journal
	draining  bool
	stalled   []*answerGroup // none of their choices is left, and the next one waits for room in the journal

	engines           []*engine // attached, oldest first
	instances         engineInstances
	shownEngine       uint64        // number of the one whose own metrics were fetched last
	enginesChanged    chan struct{} // closed and made anew when a call may find an engine that it found none before
	catalog           catalog       // of the newest engine that has sent one; see chooseCatalog
	lastHello         Hello         // of the engine that attached last
	disconnectedSince time.Time     // no engine is attached since then; zero while one is
	unavailableSince  time.Time     // no engine takes new requests since then; zero while one does
	everReady         bool
	lastLoadedDefault modelVersion            // the default model when it was loaded last
	reportedLoaded    map[modelVersion]Loaded // what the metrics show as loaded
	reportedAdapters  string                  // what the metrics show of loaded and waiting versions
	metricsSweptAt    time.Time               // when the metrics last got the list of installed models

	outage          outage
	crashLoop       crashLoop
	lastLost        lostEngine
	quarantine      quarantine
	memoryShortages map[modelVersion]memoryShortage

	work             map[string]*baseWork // by base
	overdueCheckedAt time.Time
}

// modelVersion names a version of a model.
type modelVersion struct{ model, version string }

func (mv modelVersion) String() string { return mv.model + "@" + mv.version }

// isAdapter reports whether this is more than the weights that all versions share.
func (mv modelVersion) isAdapter() bool { return mv.version != "" && mv.version != api.BaseVersion }

// outage is the time without any engine. It ends with the first token after it or, without requests that wait for one,
// when the next engine could serve.
type outage struct {
	since       time.Time // zero: none, or it ended
	readyAt     time.Time // when the next engine could serve; zero: none can
	hadRequests bool      // requests waited for its end
}

// New makes a request table. Nothing happens on its own before Run.
func New(o Options) *Table {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	t := &Table{
		options: o, metrics: o.Metrics, log: o.Log,
		entries:           make(map[uint64]*entry),
		lastID:            rand.Uint64() &^ (1<<32 - 1), // so that ids of another proxy process aren't used again
		queue:             queue.New(queue.Limits{Items: o.QueueCapacity, Bytes: o.QueueMaxBytes, Work: o.QueueMaxTokens, KeyShare: o.QueueKeyShare}),
		journal:           journal.New(o.JournalMaxBytes),
		instances:         engineInstances{latest: make(map[uint64]engineInstance)},
		enginesChanged:    make(chan struct{}),
		disconnectedSince: time.Now(),
		unavailableSince:  time.Now(),
		reportedLoaded:    make(map[modelVersion]Loaded),
		quarantine:        newQuarantine(),
		memoryShortages:   make(map[modelVersion]memoryShortage),
		work:              make(map[string]*baseWork),
	}
	t.metrics.SetQueueCapacity(o.QueueCapacity)
	return t
}

// Run checks timeouts until ctx ends and every request is settled. When ctx ends, requests that aren't done get an
// error.
func (t *Table) Run(ctx context.Context) {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	stop := ctx.Done()
	for {
		select {
		case <-stop:
			stop = nil
			t.shutdown()
		case <-ticker.C:
			t.tick(time.Now())
		}
		if stop == nil && t.isIdle() {
			return
		}
	}
}

// shutdown answers every request that isn't done with an error.
func (t *Table) shutdown() {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.draining = true
	for _, en := range t.entriesByOrder() {
		t.fail(en, api.Draining(), now)
	}
	for _, g := range t.stalled {
		if !g.closed {
			g.fail(g.first(), api.Draining())
		}
	}
	t.advanceDraining()
	t.updateGauges()
}

// isIdle reports whether every request is settled.
func (t *Table) isIdle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.unsettled == 0
}

// entriesByOrder returns all requests that aren't done, oldest first.
func (t *Table) entriesByOrder() []*entry {
	all := make([]*entry, 0, len(t.entries))
	for _, en := range t.entries {
		all = append(all, en)
	}
	slices.SortFunc(all, byOrder)
	return all
}

func byOrder(a, b *entry) int {
	if a.order < b.order {
		return -1
	}
	return 1
}
