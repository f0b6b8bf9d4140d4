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
		b := &backend{loading: make(chan struct{})}
		e := newBench(t, b)
		p := e.accept()
		p.infer(1, "x")
		p.until("loading", func(f frame) bool { return f.event == schema.EventKind_loading })
		p.cancel(1)
		if _, _, end := p.answer(1); end.reason != schema.FinishReason_cancelled {
			t.Errorf("ended with %+v", end)
		}
		close(b.loading)
	})
	t.Run("rendering", func(t *testing.T) {
		b := &backend{render: make(chan struct{}), entered: make(chan struct{}, 1)}
		e := newBench(t, b)
		p := e.accept()
		p.infer(1, "x")
		<-b.entered
		p.cancel(1)
		if _, _, end := p.answer(1); end.reason != schema.FinishReason_cancelled {
			t.Errorf("ended with %+v", end)
		}
		e.idle()
	})
	t.Run("waiting for a worker", func(t *testing.T) {
		b := &backend{render: make(chan struct{}), entered: make(chan struct{}, 1)}
		e := newBench(t, b, func(_ *batch.Options, o *Options) { o.Workers = 1 })
		p := e.accept()
		p.infer(1, "end 1")
		<-b.entered
		p.infer(2, "x")
		p.cancel(2)
		if _, _, end := p.answer(2); end.reason != schema.FinishReason_cancelled {
			t.Errorf("ended with %+v", end)
		}
		close(b.render)
		if text, _, _ := p.answer(1); text != "a" {
			t.Errorf("the other one's answer is %q", text)
		}
	})
	t.Run("decoding", func(t *testing.T) {
		e := newBench(t, &backend{}, func(o *batch.Options, _ *Options) { o.StepDelay = 5 * time.Millisecond })
		p := e.accept()
		p.infer(1, "x", maxTokens(500))
		p.until("token", func(f frame) bool { return len(f.tokens) > 0 })
		p.cancel(1)
		p.cancel(1)
		if _, indices, end := p.answer(1); end.reason != schema.FinishReason_cancelled || len(indices) > 400 {
			t.Errorf("ended with %+v after %d tokens", end, len(indices))
		}
		e.idle()
	})
	t.Run("before it came", func(t *testing.T) {
		e := newBench(t, &backend{})
		p := e.accept()
		p.cancel(7)
		ping(p)
		p.next("pong")
		p.infer(7, "x", maxTokens(500))
		if _, indices, end := p.answer(7); end.reason != schema.FinishReason_cancelled || len(indices) > 0 {
			t.Errorf("ended with %+v after %d tokens", end, len(indices))
		}
	})
}

func TestLostConnectionEndsItsWorkAndIsMadeAgain(t *testing.T) {
	b := &backend{}
	e := newBench(t, b, func(o *batch.Options, _ *Options) { o.StepDelay = 5 * time.Millisecond })
	p := e.accept()
	for id := range uint64(20) {
		p.infer(id+1, "x", maxTokens(500))
	}
	p.until("token", func(f frame) bool { return len(f.tokens) > 0 })
	p.close()
	e.idle()

	p = e.accept() // the engine dials again
	p.infer(1, "end 2")
	if text, _, _ := p.answer(1); text != "ab" {
		t.Errorf("answer %q", text)
	}
}

func TestBrokenPeerCostsItsConnectionOnly(t *testing.T) {
	e := newBench(t, &backend{})
	p := e.accept()
	p.infer(1, "x", maxTokens(500))
	p.infer(1, "x", maxTokens(500)) // the same again
	p.next("goAway")
	p.close()
	p = e.accept()
	p.send(5, 1, func(f schema.Frame) error { // more stops than anybody needs
		r, err := f.NewInfer()
		if err != nil {
			return err
		}
		_, err = r.NewStops(maxStops + 1)
		return err
	})
	p.next("goAway")
	p.close()
	p = e.accept()
	p.infer(1, "end 2")
	if text, _, _ := p.answer(1); text != "ab" {
		t.Errorf("answer %q", text)
	}
	e.idle()
}

// swelling is a catalog that is too long for a frame until it shrinks.
type swelling struct {
	Catalog
	models  atomic.Int64 // more than there are
	changed chan struct{}
}

