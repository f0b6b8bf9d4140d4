package link

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"tandem/proxy/inflight"
	"tandem/schema"
	"tandem/schema/wire"
)

// socketPath is in a short directory, since a Unix address is.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "link")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "e.sock")
}

// peer is the engine's end of a connection.
type peer struct {
	t    testing.TB
	conn *wire.Conn
	raw  net.Conn
}

func connect(t testing.TB, path string) *peer {
	t.Helper()
	raw, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	p := &peer{t: t, raw: raw, conn: wire.New(raw, wire.Options{})}
	t.Cleanup(func() { _ = p.conn.Close() })
	return p
}

func (p *peer) send(build func(schema.Frame) error) {
	p.t.Helper()
	if err := p.conn.Send(build); err != nil {
		p.t.Errorf("send: %v", err)
	}
}

// hello says hello and reads the proxy's.
func (p *peer) hello(instance uint64) {
	p.t.Helper()
	p.send(helloFrame(instance))
	p.read(schema.Frame_Which_hello)
}

func helloFrame(instance uint64) func(schema.Frame) error {
	return func(f schema.Frame) error {
		h, err := f.NewHello()
		if err != nil {
			return err
		}
		h.SetProtocol(wire.Protocol)
		h.SetMinProtocol(wire.MinProtocol)
		h.SetInstanceId(instance)
		h.SetProcessId(42)
		exit, err := h.NewLastExit()
		if err != nil {
			return err
		}
		exit.SetKind(schema.ExitKind_signal)
		exit.SetSignal(9)
		devices, err := h.NewDevices(1)
		if err != nil {
			return err
		}
		if err := devices.At(0).SetName("cpu0"); err != nil {
			return err
		}
		return h.SetDevice("cpu")
	}
}

// read waits for a frame of a kind, over pings, and checks it with look.
func (p *peer) read(kind schema.Frame_Which, look ...func(schema.Frame)) {
	p.t.Helper()
	for {
		f, release, err := p.conn.Read()
		if err != nil {
			p.t.Fatalf("waiting for %v: %v", kind, err)
		}
		got := f.Which()
		if got == kind {
			for _, l := range look {
				l(f)
			}
			release()
			return
		}
		release()
		if got != schema.Frame_Which_ping {
			p.t.Fatalf("got %v, want %v", got, kind)
		}
	}
}

// ended waits until the proxy has closed, and gives its reason if it said one.
func (p *peer) ended() string {
	reason := ""
	for {
		f, release, err := p.conn.Read()
		if err != nil {
			return reason
		}
		if f.Which() == schema.Frame_Which_goAway {
			reason, _ = f.GoAway() // empty says enough
		}
		release()
	}
}

func (p *peer) catalog() {
	p.send(func(f schema.Frame) error {
		c, err := f.NewCatalog()
		if err != nil {
			return err
		}
		c.SetCacheSize(3)
		models, err := c.NewModels(1)
		if err != nil {
			return err
		}
		if err := models.At(0).SetName("demo"); err != nil {
			return err
		}
		versions, err := models.At(0).NewVersions(1)
		if err != nil {
			return err
		}
		return versions.At(0).SetName("base")
	})
}

func (p *peer) stats(sequences uint32) {
	p.send(func(f schema.Frame) error {
		s, err := f.NewStats()
		if err != nil {
			return err
		}
		bases, err := s.NewBases(1)
		if err != nil {
			return err
		}
		bases.At(0).SetSequences(sequences)
		return bases.At(0).SetModel("demo")
	})
}

// report is a call of the handler.
type report struct {
	what  string
	e     inflight.Engine
	hello inflight.Hello
	loss  inflight.Loss
	value any
}

// recordingHandler records what it is told, with copies of what it may not keep.
type recordingHandler struct{ said chan report }

func newHandler() *recordingHandler { return &recordingHandler{make(chan report, 100)} }

func (b *recordingHandler) next(t testing.TB, what string) report {
	t.Helper()
	for {
		select {
		case r := <-b.said:
			if r.what == "heartbeats" && what != "heartbeats" {
				continue
			}
			if r.what != what {
				t.Fatalf("handler heard %s, want %s", r.what, what)
			}
			return r
		case <-time.After(10 * time.Second):
			t.Fatalf("handler didn't hear %s", what)
		}
	}
}

func (b *recordingHandler) Attached(e inflight.Engine, h inflight.Hello) {
	b.said <- report{what: "attached", e: e, hello: h}
}
func (b *recordingHandler) Lost(e inflight.Engine, l inflight.Loss) {
	b.said <- report{what: "lost", e: e, loss: l}
}
func (b *recordingHandler) Accepted(e inflight.Engine, id uint64, attempt uint32, a *inflight.Accepted) {
	b.said <- report{what: "accepted", e: e, value: *a}
}
func (b *recordingHandler) Step(e inflight.Engine, s *inflight.Step) {
	b.said <- report{what: "step", e: e, value: len(s.Tokens)}
}
func (b *recordingHandler) Event(e inflight.Engine, ev inflight.ModelEvent) {
	b.said <- report{what: "event", e: e, value: ev}
}
func (b *recordingHandler) Catalog(e inflight.Engine, c *inflight.Catalog) {
	b.said <- report{what: "catalog", e: e, value: *c}
}
func (b *recordingHandler) Stats(e inflight.Engine, s *inflight.Stats) {
	b.said <- report{what: "stats", e: e, value: len(s.Bases)}
}
func (b *recordingHandler) Heartbeats(e inflight.Engine, list []inflight.Heartbeat) {
	b.said <- report{what: "heartbeats", e: e, value: len(list)}
}
func (b *recordingHandler) Draining(e inflight.Engine, grace time.Duration, replacement bool) {
	b.said <- report{what: "draining", e: e, value: grace}
}
func (b *recordingHandler) Moved(e inflight.Engine) { b.said <- report{what: "moved", e: e} }

// listen starts a listener that the test's end closes.
func listen(t testing.TB, o Options) *Listener {
	t.Helper()
	if o.Socket == "" {
		o.Socket = socketPath(t)
	}
	l, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		if err := l.Serve(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { l.Close(); served.Wait() })
	return l
}

// attach brings up an engine over the socket.
func attach(t testing.TB, l *Listener, b *recordingHandler, instance uint64) (*peer, inflight.Engine) {
	t.Helper()
	p := connect(t, l.o.Socket)
	p.hello(instance)
	return p, b.next(t, "attached").e
}

// within is a context that ends the test's waiting.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}
