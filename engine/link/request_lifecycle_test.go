package link

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
)

func TestCancelWhereverTheRequestIs(t *testing.T) {
	t.Run("loading", func(t *testing.T) {
		b := &fakeBackend{loadGate: make(chan struct{})}
		e := newLinkTest(t, b)
		p := e.acceptConnection()
		p.infer(1, "x")
		p.awaitFrame("loading", func(f decodedFrame) bool { return f.event == schema.EventKind_loading })
		p.cancel(1)
		if _, _, end := p.awaitAnswer(1); end.reason != schema.FinishReason_cancelled {
			t.Errorf("ended with %+v", end)
		}
		close(b.loadGate)
	})
	t.Run("rendering", func(t *testing.T) {
		b := &fakeBackend{renderGate: make(chan struct{}), renderStarted: make(chan struct{}, 1)}
		e := newLinkTest(t, b)
		p := e.acceptConnection()
		p.infer(1, "x")
		<-b.renderStarted
		p.cancel(1)
		if _, _, end := p.awaitAnswer(1); end.reason != schema.FinishReason_cancelled {
			t.Errorf("ended with %+v", end)
		}
		e.awaitIdle()
	})
	t.Run("waiting for a worker", func(t *testing.T) {
		b := &fakeBackend{renderGate: make(chan struct{}), renderStarted: make(chan struct{}, 1)}
		e := newLinkTest(t, b, func(_ *batch.Options, o *Options) { o.Workers = 1 })
		p := e.acceptConnection()
		p.infer(1, "end 1")
		<-b.renderStarted
		p.infer(2, "x")
		p.cancel(2)
		if _, _, end := p.awaitAnswer(2); end.reason != schema.FinishReason_cancelled {
			t.Errorf("ended with %+v", end)
		}
		close(b.renderGate)
		if text, _, _ := p.awaitAnswer(1); text != "a" {
			t.Errorf("the other one's answer is %q", text)
		}
	})
	t.Run("decoding", func(t *testing.T) {
		e := newLinkTest(t, &fakeBackend{}, func(o *batch.Options, _ *Options) { o.StepDelay = 5 * time.Millisecond })
		p := e.acceptConnection()
		p.infer(1, "x", maxTokens(500))
		p.awaitFrame("token", func(f decodedFrame) bool { return len(f.tokens) > 0 })
		p.cancel(1)
		p.cancel(1)
		if _, indices, end := p.awaitAnswer(1); end.reason != schema.FinishReason_cancelled || len(indices) > 400 {
			t.Errorf("ended with %+v after %d tokens", end, len(indices))
		}
		e.awaitIdle()
	})
	t.Run("before it came", func(t *testing.T) {
		e := newLinkTest(t, &fakeBackend{})
		p := e.acceptConnection()
		p.cancel(7)
		ping(p)
		p.awaitKind("pong")
		p.infer(7, "x", maxTokens(500))
		if _, indices, end := p.awaitAnswer(7); end.reason != schema.FinishReason_cancelled || len(indices) > 0 {
			t.Errorf("ended with %+v after %d tokens", end, len(indices))
		}
	})
}

func TestLostConnectionEndsItsWorkAndIsMadeAgain(t *testing.T) {
	b := &fakeBackend{}
	e := newLinkTest(t, b, func(o *batch.Options, _ *Options) { o.StepDelay = 5 * time.Millisecond })
	p := e.acceptConnection()
	for id := range uint64(20) {
		p.infer(id+1, "x", maxTokens(500))
	}
	p.awaitFrame("token", func(f decodedFrame) bool { return len(f.tokens) > 0 })
	p.close()
	e.awaitIdle()

	p = e.acceptConnection() // the engine dials again
	p.infer(1, "end 2")
	if text, _, _ := p.awaitAnswer(1); text != "ab" {
		t.Errorf("answer %q", text)
	}
}

func TestBrokenPeerCostsItsConnectionOnly(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	p.infer(1, "x", maxTokens(500))
	p.infer(1, "x", maxTokens(500)) // the same again
	p.awaitKind("goAway")
	p.close()
	p = e.acceptConnection()
	p.send(5, 1, func(f schema.Frame) error { // more stops than allowed
		r, err := f.NewInfer()
		if err != nil {
			return err
		}
		_, err = r.NewStops(maxStops + 1)
		return err
	})
	p.awaitKind("goAway")
	p.close()
	p = e.acceptConnection()
	p.infer(1, "end 2")
	if text, _, _ := p.awaitAnswer(1); text != "ab" {
		t.Errorf("answer %q", text)
	}
	e.awaitIdle()
}

// oversizedCatalog is a catalog that is too long for a frame until it shrinks.
type oversizedCatalog struct {
	Catalog
	extraModels atomic.Int64 // so many more than there are
	changed     chan struct{}
}

func (c *oversizedCatalog) Changes() <-chan struct{} { return c.changed }

func (c *oversizedCatalog) Snapshot() []models.Model {
	return append(c.Catalog.Snapshot(), make([]models.Model, c.extraModels.Load())...)
}

