package link

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tandem/proxy/inflight"
	"tandem/schema"
	"tandem/schema/wire"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}

func TestHelloBothWays(t *testing.T) {
	b := newHandler()
	l := listen(t, Options{Handler: b, Build: "1.0.0"})
	p := connect(t, l.o.Socket)
	p.send(helloFrame(7))
	p.read(schema.Frame_Which_hello, func(f schema.Frame) {
		h, err := f.Hello()
		if err != nil {
			t.Fatal(err)
		}
		if build, _ := h.Build(); build != "1.0.0" || h.InstanceId() == 0 || h.Protocol() == 0 {
			t.Errorf("our hello: build %q, instance %d, protocol %d", build, h.InstanceId(), h.Protocol())
		}
	})
	h := b.next(t, "attached").hello
	if h.Instance != 7 || h.PID != 42 || h.Device != "cpu" || h.LastExit.Kind != inflight.ExitSignal || h.LastExit.Signal != 9 || h.Devices[0].Name != "cpu0" {
		t.Errorf("hello %+v", h)
	}
	_ = p.conn.Close()
	if loss := b.next(t, "lost").loss; loss.Reason != "eof" {
		t.Errorf("lost for %q", loss.Reason)
	}
}

func TestFramesReachTheBoardInOrder(t *testing.T) {
	b := newHandler()
	l := listen(t, Options{Handler: b})
	p, e := attach(t, l, b, 1)
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
	if c := b.next(t, "catalog").value.(inflight.Catalog); c.CacheSize != 3 || c.Models[0].Versions[0].Name != "base" {
		t.Errorf("catalog %+v", c)
	}
	if n := b.next(t, "stats").value; n != 1 {
		t.Errorf("%v bases", n)
	}
	a := b.next(t, "accepted").value.(inflight.Accepted)
	if a.Lookup != inflight.LookupMiss || len(a.Rendered.PromptTokens) != 3 || *a.Sampling.Temperature != 0.5 || a.Sampling.TopK != nil {
		t.Errorf("accepted %+v", a)
	}
	if g := b.next(t, "draining").value; g != time.Minute {
		t.Errorf("grace %v", g)
	}
	if b.next(t, "moved").e != e {
		t.Error("another engine")
	}
}

func TestSubmissionCrossesTheWire(t *testing.T) {
	b := newHandler()
	l := listen(t, Options{Handler: b})
	p, e := attach(t, l, b, 1)
	temperature, topK := float32(0), int32(40)
	e.Infer(&inflight.Submission{
		ID: 9, Attempt: 2, Model: "demo", Version: "v1.0", Prompt: "hi", Timeout: time.Second, Owner: 3, MaxNewTokens: 11,
		Stops: []string{"a", "b"}, Sampling: inflight.Sampling{Temperature: &temperature, TopK: &topK, Seed: 99},
		Rendered: &inflight.Rendered{PromptTokens: []int32{1, 2}, Grammar: "g", Stops: []string{"c"}}, Generated: []int32{5}, ReplaySteps: true,
		ExpectRevision: []byte("rev"),
	})
	p.read(schema.Frame_Which_infer, func(f schema.Frame) {
		in, err := f.Infer()
		if err != nil {
			t.Fatal(err)
		}
		prompt, _ := in.Prompt()
		s, _ := in.Sampling()
		seeds, _ := s.Seeds()
		generated, _ := in.Generated()
		rendered, _ := in.Rendered()
		ids, _ := rendered.PromptTokens()
		revision, _ := in.ExpectRevision()
		stops, _ := in.Stops()
		switch {
		case f.Id() != 9, f.Attempt() != 2, string(prompt) != "hi", in.TimeoutNs() != 1e9, in.Owner() != 3, in.MaxNewTokens() != 11, stops.Len() != 2:
			t.Error("the request's own fields are wrong")
		case s.Present() != 3, s.TopK() != 40, seeds.Len() != 1, seeds.At(0) != 99:
			t.Errorf("sampling: present %b, seeds %d", s.Present(), seeds.Len())
		case generated.At(0) != 5, ids.Len() != 2, in.Replay() != schema.ReplayMode_decode, in.CountCache(), string(revision) != "rev":
			t.Error("the replay's fields are wrong")
		}
	})
	e.Cancel(9, 2)
	p.read(schema.Frame_Which_cancel, func(f schema.Frame) {
		if f.Id() != 9 || f.Attempt() != 2 {
			t.Errorf("cancelled %d, %d", f.Id(), f.Attempt())
		}
	})
	e.Move()
	p.read(schema.Frame_Which_move)
	e.Drained()
	p.read(schema.Frame_Which_drained)
}

