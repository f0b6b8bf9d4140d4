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

// job is a request at the fake engine.
type job struct {
	id      uint64
	attempt uint32
	next    int
}

// fakeEngine answers all that a proxy asks: every request gets so many tokens, one a step, as a batching engine would.
type fakeEngine struct {
	*peer
	tokens   int
	incoming chan job
	cancels  chan uint64
	end      chan struct{}
	jobs     map[uint64]*job // the stepping goroutine's
}

// serveAll runs until the connection ends.
func (p *peer) serveAll(tokens int) {
	e := &fakeEngine{p, tokens, make(chan job, 1024), make(chan uint64, 1024), make(chan struct{}), map[uint64]*job{}}
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
			_ = p.conn.SendControl(func(f schema.Frame) error { _, err := f.NewPong(); return err }) // a lost connection ends the loop
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
	e.incoming <- job{id, attempt, generated.Len()}
}

func (e *fakeEngine) step() {
	for e.news() {
		if len(e.jobs) > 0 && e.conn.Send(e.frame) != nil {
			return
		}
	}
}

// news takes in what came; with nothing to do it waits. False: the connection ended.
func (e *fakeEngine) news() bool {
	for {
		ready := make(chan struct{})
		if len(e.jobs) > 0 {
			close(ready) // go on when nothing came
		}
		select {
		case <-e.end:
			return false
		case j := <-e.incoming:
			e.jobs[j.id] = &j
		case id := <-e.cancels:
			delete(e.jobs, id)
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
	list, err := s.NewTokens(int32(len(e.jobs)))
	if err != nil {
		return err
	}
	var ended []*job
	i := 0
	for _, j := range e.jobs {
		t := list.At(i)
		i++
		t.SetRequestId(j.id)
		t.SetAttempt(j.attempt)
		t.SetIndex(uint32(j.next))
		j.next++
		t.SetTextEnd(uint32(2 * j.next))
		if err := t.SetText([]byte("ab")); err != nil {
			return err
		}
		if j.next == e.tokens {
			ended = append(ended, j)
		}
	}
	done, err := s.NewDone(int32(len(ended)))
	if err != nil {
		return err
	}
	for i, j := range ended {
		d := done.At(i)
		d.SetRequestId(j.id)
		d.SetAttempt(j.attempt)
		d.SetReason(schema.FinishReason_stop)
		d.SetOutputTokens(uint32(e.tokens))
		delete(e.jobs, j.id)
	}
	return nil
}

// TestManyRequestsOverTheSocket is the request table, this package and an engine together: of 10,000 requests half are cancelled, engines come
// and go, and nothing is left over.
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
	engine := func(instance uint64) *peer {
		p := connect(t, l.o.Socket)
		p.hello(instance)
		p.catalog()
		p.stats(32)
		engines.Go(func() { p.serveAll(tokens) })
		return p
	}
	live := engine(1)
	todo := make(chan int)
	var working sync.WaitGroup
	var mu sync.Mutex
	whole, left := 0, 0
	for range clients {
		working.Go(func() {
			for i := range todo {
				ok := ask(t, table, i%2 == 0, i%tokens, tokens)
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
			_ = live.raw.Close() // as if killed
			live = engine(uint64(i))
		}
	}
	close(todo)
	working.Wait()
	if whole != requests/2 || left != requests/2 {
		t.Errorf("%d whole answers, %d given up", whole, left)
	}
	if s := table.Status(); s.Waiting != 0 || s.Running != 0 {
		t.Errorf("left over: %d waiting, %d running", s.Waiting, s.Running)
	}
	stop()
	running.Wait()
	l.Close()
	engines.Wait()
}

// ask sends one request and reads its answer, or gives it up after so many tokens.
func ask(t *testing.T, table *inflight.Table, stays bool, leaveAfter, tokens int) bool {
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
