package link

import (
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tandem/proxy/inflight"
	"tandem/schema"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

func TestHandshake(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h, Build: "1.0.0"})
	p := connect(t, l.options.Socket)
	p.send(helloFrame(7))
	p.expect(schema.Frame_Which_hello, func(f schema.Frame) {
		hello, err := f.Hello()
		if err != nil {
			t.Fatal(err)
		}
		if build, _ := hello.Build(); build != "1.0.0" || hello.InstanceId() == 0 || hello.Protocol() == 0 {
			t.Errorf("our hello: build %q, instance %d, protocol %d", build, hello.InstanceId(), hello.Protocol())
		}
	})
	hello := h.next(t, "attached").hello
	if hello.Instance != 7 || hello.PID != 42 || hello.Device != "cpu" || hello.LastExit.Kind != inflight.ExitSignal || hello.LastExit.Signal != 9 ||
		hello.Devices[0].Name != "cpu0" {
		t.Errorf("hello %+v", hello)
	}
	wanted := []inflight.Backend{
		{Name: "cpu", Devices: []inflight.Device{{Name: "CPU", Description: "a processor", MemoryTotal: 8}}}, {Name: "cuda", Problem: "no driver"},
	}
	if !reflect.DeepEqual(hello.Backends, wanted) {
		t.Errorf("backends %+v, want %+v", hello.Backends, wanted)
	}
	_ = p.conn.Close()
	if loss := h.next(t, "lost").loss; loss.Reason != "eof" {
		t.Errorf("lost for %q", loss.Reason)
	}
}

func TestFramesReachTheHandlerInOrder(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h})
	p, e := attach(t, l, h, 1)
	p.catalog()
	p.stats(8)
	p.send(func(f schema.Frame) error {
		f.SetId(5)
		a, err := f.NewAccepted()
		if err != nil {
			return err
		}
		a.SetCacheHit(schema.CacheLookup_miss)
		r, err := a.NewRendered()
		if err != nil {
			return err
		}
		ids, err := r.NewPromptTokens(3)
		if err != nil {
			return err
		}
		ids.Set(2, 77)
		triggers, err := r.NewTriggers(1)
		if err != nil {
			return err
		}
		triggers.At(0).SetKind(2)
		if err := triggers.At(0).SetValue("<call>"); err != nil {
			return err
		}
		s, err := a.NewSampling()
		if err != nil {
			return err
		}
		s.SetPresent(1)
		s.SetTemperature(0.5)
		return a.SetRevision([]byte("rev"))
	})
	p.send(func(f schema.Frame) error {
		d, err := f.NewDraining()
		if err != nil {
			return err
		}
		d.SetGraceNs(uint64(time.Minute))
		return nil
	})
	p.send(func(f schema.Frame) error { f.SetMoved(); return nil })
	wantVersion := inflight.Version{Name: "base", Problem: "a file is missing"}
	if c := h.next(t, "catalog").value.(inflight.Catalog); c.CacheSize != 3 || c.Models[0].Versions[0] != wantVersion {
		t.Errorf("catalog %+v", c)
	}
	if n := h.next(t, "stats").value; n != 1 {
		t.Errorf("%v bases", n)
	}
	a := h.next(t, "accepted").value.(inflight.Accepted)
	if !slices.Equal(a.Rendered.Triggers, []inflight.Trigger{{Kind: 2, Value: "<call>"}}) {
		t.Errorf("triggers %+v", a.Rendered.Triggers)
	}
	if a.Lookup != inflight.LookupMiss || len(a.Rendered.PromptTokens) != 3 || *a.Sampling.Temperature != 0.5 || a.Sampling.TopK != nil {
		t.Errorf("accepted %+v", a)
	}
	if g := h.next(t, "draining").value; g != time.Minute {
		t.Errorf("grace %v", g)
	}
	if h.next(t, "moved").e != e {
		t.Error("another engine")
	}
}

func TestProtocolViolationAfterHello(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h})
	p, e := attach(t, l, h, 1)
	p.send(func(f schema.Frame) error { // a list of more tokens than is allowed
		s, err := f.NewStep()
		if err != nil {
			return err
		}
		_, err = s.NewTokens(maxStepTokens + 1)
		return err
	})
	p.awaitClose()
	if loss := h.next(t, "lost").loss; loss.Reason != "protocol" {
		t.Errorf("lost for %q: %v", loss.Reason, loss.Err)
	}
	e.Infer(&inflight.Submission{}) // after the loss nothing happens
	e.Cancel(1, 1)

	p, e = attach(t, l, h, 2)
	e.Hangup("token 3 came, 2 was next")
	if reason := p.awaitClose(); reason != "token 3 came, 2 was next" {
		t.Errorf("told %q", reason)
	}
	if loss := h.next(t, "lost").loss; loss.Reason != "protocol" {
		t.Errorf("lost for %q", loss.Reason)
	}
}

func TestHungEngineIsLost(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h, StallTimeout: pingInterval})
	p, _ := attach(t, l, h, 1)
	p.awaitClose() // reads, but answers no ping
	if loss := h.next(t, "lost").loss; loss.Reason != "stall" {
		t.Errorf("lost for %q", loss.Reason)
	}
}

func TestPongsCarryHeartbeats(t *testing.T) {
	h := newRecordingHandler()
	meter := &recordingMeter{}
	l := listen(t, Options{Handler: h, Meter: meter})
	p, _ := attach(t, l, h, 1)
	var serving sync.WaitGroup
	serving.Go(func() { p.serveRequests(1) })
	h.next(t, "heartbeats")
	h.next(t, "heartbeats")
	_ = p.conn.Close()
	serving.Wait()
	h.next(t, "lost")
	if meter.in == 0 || meter.out == 0 {
		t.Errorf("metered %d bytes in, %d out", meter.in, meter.out)
	}
}