func TestACatalogThatDoesNotFitIsNotTheLast(t *testing.T) {
	c := &oversizedCatalog{changed: make(chan struct{}, 1)}
	c.extraModels.Store(10_000)
	e := newLinkTest(t, &fakeBackend{}, func(_ *batch.Options, l *Options) {
		c.Catalog = l.Catalog
		l.Catalog, l.Wire.MaxFrameBytes = c, 100_000
	})
	p := e.acceptConnection()
	p.infer(1, "abc")
	p.awaitAnswer(1) // loads, and the catalog is sent again after every load
	c.extraModels.Store(0)
	c.changed <- struct{}{}
	p.awaitKind("catalog")
}

func TestSlowProxyCostsTheConnection(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{}, func(o *batch.Options, l *Options) {
		o.StepDelay = 0
		l.Wire.BacklogBytes = 100_000
	})
	c, err := e.listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := newSilentProxy(t, c)
	p.mayDisconnect = true
	// far more tokens than socket buffers and backlog hold; a busy machine may cut before the last is sent
	for id := range uint64(400) {
		p.infer(id+1, "x", maxTokens(500))
	}
	e.awaitIdle()
	if next := e.acceptConnection(); next.conn.Err() != nil {
		t.Error("the engine didn't come back")
	}
}

func TestDrain(t *testing.T) {
	t.Run("until the proxy has nothing left", func(t *testing.T) {
		e := newLinkTest(t, &fakeBackend{})
		p := e.acceptConnection()
		done := make(chan error, 1)
		p.awaitKind("catalog")
		go func() { done <- e.link.Drain(t.Context(), time.Minute, true) }()
		p.awaitKind("draining")
		p.infer(1, "end 2")
		if text, _, _ := p.awaitAnswer(1); text != "ab" {
			t.Errorf("while draining: %q", text)
		}
		p.send(0, 0, func(f schema.Frame) error { f.SetDrained(); return nil })
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("until everything was moved", func(t *testing.T) {
		e := newLinkTest(t, &fakeBackend{}, func(o *batch.Options, _ *Options) { o.StepDelay = 5 * time.Millisecond })
		p := e.acceptConnection()
		for id := range uint64(3) {
			p.infer(id+1, "x", maxTokens(500))
		}
		p.awaitFrame("token", func(f decodedFrame) bool { return len(f.tokens) > 0 })
		done := make(chan error, 1)
		go func() { done <- e.link.Drain(t.Context(), time.Minute, true) }()
		p.awaitKind("draining")
		p.send(0, 0, func(f schema.Frame) error { f.SetMove(); return nil })
		moved := 0
		p.awaitFrame("moved", func(f decodedFrame) bool {
			for _, d := range f.done {
				if d.reason == schema.FinishReason_movedAway {
					moved++
				}
			}
			return f.kind == "moved"
		})
		if moved != 3 {
			t.Errorf("%d of 3 were handed back before moved", moved)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		p.infer(9, "late")
		if _, _, end := p.awaitAnswer(9); end.reason != schema.FinishReason_movedAway {
			t.Errorf("a late request ended with %+v", end)
		}
		e.awaitIdle()
	})
	t.Run("until its time is over", func(t *testing.T) {
		e := newLinkTest(t, &fakeBackend{})
		p := e.acceptConnection()
		p.awaitKind("catalog")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := e.link.Drain(ctx, time.Minute, false); !errors.Is(err, ErrDrainTimeout) {
			t.Errorf("got %v", err)
		}
		e.stopLink()
		p.awaitKind("goAway")
	})
	t.Run("without a proxy", func(t *testing.T) {
		e := newLinkTest(t, &fakeBackend{})
		if err := e.link.Drain(t.Context(), time.Minute, false); err != nil {
			t.Error(err)
		}
	})
}

func TestTenThousandRequestsHalfCancelledLeaveNothing(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{}, func(o *batch.Options, _ *Options) { o.StepDelay = 0 })
	p := e.acceptConnection()
	const total, window = 10_000, 128
	ended := make(map[attemptKey]schema.FinishReason, total)
	tokens := make(map[attemptKey]int)
	sent := uint64(0)
	more := func() {
		sent++
		p.infer(sent, "x", maxTokens(8+int(sent%16)))
		if sent%2 == 0 {
			p.cancel(sent)
		}
	}
	for range window {
		more()
	}
	p.awaitFrame("all summaries", func(f decodedFrame) bool {
		for _, tok := range f.tokens {
			if tok.index != tokens[tok.key] {
				t.Fatalf("request %d: token %d came as the %dth", tok.key.id, tok.index, tokens[tok.key])
			}
			tokens[tok.key]++
		}
		for _, d := range f.done {
			if _, twice := ended[d.key]; twice {
				t.Fatalf("request %d ended twice", d.key.id)
			}
			ended[d.key] = d.reason
			if d.key.id%2 == 1 && (d.reason != schema.FinishReason_length || tokens[d.key] != 8+int(d.key.id%16)) {
				t.Fatalf("request %d ended with %v after %d tokens", d.key.id, d.reason, tokens[d.key])
			}
			if sent < total {
				more()
			}
		}
		return len(ended) == total
	})
	e.awaitIdle()
	e.link.mu.Lock()
	s := e.link.session
	e.link.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) != 0 || len(s.earlyCancels.index) > len(s.earlyCancels.keys) {
		t.Errorf("%d requests and %d early cancels are kept", len(s.requests), len(s.earlyCancels.index))
	}
}
