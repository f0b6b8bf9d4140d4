// Package link is the engine's end of the socket: it dials the proxy, takes its requests to the executor and carries what the step loop
// and the model cache produce back. It decides nothing about decoding (package batch) or about which models are loaded (package models),
// and only here and in schema/wire does the engine know Cap'n Proto.
package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	Entries() []models.Entry
	Loads() []models.LoadHeartbeat
	Size() int
}

// Catalog lists what is installed; *models.Registry is one.
type Catalog interface {
	Snapshot() []models.Model
	Changes() <-chan struct{}
}

// Executor computes answers; *batch.Executor is one.
type Executor interface {
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
	Identity Identity

	DefaultVersion string                   // of a request that names none, for models that have it and no default of their own
	WriteMetrics   func(w io.Writer)        // the engine's own metrics in Prometheus text form; nil: none
	GrammarBudget  time.Duration            // for one draw; 0: no limit
	LoadStall      time.Duration            // a load without progress for this long counts as hung; 5 min
	Workers        int                      // prompts rendered at a time; half of GOMAXPROCS
	MaxRequests    int                      // of one connection in hand; 4096
	Log            *slog.Logger             // nil: nothing is logged
	Wire           wire.Options             // limits of the connection; frames of 16 MiB, a backlog of 64 MiB
	Recorder       Recorder                 // hears of every attempt that is over; may be nil
	Connected      func(connected bool)     // called when the proxy was reached or lost; may be nil
	dial           func() (net.Conn, error) // of tests; nil: Socket
}

const (
	helloTimeout     = 5 * time.Second
	statsInterval    = 100 * time.Millisecond // between two Stats at least
	statsHeartbeat   = time.Second            // between two Stats at most
	firstRedial      = 10 * time.Millisecond
	lastRedial       = time.Second
	goodbyeTimeout   = time.Second
	defaultRequests  = 4096
	defaultLoadStall = 5 * time.Minute
	defaultFrame     = 16 << 20
	defaultBacklog   = 64 << 20
)

// Link keeps one connection to the proxy.
type Link struct {
	o       Options
	workers chan struct{} // a place for each prompt being rendered

	mu       sync.Mutex
	session  *session // nil while there is no connection
	draining *drain   // not nil once Drain was called
}

// drain is what Drain says and waits for.
type drain struct {
	grace       time.Duration
	replacement bool
	over        chan struct{} // closed when the proxy has nothing left here
	once        sync.Once
}

func (d *drain) end() { d.once.Do(func() { close(d.over) }) }

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
	return &Link{o: o, workers: make(chan struct{}, o.Workers)}
}

// Run keeps a connection until ctx ends: the proxy may start later than the engine, and be replaced. What the engine does for a
// connection ends with it. When ctx ends it says goodbye and returns after everything it started has ended.
func (l *Link) Run(ctx context.Context) {
	pause := firstRedial
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
		if err != nil && err.Error() != lastProblem {
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

// connect dials, says hello and serves until the connection is lost.
func (l *Link) connect(ctx context.Context) error {
	socket, err := l.o.dial()
	if err != nil {
		return fmt.Errorf("dial proxy: %w", err)
	}
	conn := wire.New(socket, l.o.Wire)
	defer conn.Close()
	said := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(said)
		sayGoodbye(conn, "engine ends")
	})
	defer func() {
		if !stop() {
			<-said
		}
	}()
	if err := l.greet(conn); err != nil {
		return fmt.Errorf("greet proxy: %w", err)
	}
	s := newSession(l, conn)
	l.attach(s)
	err = s.run(ctx)
	l.detach(s)
	return err
}

// sayGoodbye gives the reason, flushes and closes.
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
		d.end() // what it had is handed to another engine by the proxy
	}
}

// Event passes on what happens to a model; it is dropped while there is no connection, since the catalog tells the rest.
func (l *Link) Event(e models.Event) {
	l.mu.Lock()
	s := l.session
	l.mu.Unlock()
	if s != nil {
		s.event(e)
	}
}

// ErrDrainTimeout is returned by Drain when requests were left at its end.
var ErrDrainTimeout = errors.New("requests were left")

// Drain tells the proxy that this engine is going and works on until nothing is left here, the proxy has moved it elsewhere, or the
// connection is lost; ctx bounds that. replacement says that another engine is expected.
func (l *Link) Drain(ctx context.Context, grace time.Duration, replacement bool) error {
	l.mu.Lock()
	if l.draining == nil {
		l.draining = &drain{grace: grace, replacement: replacement, over: make(chan struct{})}
	}
	d, s := l.draining, l.session
	l.mu.Unlock()
	if s == nil {
		return nil
	}
	s.sendDraining(d)
	select {
	case <-d.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain: %w: %w", ErrDrainTimeout, context.Cause(ctx))
	}
}

func (l *Link) drained() {
	l.mu.Lock()
	d := l.draining
	l.mu.Unlock()
	if d != nil {
		d.end()
	}
}

// greet exchanges the first frames. The connection isn't used by anybody else yet.
func (l *Link) greet(conn *wire.Conn) error {
	if err := conn.SendControl(func(f schema.Frame) error { return l.o.Identity.write(f, l.o.Wire) }); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	frame, release, err := conn.Read()
	if err != nil {
		return err
	}
	defer release()
	err = wire.Guard(func() error {
		if frame.Which() == schema.Frame_Which_goAway {
			reason, _ := frame.GoAway() // only for people
			return fmt.Errorf("%w: %s", errGoAway, clip(reason))
		}
		if frame.Which() != schema.Frame_Which_hello {
			return fmt.Errorf("%w: first frame is %v", wire.ErrProtocol, frame.Which())
		}
		hello, err := frame.Hello()
		if err != nil {
			return err
		}
		_, err = wire.Agree(hello)
		return err
	})
	if err != nil {
		return err
	}
	return conn.SetReadDeadline(time.Time{})
}

// clip shortens text from outside for messages and logs.
func clip(s string) string {
	const most = 200
	return s[:min(len(s), most)]
}