func TestCalls(t *testing.T) {
	b := newHandler()
	meter := &recordingMeter{}
	l := listen(t, Options{Handler: b, Meter: meter})
	p, e := attach(t, l, b, 1)
	answer := func(fill func(schema.Reply) error) {
		p.read(schema.Frame_Which_call, func(f schema.Frame) {
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
			return f.SetCode(unimplemented)
		})
		p.read(schema.Frame_Which_call) // no answer
	})
	text, err := e.Metrics(within(t))
	if err != nil || string(text) != "up 1\n" {
		t.Errorf("metrics %q, %v", text, err)
	}
	if err := e.Load(within(t), "demo", "base"); err != nil {
		t.Errorf("load: %v", err)
	}
	if err := e.Load(within(t), "demo", "base"); !errors.Is(err, errUnsupported) {
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
	p.read(schema.Frame_Which_call)
	_ = p.conn.Close()
	if err := <-failed; !errors.Is(err, errDisconnected) {
		t.Errorf("connection lost under a call: %v", err)
	}
	b.next(t, "lost")
	if _, err := e.Metrics(within(t)); !errors.Is(err, errDisconnected) {
		t.Errorf("call after the loss: %v", err)
	}
	want := "metrics: load: load:unsupported metrics:deadline metrics:disconnected metrics:disconnected"
	if got := meter.calls(); got != want {
		t.Errorf("metered %q, want %q", got, want)
	}
}

type recordingMeter struct {
	mu      sync.Mutex
	said    []string
	in, out int
}

func (m *recordingMeter) IPCSent(n int)     { m.mu.Lock(); m.out += n; m.mu.Unlock() }
func (m *recordingMeter) IPCReceived(n int) { m.mu.Lock(); m.in += n; m.mu.Unlock() }
func (m *recordingMeter) IPCCall(method string, _ time.Duration, code string) {
	if method == "ping" {
		return
	}
	m.mu.Lock()
	m.said = append(m.said, method+":"+code)
	m.mu.Unlock()
}

func (m *recordingMeter) calls() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.said, " ")
}

func TestAtMostTwoEngines(t *testing.T) {
	b := newHandler()
	l := listen(t, Options{Handler: b})
	first, _ := attach(t, l, b, 1)
	attach(t, l, b, 2)
	third := connect(t, l.o.Socket)
	third.send(helloFrame(3))
	if reason := third.ended(); !strings.Contains(reason, "2 engines") {
		t.Errorf("the third was told %q", reason)
	}
	_ = first.conn.Close()
	b.next(t, "lost")
	attach(t, l, b, 4)
}