func (c *swelling) Changes() <-chan struct{} { return c.changed }

func (c *swelling) Snapshot() []models.Model {
	return append(c.Catalog.Snapshot(), make([]models.Model, c.models.Load())...)
}

func TestACatalogThatDoesNotFitIsNotTheLast(t *testing.T) {
	c := &swelling{changed: make(chan struct{}, 1)}
	c.models.Store(10_000)
	e := newBench(t, &backend{}, func(_ *batch.Options, l *Options) {
		c.Catalog = l.Catalog
		l.Catalog, l.Wire.MaxFrameBytes = c, 100_000
	})
	p := e.accept()
	p.infer(1, "abc")
	p.answer(1) // loads, and every load is news for the catalog
	c.models.Store(0)
	c.changed <- struct{}{}
	p.next("catalog")
}

func TestSlowProxyCostsTheConnection(t *testing.T) {
	e := newBench(t, &backend{}, func(o *batch.Options, l *Options) {
		o.StepDelay = 0
		l.Wire.BacklogBytes = 100_000
	})
	c, err := e.listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := newSilentProxy(t, c)
	p.mayBreak = true
	for id := range uint64(400) { // far more tokens than socket buffers and backlog hold; a busy machine may cut before the last is sent
		p.infer(id+1, "x", maxTokens(500))
	}
	e.idle()
	if next := e.accept(); next.conn.Err() != nil {
		t.Error("the engine didn't come back")
	}
}

func TestDrain(t *testing.T) {
	t.Run("until the proxy has nothing left", func(t *testing.T) {
		e := newBench(t, &backend{})
		p := e.accept()
		done := make(chan error, 1)
		p.next("catalog")
		go func() { done <- e.link.Drain(t.Context(), time.Minute, true) }()
		p.next("draining")
		p.infer(1, "end 2")
		if text, _, _ := p.answer(1); text != "ab" {
			t.Errorf("while draining: %q", text)
		}
		p.send(0, 0, func(f schema.Frame) error { f.SetDrained(); return nil })
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("until everything was moved", func(t *testing.T) {
		e := newBench(t, &backend{}, func(o *batch.Options, _ *Options) { o.StepDelay = 5 * time.Millisecond })
		p := e.accept()
		for id := range uint64(3) {
			p.infer(id+1, "x", maxTokens(500))
		}
		p.until("token", func(f frame) bool { return len(f.tokens) > 0 })
		done := make(chan error, 1)
		go func() { done <- e.link.Drain(t.Context(), time.Minute, true) }()
		p.next("draining")
		p.send(0, 0, func(f schema.Frame) error { f.SetMove(); return nil })
		moved := 0
		p.until("moved", func(f frame) bool {
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
		if _, _, end := p.answer(9); end.reason != schema.FinishReason_movedAway {
			t.Errorf("a late request ended with %+v", end)
		}
		e.idle()
	})
	t.Run("until its time is over", func(t *testing.T) {
		e := newBench(t, &backend{})
		p := e.accept()
		p.next("catalog")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := e.link.Drain(ctx, time.Minute, false); !errors.Is(err, ErrDrainTimeout) {
			t.Errorf("got %v", err)
		}
		e.stop()
		p.next("goAway")
	})
	t.Run("without a proxy", func(t *testing.T) {
		e := newBench(t, &backend{})
		if err := e.link.Drain(t.Context(), time.Minute, false); err != nil {
			t.Error(err)
		}
	})
}

func TestTenThousandRequestsHalfCancelledLeaveNothing(t *testing.T) {
	e := newBench(t, &backend{}, func(o *batch.Options, _ *Options) { o.StepDelay = 0 })
	p := e.accept()
	const total, window = 10_000, 128
	ended := make(map[key]schema.FinishReason, total)
	tokens := make(map[key]int)
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
	p.until("all summaries", func(f frame) bool {
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
	e.idle()
	e.link.mu.Lock()
	s := e.link.session
	e.link.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) != 0 || len(s.early.used) > len(s.early.keys) {
		t.Errorf("%d requests and %d early cancels are kept", len(s.requests), len(s.early.used))
	}
}
