package link

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/metrics"
	"tandem/schema"
)

// activeRequest is a request at the fake engine.
type activeRequest struct {
	id      uint64
	attempt uint32
	next    int
}

// fakeEngine serves requests as a batching engine does: each gets the same number of tokens, one a step.
type fakeEngine struct {
	*enginePeer
	tokens   int
	incoming chan activeRequest
	cancels  chan uint64
	end      chan struct{}
	active   map[uint64]*activeRequest // the stepping goroutine's
}

// serveRequests plays an engine until the connection ends.
func (p *enginePeer) serveRequests(tokens int) {
	e := &fakeEngine{p, tokens, make(chan activeRequest, 1024), make(chan uint64, 1024), make(chan struct{}), map[uint64]*activeRequest{}}
	var steps sync.WaitGroup
	steps.Go(e.step)
	defer steps.Wait()
	defer close(e.end)
	for {
		f, release, err := p.conn.Read()
		if err != nil {
			return
		}
		switch f.Which() {
		case schema.Frame_Which_infer:
			e.accept(f)
		case schema.Frame_Which_cancel:
			e.cancels <- f.Id()
		case schema.Frame_Which_ping:
			// a lost connection ends the loop
			_ = p.conn.SendControl(func(f schema.Frame) error { _, err := f.NewPong(); return err })
		}
		release()
	}
}

func (e *fakeEngine) accept(f schema.Frame) {
	id, attempt := f.Id(), f.Attempt()
	in, err := f.Infer()
	if err != nil {
		e.t.Error(err)
		return
	}
	generated, err := in.Generated()
	if err != nil {
		e.t.Error(err)
	}
	_ = e.conn.Send(func(f schema.Frame) error { // a lost connection ends the loop
		f.SetId(id)
		f.SetAttempt(attempt)
		a, err := f.NewAccepted()
		if err != nil {
			return err
		}
		a.SetMaxNewTokens(uint32(e.tokens))
		return nil
	})
	e.incoming <- activeRequest{id, attempt, generated.Len()}
}

func (e *fakeEngine) step() {
	for e.receive() {
		if len(e.active) > 0 && e.conn.Send(e.frame) != nil {
			return
		}
	}
}

// receive takes in requests and cancels; without an active request it waits. It returns false when the connection has
// ended.
func (e *fakeEngine) receive() bool {
	for {
		ready := make(chan struct{})
		if len(e.active) > 0 {
			close(ready) // go on when nothing came
		}
		select {
		case <-e.end:
			return false
		case r := <-e.incoming:
			e.active[r.id] = &r
		case id := <-e.cancels:
			delete(e.active, id)
		case <-ready:
			return true
		}
	}
}

func (e *fakeEngine) frame(f schema.Frame) error {
	s, err := f.NewStep()
	if err != nil {
		return err
	}
	list, err := s.NewTokens(int32(len(e.active)))
	if err != nil {
		return err
	}
	var ended []*activeRequest
	i := 0
	for _, r := range e.active {
		t := list.At(i)
		i++
		t.SetRequestId(r.id)
		t.SetAttempt(r.attempt)
		t.SetIndex(uint32(r.next))
		r.next++
		t.SetTextEnd(uint32(2 * r.next))
		if err := t.SetText([]byte("ab")); err != nil {
			return err
		}
		if r.next == e.tokens {
			ended = append(ended, r)
		}
	}
	done, err := s.NewDone(int32(len(ended)))
	if err != nil {
		return err
	}
	for i, r := range ended {
		d := done.At(i)
		d.SetRequestId(r.id)
		d.SetAttempt(r.attempt)
		d.SetReason(schema.FinishReason_stop)
		d.SetOutputTokens(uint32(e.tokens))
		delete(e.active, r.id)
	}
	return nil
}

// TestManyRequestsOverTheSocket runs the request table, this package and an engine together: half of 10,000 requests
// are cancelled, engines come and go, and nothing may be left over.
func TestManyRequestsOverTheSocket(t *testing.T) {
	const requests, clients, tokens = 10_000, 64, 5
	quiet := slog.New(slog.DiscardHandler)
	m := metrics.New(metrics.Options{Log: quiet})
	table := inflight.New(inflight.Options{
		Metrics: m, Log: quiet, DefaultModel: "demo", QueueCapacity: clients, QueueMaxBytes: 1 << 20, JournalMaxBytes: 64 << 20,
		EngineWait: time.Minute, ReplayWait: time.Minute, ModelLoadWait: time.Minute,
	})
	ctx, stop := context.WithCancel(context.Background())
	var running, engines sync.WaitGroup
	running.Go(func() { table.Run(ctx) })
	l := listen(t, Options{Handler: table, Meter: m, Log: quiet})
	engine := func(instance uint64) *enginePeer {
		p := connect(t, l.options.Socket)
		p.hello(instance)
		p.catalog()
		p.stats(32)
		engines.Go(func() { p.serveRequests(tokens) })
		return p
	}
	current := engine(1)
	todo := make(chan int)
	var clientsRunning sync.WaitGroup
	var mu sync.Mutex
	whole, left := 0, 0
	for range clients {
		clientsRunning.Go(func() {
			for i := range todo {
				ok := runClient(t, table, i%2 == 0, i%tokens, tokens)
				mu.Lock()
				if ok {
					whole++
				} else {
					left++
				}
				mu.Unlock()
			}
		})
	}
	for i := range requests {
		todo <- i
		if i%1000 == 999 {
			_ = current.raw.Close() // as if killed
			current = engine(uint64(i))
		}
	}
	close(todo)
	clientsRunning.Wait()
	if whole != requests/2 || left != requests/2 {
		t.Errorf("%d whole answers, %d cancelled", whole, left)
	}
	if s := table.Status(); s.Waiting != 0 || s.Running != 0 {
		t.Errorf("left over: %d waiting, %d running", s.Waiting, s.Running)
	}
	stop()
	running.Wait()
	l.Close()
	engines.Wait()
}

// runClient sends one request and reads its answer, or leaves after so many tokens.
func runClient(t *testing.T, table *inflight.Table, stays bool, leaveAfter, tokens int) bool {
	a, err := table.Admit(context.Background(), inflight.Request{Infer: &api.Request{Prompt: "x", Stream: true}})
	if err != nil {
		t.Errorf("Admit: %v", err)
		return false
	}
	var text []byte
	for seen := 0; stays || seen < leaveAfter; {
		<-a.Ready()
		p := a.Take(text)
		text = p.Text
		seen += p.Tokens
		if !p.Done {
			continue
		}
		if p.Err != nil || string(text) != strings.Repeat("ab", tokens) {
			t.Errorf("answer %q, %v", text, p.Err)
		}
		if stays {
			a.Settle(inflight.Delivered)
			return true
		}
		break
	}
	a.Settle(inflight.ClientGone)
	return false
}
