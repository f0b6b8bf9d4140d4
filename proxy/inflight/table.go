package inflight

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"tandem/proxy/journal"
	"tandem/proxy/metrics"
	"tandem/proxy/queue"
)

// Table owns every request from admission to its end. It implements Server for the HTTP side and EngineHandler for the engines' side. One mutex
// guards everything; what is called under it never blocks.
type Table struct {
	o   Options
	m   *metrics.Metrics
	log *slog.Logger

	mu        sync.Mutex
	entries   map[uint64]*entry // those that aren't done, by id
	unsettled int               // entries whose Settle hasn't come, done or not
	lastID    uint64
	lastOrder uint64
	queue     *queue.Queue
	journal   *journal.Journal
	draining  bool

	engines   []*engine // attached, oldest first
	names     catalog   // last one said by any engine
	last      Hello     // of the engine that attached last
	awaySince time.Time // no engine is attached since then; zero while one is
	vacant    time.Time // no engine takes new requests since then; zero while one does
	everReady bool
	served    pair            // the default model when it was loaded last
	shown     map[pair]Loaded // what the metrics say is loaded
	adapters  string          // what the metrics say of running and waiting versions
	sweptAt   time.Time       // when the metrics last heard what is installed

	outage  outage
	loop    crashLoop
	graves  grave
	refused refusals
	short   map[pair]shortage
}

// pair names a version of a model.
type pair struct{ model, version string }

func (p pair) String() string { return p.model + "@" + p.version }

// outage is the time without any engine.
type outage struct {
	since time.Time // zero: none, or it ended
	work  bool      // requests waited for its end
}

// New makes a request table. Nothing happens on its own before Run.
func New(o Options) *Table {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	d := &Table{
		o: o, m: o.Metrics, log: o.Log,
		entries:   make(map[uint64]*entry),
		lastID:    rand.Uint64() &^ (1<<32 - 1), // ids of another proxy process don't come back
		queue:     queue.New(queue.Limits{Items: o.QueueCapacity, Bytes: o.QueueMaxBytes}),
		journal:   journal.New(o.JournalMaxBytes),
		awaySince: time.Now(),
		vacant:    time.Now(),
		shown:     make(map[pair]Loaded),
		refused:   newRefusals(),
		short:     make(map[pair]shortage),
	}
	d.m.SetQueueCapacity(o.QueueCapacity)
	return d
}

// gauges says how much waits and is remembered.
func (d *Table) gauges() {
	d.m.SetQueued(d.queue.Len())
	d.m.SetJournalBytes(d.journal.Bytes())
}
