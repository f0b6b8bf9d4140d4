// Package link is the engine's end of the socket: it dials the proxy, submits its requests to the executor, and sends
// back tokens, model events, statistics and the catalog. It decides nothing about decoding (package batch) or about
// which models are loaded (package models). Only this package and schema/wire know Cap'n Proto in the engine.
package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
	"tandem/schema/wire"
)

// Models is the cache of loaded models; *models.Cache is one.
type Models interface {
	Acquire(ctx context.Context, model, version string) (*models.Lease, error)
	AcquireReplay(ctx context.Context, model, version string) (*models.Lease, error)
	AwaitEvents(ctx context.Context)
	Entries() []models.Entry
	Loads() []models.LoadHeartbeat
	Size() int
	ContextBeforeLoad(*models.Model) int
}

// Catalog lists what is installed; *models.Registry is one.
type Catalog interface {
	Snapshot() []models.Model
	Changes() <-chan struct{}
}

// Executor computes answers; *batch.Executor is one.
type Executor interface {
	Check(*batch.Request) error
	Submit(*batch.Request) error
	Cancel(id uint64, attempt uint32)
	CancelSink(batch.Sink)
	Stats() []batch.BaseStats
	Heartbeat() batch.Heartbeat
}

// Options of a Link. Socket, Models, Catalog and Executor must be given; zero values of the others mean the defaults.
type Options struct {
	Socket   string // where the proxy listens
	Models   Models
	Catalog  Catalog
	Executor Executor
	Hello    Hello

	// DefaultVersion: of a request that names none, for models that have it and no default of their own
	DefaultVersion string
	WriteMetrics   func(w io.Writer)        // the engine's own metrics in Prometheus text form; nil: none
	GrammarBudget  time.Duration            // for one draw; 0: no limit
	LoadStall      time.Duration            // a load without progress for this long counts as hung; 5 min
	Workers        int                      // prompts rendered at a time; half of GOMAXPROCS
	MaxRequests    int                      // in progress of one connection; 4096
	Log            *slog.Logger             // nil: nothing is logged
	Wire           wire.Options             // limits of the connection; frames of 16 MiB, a backlog of 64 MiB
	Recorder       Recorder                 // gets every attempt that has ended; may be nil
	Connected      func(connected bool)     // called when the connection was made or lost; may be nil
	dial           func() (net.Conn, error) // for tests; nil: dials Socket
}

const (
	helloTimeout     = 5 * time.Second
	statsInterval    = 100 * time.Millisecond // between two Stats frames at least
	statsHeartbeat   = time.Second            // between two Stats frames at most
	firstRedial      = 10 * time.Millisecond
	lastRedial       = time.Second
	startGrace       = 2 * time.Second // in which a proxy that is started beside the engine opens its socket
	goodbyeTimeout   = time.Second
	defaultRequests  = 4096
	defaultLoadStall = 5 * time.Minute
	defaultFrame     = 16 << 20
	defaultBacklog   = 64 << 20
)

// Link keeps one connection to the proxy.
type Link struct {
	o           Options
	renderSlots chan struct{} // a place for each prompt being rendered

	mu       sync.Mutex
	session  *session    // nil while there is no connection
	draining *drainState // not nil once Drain was called
}

// New prepares a link; Run makes the connection.
func New(o Options) *Link {
	if o.Workers <= 0 {
		o.Workers = max(runtime.GOMAXPROCS(0)/2, 1)
	}
	if o.MaxRequests <= 0 {
		o.MaxRequests = defaultRequests
	}
	if o.LoadStall <= 0 {
		o.LoadStall = defaultLoadStall
	}
	o.Wire.MaxFrameBytes = cmp.Or(o.Wire.MaxFrameBytes, defaultFrame)
	o.Wire.BacklogBytes = cmp.Or(o.Wire.BacklogBytes, defaultBacklog)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Connected == nil {
		o.Connected = func(bool) {}
	}
	if o.dial == nil {
		o.dial = func() (net.Conn, error) { return net.DialTimeout("unix", o.Socket, helloTimeout) }
	}
	return &Link{o: o, renderSlots: make(chan struct{}, o.Workers)}
}

// Run keeps a connection until ctx ends: the proxy may start later than the engine, and be replaced. The work for a
// connection ends with it. When ctx ends it says goodbye and returns after everything it started has ended.
func (l *Link) Run(ctx context.Context) {
	started, pause := time.Now(), firstRedial
	var lastProblem string
	for ctx.Err() == nil {
		began := time.Now()
		err := l.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastRedial { // it worked for a while
			pause, lastProblem = firstRedial, ""
		}
		startsToo := errors.Is(err, fs.ErrNotExist) && time.Since(started) < startGrace
		if err != nil && !startsToo && err.Error() != lastProblem {
			lastProblem = err.Error()
			l.o.Log.Warn("no connection to the proxy, trying again", "socket", l.o.Socket, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
		pause = min(2*pause, lastRedial)
	}
}

// connect dials, exchanges hellos and serves until the connection is lost.
func (l *Link) connect(ctx context.Context) error {
	socket, err := l.o.dial()
	if err != nil {
		return fmt.Errorf("dial proxy: %w", err)
	}
	conn := wire.New(socket, l.o.Wire)
	defer conn.Close()
	goodbyeSent := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(goodbyeSent)
		sayGoodbye(conn, "engine ends")
	})
	defer func() {
		if !stop() {
			<-goodbyeSent
		}
	}()
	if err := l.exchangeHellos(conn); err != nil {
		return fmt.Errorf("greet proxy: %w", err)
	}
	s := newSession(l, conn)
	l.attach(s)
	err = s.run(ctx)
	l.detach(s)
	return err
}

// sayGoodbye sends goAway with the reason, flushes and closes.
func sayGoodbye(conn *wire.Conn, reason string) {
	_ = conn.Send(func(f schema.Frame) error { return f.SetGoAway(reason) })
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	_ = conn.CloseAfterFlush(ctx) // the connection ends either way
}

func (l *Link) attach(s *session) {
	l.mu.Lock()
	l.session = s
	d := l.draining
	l.mu.Unlock()
	l.o.Log.Info("connected to the proxy", "socket", l.o.Socket)
	l.o.Connected(true)
	if d != nil {
		s.sendDraining(d)
	}
}

func (l *Link) detach(s *session) {
	l.mu.Lock()
	l.session = nil
	d := l.draining
	l.mu.Unlock()
	l.o.Connected(false)
	if d != nil {
		d.finish() // the proxy replays its requests on another engine
	}
}

// Event sends a model event. It is dropped while there is no connection, since a new connection begins with the
// catalog.
func (l *Link) Event(e models.Event) {
	l.mu.Lock()
	s := l.session
	l.mu.Unlock()
	if s != nil {
		s.sendEvent(e)
	}
}

// shorten cuts text from outside for messages and logs.
func shorten(s string) string {
	const maxBytes = 200
	return s[:min(len(s), maxBytes)]
}
