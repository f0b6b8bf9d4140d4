package link

import (
	"context"
	"errors"
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

// socketPath returns a path in a new directory with a short name, since a Unix address must be short.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "link")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "e.sock")
}

// enginePeer is the engine's end of a connection.
type enginePeer struct {
	t    testing.TB
	conn *wire.Conn
	raw  net.Conn
}

// connect dials the listener as an engine does, without a hello.
func connect(t testing.TB, path string) *enginePeer {
	t.Helper()
	raw, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	p := &enginePeer{t: t, raw: raw, conn: wire.New(raw, wire.Options{})}
	t.Cleanup(func() { _ = p.conn.Close() })
	return p
}

func (p *enginePeer) send(build func(schema.Frame) error) {
	p.t.Helper()
	if err := p.conn.Send(build); err != nil {
		p.t.Errorf("send: %v", err)
	}
}

// hello sends the engine's hello and reads the proxy's.
func (p *enginePeer) hello(instance uint64) {
	p.t.Helper()
	p.send(helloFrame(instance))
	p.expect(schema.Frame_Which_hello)
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
		if err := setBackends(h); err != nil {
			return err
		}
		return h.SetDevice("cpu")
	}
}

// setBackends sets one backend with a device, and one with a problem.
func setBackends(h schema.Hello) error {
	backends, err := h.NewBackends(2)
	if err != nil {
		return err
	}
	devices, err := backends.At(0).NewDevices(1)
	if err != nil {
		return err
	}
	devices.At(0).SetMemoryTotal(8)
	return errors.Join(backends.At(0).SetName("cpu"), devices.At(0).SetName("CPU"), devices.At(0).SetDescription("a processor"),
		backends.At(1).SetName("cuda"), backends.At(1).SetProblem("no driver"))
}

// expect waits for a frame of that kind, skipping pings, and runs checks on it.
func (p *enginePeer) expect(kind schema.Frame_Which, checks ...func(schema.Frame)) {
	p.t.Helper()
	for {
		f, release, err := p.conn.Read()
		if err != nil {
			p.t.Fatalf("waiting for %v: %v", kind, err)
		}
		got := f.Which()
		if got == kind {
			for _, check := range checks {
				check(f)
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

// awaitClose waits until the proxy has closed the connection and returns the reason that it sent, if any.
func (p *enginePeer) awaitClose() string {
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

func (p *enginePeer) catalog() {
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
		return errors.Join(versions.At(0).SetName("base"), versions.At(0).SetProblem("a file is missing"))
	})
}

func (p *enginePeer) stats(sequences uint32) {
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

// handlerCall is a recorded call of the handler.
type handlerCall struct {
	what  string
	e     inflight.Engine
	hello inflight.Hello
	loss  inflight.Loss
	value any
}

// recordingHandler records its calls, with copies of what it may not keep.
type recordingHandler struct{ calls chan handlerCall }

func newRecordingHandler() *recordingHandler { return &recordingHandler{make(chan handlerCall, 100)} }

// next returns the next call, which must be that one; heartbeats in between are skipped.
func (h *recordingHandler) next(t testing.TB, what string) handlerCall {
	t.Helper()
	for {
		select {
		case r := <-h.calls:
			if r.what == "heartbeats" && what != "heartbeats" {
				continue
			}
			if r.what != what {
				t.Fatalf("handler was called with %s, want %s", r.what, what)
			}
			return r
		case <-time.After(10 * time.Second):
			t.Fatalf("handler wasn't called with %s", what)
		}
	}
}

func (h *recordingHandler) Attached(e inflight.Engine, hello inflight.Hello) {
	h.calls <- handlerCall{what: "attached", e: e, hello: hello}
}
func (h *recordingHandler) Lost(e inflight.Engine, l inflight.Loss) {
	h.calls <- handlerCall{what: "lost", e: e, loss: l}
}
func (h *recordingHandler) Accepted(e inflight.Engine, id uint64, attempt uint32, a *inflight.Accepted) {
	h.calls <- handlerCall{what: "accepted", e: e, value: *a}
}
func (h *recordingHandler) Step(e inflight.Engine, s *inflight.Step) {
	h.calls <- handlerCall{what: "step", e: e, value: len(s.Tokens)}
}
func (h *recordingHandler) Event(e inflight.Engine, ev inflight.ModelEvent) {
	h.calls <- handlerCall{what: "event", e: e, value: ev}
}
func (h *recordingHandler) Catalog(e inflight.Engine, c *inflight.Catalog) {
	h.calls <- handlerCall{what: "catalog", e: e, value: *c}
}
func (h *recordingHandler) Stats(e inflight.Engine, s *inflight.Stats) {
	h.calls <- handlerCall{what: "stats", e: e, value: len(s.Bases)}
}
func (h *recordingHandler) Heartbeats(e inflight.Engine, list []inflight.Heartbeat) {
	h.calls <- handlerCall{what: "heartbeats", e: e, value: len(list)}
}
func (h *recordingHandler) Draining(e inflight.Engine, grace time.Duration, replacement bool) {
	h.calls <- handlerCall{what: "draining", e: e, value: grace}
}
func (h *recordingHandler) Moved(e inflight.Engine) { h.calls <- handlerCall{what: "moved", e: e} }

// listen starts a listener that is closed when the test ends.
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
func attach(t testing.TB, l *Listener, h *recordingHandler, instance uint64) (*enginePeer, inflight.Engine) {
	t.Helper()
	p := connect(t, l.options.Socket)
	p.hello(instance)
	return p, h.next(t, "attached").e
}

// testContext is a context that limits how long a test waits.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}
