package link

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/schema"
	"tandem/schema/wire"
)

func TestCalls(t *testing.T) {
	h := newRecordingHandler()
	meter := &recordingMeter{}
	l := listen(t, Options{Handler: h, Meter: meter})
	p, e := attach(t, l, h, 1)
	answer := func(fill func(schema.Reply) error) {
		p.expect(schema.Frame_Which_call, func(f schema.Frame) {
			id := f.Id()
			p.send(func(f schema.Frame) error {
				f.SetId(id)
				r, err := f.NewReply()
				if err != nil {
					return err
				}
				return fill(r)
			})
		})
	}
	var answering sync.WaitGroup
	answering.Go(func() {
		answer(func(r schema.Reply) error { return r.SetMetrics([]byte("up 1\n")) })
		answer(func(r schema.Reply) error { r.SetOk(); return nil })
		answer(func(r schema.Reply) error {
			f, err := r.NewFailure()
			if err != nil {
				return err
			}
			return f.SetCode(codeUnimplemented)
		})
		p.expect(schema.Frame_Which_call) // no answer
	})
	text, err := e.Metrics(testContext(t))
	if err != nil || string(text) != "up 1\n" {
		t.Errorf("metrics %q, %v", text, err)
	}
	if err := e.Load(testContext(t), "demo", "base"); err != nil {
		t.Errorf("load: %v", err)
	}
	if err := e.Load(testContext(t), "demo", "base"); !errors.Is(err, errUnsupported) {
		t.Errorf("load by an engine that can't: %v", err)
	}
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := e.Metrics(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer in time: %v", err)
	}
	answering.Wait()
	failed := make(chan error)
	go func() {
		_, err := e.Metrics(context.Background())
		failed <- err
	}()
	p.expect(schema.Frame_Which_call)
	_ = p.conn.Close()
	if err := <-failed; !errors.Is(err, errDisconnected) {
		t.Errorf("connection lost under a call: %v", err)
	}
	h.next(t, "lost")
	if _, err := e.Metrics(testContext(t)); !errors.Is(err, errDisconnected) {
		t.Errorf("call after the loss: %v", err)
	}
	want := "metrics: load: load:unsupported metrics:deadline metrics:disconnected metrics:disconnected"
	if got := meter.calls(); got != want {
		t.Errorf("metered %q, want %q", got, want)
	}
}

// An engine that doesn't read loses no connection by the calls of clients: those that are too much are refused.
func TestCallsDontFillTheConnection(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h, Wire: wire.Options{BacklogBytes: 1 << 20}})
	p, e := attach(t, l, h, 1)
	const calls = 8
	results := make(chan error, calls)
	for range calls {
		go func() {
			_, err := e.Tokenize(testContext(t), "demo", "base", strings.Repeat("a", 512<<10), false)
			results <- err
		}()
	}
	for range calls - 1 { // the engine reads none
		err := <-results
		if refused, ok := errors.AsType[*inflight.EngineFailure](err); !ok || refused.Code != string(api.TypeQueueFull) {
			t.Fatalf("a call that is too much: %v", err)
		}
	}
	p.expect(schema.Frame_Which_call, func(f schema.Frame) {
		id := f.Id()
		p.send(func(f schema.Frame) error {
			f.SetId(id)
			r, err := f.NewReply()
			if err != nil {
				return err
			}
			r.SetOk()
			return nil
		})
	})
	if err := <-results; err != nil {
		t.Errorf("the first call: %v", err)
	}
}

// What can't be sent, or isn't known to an engine of an older version, isn't taken for the end of the engine: its
// client would wait for another one.
func TestRefusedCallsAreNotLost(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h, Wire: wire.Options{MaxFrameBytes: 64 << 10}})
	p, e := attach(t, l, h, 1)
	code := func(text string) string {
		_, err := e.Tokenize(testContext(t), "demo", "base", text, false)
		refused, ok := errors.AsType[*inflight.EngineFailure](err)
		if !ok {
			t.Fatalf("failed with %v", err)
		}
		return refused.Code
	}
	if got := code(strings.Repeat("a", 100<<10)); got != string(api.TypeInvalidRequest) {
		t.Errorf("a text that is too large: %s", got)
	}
	var answering sync.WaitGroup
	answering.Go(func() {
		p.expect(schema.Frame_Which_call, func(f schema.Frame) {
			id := f.Id()
			p.send(func(f schema.Frame) error {
				f.SetId(id)
				r, err := f.NewReply()
				if err != nil {
					return err
				}
				failure, err := r.NewFailure()
				if err != nil {
					return err
				}
				return failure.SetCode(codeUnimplemented)
			})
		})
	})
	if got := code("a"); got != string(api.TypeEngineUnavailable) {
		t.Errorf("a call that the engine doesn't know: %s", got)
	}
	answering.Wait()
}

type recordingMeter struct {
	mu       sync.Mutex
	recorded []string
	in, out  int
}

func (m *recordingMeter) IPCSent(n int) { m.mu.Lock(); m.out += n; m.mu.Unlock() }

func (m *recordingMeter) IPCReceived(n int) { m.mu.Lock(); m.in += n; m.mu.Unlock() }

func (m *recordingMeter) IPCCall(method string, _ time.Duration, code string) {
	if method == "ping" {
		return
	}
	m.mu.Lock()
	m.recorded = append(m.recorded, method+":"+code)
	m.mu.Unlock()
}

func (m *recordingMeter) calls() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.recorded, " ")
}