func TestBadPeers(t *testing.T) {
	tests := []struct {
		name string
		do   func(p *peer)
	}{
		{"no hello", func(p *peer) { p.send(func(f schema.Frame) error { f.SetPing(); return nil }) }},
		{"another protocol", func(p *peer) {
			p.send(func(f schema.Frame) error {
				h, err := f.NewHello()
				if err != nil {
					return err
				}
				h.SetProtocol(900)
				h.SetMinProtocol(900)
				return nil
			})
		}},
		{"silence", func(*peer) {}},
		{"garbage", func(p *peer) { _, _ = p.raw.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")) }},
		{"a huge frame", func(p *peer) { _, _ = p.raw.Write([]byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f}) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newHandler()
			l := listen(t, Options{Handler: b, HelloTimeout: 50 * time.Millisecond})
			p := connect(t, l.o.Socket)
			tt.do(p)
			p.ended()
			if len(b.said) != 0 {
				t.Errorf("the handler heard %v", (<-b.said).what)
			}
			attach(t, l, b, 1) // others aren't disturbed
		})
	}
}

func TestBreachAfterHello(t *testing.T) {
	b := newHandler()
	l := listen(t, Options{Handler: b})
	p, e := attach(t, l, b, 1)
	p.send(func(f schema.Frame) error { // a list of more tokens than can be
		s, err := f.NewStep()
		if err != nil {
			return err
		}
		_, err = s.NewTokens(maxTokens + 1)
		return err
	})
	p.ended()
	if loss := b.next(t, "lost").loss; loss.Reason != "protocol" {
		t.Errorf("lost for %q: %v", loss.Reason, loss.Err)
	}
	e.Infer(&inflight.Submission{}) // after the loss nothing happens
	e.Cancel(1, 1)

	p, e = attach(t, l, b, 2)
	e.Hangup("token 3 came, 2 was next")
	if reason := p.ended(); reason != "token 3 came, 2 was next" {
		t.Errorf("told %q", reason)
	}
	if loss := b.next(t, "lost").loss; loss.Reason != "protocol" {
		t.Errorf("lost for %q", loss.Reason)
	}
}

func TestGoodbye(t *testing.T) {
	b := newHandler()
	l := listen(t, Options{Handler: b})
	p, _ := attach(t, l, b, 1)
	p.send(func(f schema.Frame) error { return f.SetGoAway("engine ends") })
	if loss := b.next(t, "lost").loss; loss.Reason != "goaway" {
		t.Errorf("lost for %q", loss.Reason)
	}
	p, _ = attach(t, l, b, 2)
	closed := make(chan struct{})
	go func() { defer close(closed); l.Close() }()
	if reason := p.ended(); reason != "the proxy stops" {
		t.Errorf("told %q", reason)
	}
	<-closed
	b.next(t, "lost")
	if _, err := net.Dial("unix", l.o.Socket); err == nil {
		t.Error("still listening")
	}
	if _, err := os.Lstat(l.o.Socket); err != nil {
		t.Errorf("the socket's file must stay: %v", err)
	}
}

// A request that no frame can hold would otherwise end one connection after the other, and with them what others wait for.
func TestRequestThatFitsIntoNoFrameLeavesTheConnection(t *testing.T) {
	b := newHandler()
	l := listen(t, Options{Handler: b, Wire: wire.Options{MaxFrameBytes: 64 << 10}})
	p, e := attach(t, l, b, 1)
	stops := slices.Repeat([]string{strings.Repeat("s", 256)}, 8)
	fit := 0
	for n := 56 << 10; n <= 66<<10; n += 256 {
		s := &inflight.Submission{ID: uint64(n), Model: strings.Repeat("m", 256), Version: strings.Repeat("v", 256), Prompt: strings.Repeat("x", n), Stops: stops,
			RequestID: strings.Repeat("r", 64), Traceparent: strings.Repeat("t", 55),
			Rendered: &inflight.Rendered{Stops: stops}, Generated: []int32{1}, ExpectRevision: make([]byte, 32)}
		if !e.Infer(s) {
			continue
		}
		fit++
		p.read(schema.Frame_Which_infer, func(f schema.Frame) {
			if f.Id() != s.ID {
				t.Errorf("got request %d, want %d", f.Id(), s.ID)
			}
		})
	}
	if fit == 0 || fit == 41 {
		t.Errorf("%d of 41 fit", fit)
	}
}

func TestHungEngine(t *testing.T) {
	b := newHandler()
	l := listen(t, Options{Handler: b, StallTimeout: pingEvery})
	p, _ := attach(t, l, b, 1)
	p.ended() // reads, but answers no ping
	if loss := b.next(t, "lost").loss; loss.Reason != "stall" {
		t.Errorf("lost for %q", loss.Reason)
	}
}

func TestPingsAreAnsweredByBeats(t *testing.T) {
	b := newHandler()
	meter := &recordingMeter{}
	l := listen(t, Options{Handler: b, StallTimeout: pingEvery, Meter: meter})
	p, _ := attach(t, l, b, 1)
	var serving sync.WaitGroup
	serving.Go(func() { p.serveAll(1) })
	b.next(t, "heartbeats")
	b.next(t, "heartbeats")
	_ = p.conn.Close()
	serving.Wait()
	b.next(t, "lost")
	if meter.in == 0 || meter.out == 0 {
		t.Errorf("metered %d bytes in, %d out", meter.in, meter.out)
	}
}

func TestLargePromptsPass(t *testing.T) {
	b := newHandler()
	l := listen(t, Options{Handler: b})
	p, e := attach(t, l, b, 1)
	text := strings.Repeat("é", 512<<10) // 1 MiB
	e.Infer(&inflight.Submission{ID: 1, Prompt: text, Rendered: &inflight.Rendered{PromptTokens: make([]int32, 1<<20)}, Generated: make([]int32, 1<<20)})
	p.read(schema.Frame_Which_infer, func(f schema.Frame) {
		in, err := f.Infer()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := in.Prompt(); err != nil || string(got) != text {
			t.Errorf("%d bytes came, %v", len(got), err)
		}
	})
}
