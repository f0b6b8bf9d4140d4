package link

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
)

func maxTokens(n int) func(schema.InferRequest) error {
	return func(r schema.InferRequest) error { r.SetMaxNewTokens(uint32(n)); return nil }
}

func TestAnswerFromLoadToSummary(t *testing.T) {
	e := newBench(t, &backend{})
	p := e.accept()
	if c := p.next("catalog"); len(c.loaded) != 0 {
		t.Errorf("loaded at start: %v", c.loaded)
	}
	p.infer(1, "end 3")
	var kinds []schema.EventKind
	accepted := p.until("accepted", func(f frame) bool {
		if f.kind == "event" && f.model == "abc" && f.version == "v1" {
			kinds = append(kinds, f.event)
		}
		return f.kind == "accepted"
	})
	if accepted.key != (key{1, 1}) || accepted.model != "abc" || accepted.version != "v1" || accepted.lookup != schema.CacheLookup_miss ||
		accepted.limit != defaultMaxNewTokens || len(accepted.prompt) != 5 || len(accepted.bytes) < 32 {
		t.Errorf("accepted %+v", accepted)
	}
	text, indices, end := p.answer(1)
	if text != "abc" || !slices.Equal(indices, []int{0, 1, 2, 3}) || end.reason != schema.FinishReason_stop || end.output != 4 {
		t.Errorf("answer %q, indices %v, end %+v", text, indices, end)
	}
	if len(kinds) < 1 || kinds[0] != schema.EventKind_loading {
		t.Errorf("events before the acceptance: %v", kinds)
	}

	p.infer(2, "x", maxTokens(30))
	if accepted = p.next("accepted"); accepted.lookup != schema.CacheLookup_hit || accepted.limit != 30 {
		t.Errorf("second request accepted with %+v", accepted)
	}
	if text, _, end = p.answer(2); text != "abcdefghijklmnopqrstuvwxyzabcd" || end.reason != schema.FinishReason_length {
		t.Errorf("answer %q, end %+v", text, end)
	}
	if !slices.Contains(p.loaded, "abc@v1") {
		p.until("catalog with the entry", func(f frame) bool { return slices.Contains(f.loaded, "abc@v1") })
	}
	e.idle()
}

func TestRequestsThatFailBeforeTheExecutor(t *testing.T) {
	sampled := func(set func(schema.Sampling)) func(schema.InferRequest) error {
		return func(r schema.InferRequest) error {
			s, err := r.NewSampling()
			if err == nil {
				set(s)
			}
			return err
		}
	}
	for name, test := range map[string]struct {
		prompt string
		change func(schema.InferRequest) error
		reason schema.FinishReason
		code   string
		param  string
	}{
		"unknown model": {"x", func(r schema.InferRequest) error { return r.SetModel("nope") },
			schema.FinishReason_error, "model_not_found", "base_model"},
		"unknown version": {"x", func(r schema.InferRequest) error { return r.SetVersion("v9") },
			schema.FinishReason_error, "model_not_found", "base_model"},
		"prompt as long as the context": {string(make([]byte, contextTokens)), maxTokens(1),
			schema.FinishReason_error, "context_length_exceeded", "prompt"},
		"prompt longer": {string(make([]byte, contextTokens+1)), maxTokens(1),
			schema.FinishReason_error, "context_length_exceeded", "prompt"},
		"too many tokens asked for": {"x", maxTokens(contextTokens + 1),
			schema.FinishReason_error, "context_length_exceeded", "max_new_tokens"},
		"negative temperature": {"x", sampled(func(s schema.Sampling) { s.SetPresent(1); s.SetTemperature(-1) }),
			schema.FinishReason_error, "invalid_request", "temperature"},
		"schema that can't be followed": {"x", func(r schema.InferRequest) error { return r.SetJsonSchema([]byte("{}")) },
			schema.FinishReason_error, "invalid_request", "json_schema"},
		"tools": {"x", func(r schema.InferRequest) error { return r.SetTools([]byte("[]")) },
			schema.FinishReason_error, "invalid_request", "tools"},
		"empty stop": {"x", func(r schema.InferRequest) error { _, err := r.NewStops(1); return err },
			schema.FinishReason_error, "invalid_request", ""},
		"deadline passed": {"x", func(r schema.InferRequest) error { r.SetTimeoutNs(1); return nil },
			schema.FinishReason_deadline, "", ""},
		"replay after a change": {"x", func(r schema.InferRequest) error {
			_, err := r.NewRendered()
			ids, err2 := r.NewGenerated(1)
			if err2 == nil {
				ids.Set(0, 'a')
			}
			return errors.Join(err, err2, r.SetExpectRevision(make([]byte, 32)))
		}, schema.FinishReason_error, "model_changed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e := newBench(t, &backend{})
			p := e.accept()
			p.infer(1, test.prompt, test.change)
			_, _, end := p.answer(1)
			if end.reason != test.reason || end.code != test.code || end.param != test.param {
				t.Errorf("ended with %v %q %q, want %v %q %q", end.reason, end.code, end.param, test.reason, test.code, test.param)
			}
			e.idle()
		})
	}
}

func TestLoadFailures(t *testing.T) {
	for reason, code := range map[models.Reason]string{
		models.ReasonOutOfMemory: "out_of_memory", models.ReasonBadFormat: "model_load_failed", models.ReasonTimeout: "model_load_failed",
	} {
		e := newBench(t, &backend{fails: map[string]models.Reason{"abc": reason}})
		p := e.accept()
		p.infer(1, "x")
		failed := false
		var end summary
		p.until("summary", func(f frame) bool {
			failed = failed || f.event == schema.EventKind_loadFailed
			if len(f.done) > 0 {
				end = f.done[0]
			}
			return len(f.done) > 0
		})
		if end.code != code {
			t.Errorf("%s: ended with %+v, want %s", reason, end, code)
		}
		if !failed {
			p.until("loadFailed event", func(f frame) bool { return f.event == schema.EventKind_loadFailed })
		}
	}
}

func TestReplayContinues(t *testing.T) {
	e := newBench(t, &backend{})
	p := e.accept()
	p.infer(1, "x", maxTokens(10))
	accepted := p.next("accepted")
	full, _, _ := p.answer(1)

	p.infer(2, "ignored, since the tokens are given", maxTokens(10), func(r schema.InferRequest) error {
		rendered, err := r.NewRendered()
		if err != nil {
			return err
		}
		prompt, err := rendered.NewPromptTokens(int32(len(accepted.prompt)))
		if err != nil {
			return err
		}
		for i, id := range accepted.prompt {
			prompt.Set(i, id)
		}
		generated, err := r.NewGenerated(4)
		if err != nil {
			return err
		}
		for i := range 4 {
			generated.Set(i, 'a'+int32(i))
		}
		r.SetReplay(schema.ReplayMode_prefill)
		return r.SetExpectRevision(accepted.bytes)
	})
	if again := p.next("accepted"); again.lookup != schema.CacheLookup_uncounted || !slices.Equal(again.prompt, accepted.prompt) {
		t.Errorf("accepted again: %+v", again)
	}
	text, indices, end := p.answer(2)
	if "abcd"+text != full || indices[0] != 4 || len(indices) != 6 || end.output != 10 {
		t.Errorf("got %q at %v of %q, end %+v", text, indices, full, end)
	}
}

func TestReplayOfNothingAfterAChangeStartsAfresh(t *testing.T) {
	e := newBench(t, &backend{})
	p := e.accept()
	p.infer(1, "hello", maxTokens(2), func(r schema.InferRequest) error {
		if _, err := r.NewRendered(); err != nil {
			return err
		}
		stops, err := r.NewStops(1)
		if err != nil {
			return err
		}
		return errors.Join(stops.Set(0, "stop"), r.SetExpectRevision(make([]byte, 32)))
	})
	if a := p.next("accepted"); len(a.prompt) != 5 || !slices.Equal(a.stops, []string{"§", "stop"}) {
		t.Errorf("accepted %+v", a)
	}
	if text, _, _ := p.answer(1); text != "ab" {
		t.Errorf("answer %q", text)
	}
}

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

func ping(p *proxy) {
	err := p.conn.SendControl(func(f schema.Frame) error { f.SetPing(); return nil })
	if err != nil {
		p.t.Fatal(err)
	}
}

func TestPong(t *testing.T) {
	b := &backend{loading: make(chan struct{})}
	e := newBench(t, b)
	p := e.accept()
	ping(p)
	if pong := p.next("pong"); pong.beats != 1 {
		t.Errorf("%d beats while idle", pong.beats)
	}
	p.infer(1, "end 1")
	p.until("loading", func(f frame) bool { return f.event == schema.EventKind_loading })
	ping(p)
	if pong := p.next("pong"); pong.beats != 2 {
		t.Errorf("%d beats during a load", pong.beats)
	}
	close(b.loading)
	p.answer(1)
}

func TestCalls(t *testing.T) {
	e := newBench(t, &backend{})
	p := e.accept()
	call := func(id uint64, fill func(schema.Call) error) frame {
		p.send(id, 0, func(f schema.Frame) error {
			c, err := f.NewCall()
			if err != nil {
				return err
			}
			return fill(c)
		})
		return p.until("reply", func(f frame) bool { return f.kind == "reply" && f.key.id == id })
	}
	load := func(model string) func(schema.Call) error {
		return func(c schema.Call) error {
			ref, err := c.NewLoad()
			if err != nil {
				return err
			}
			return ref.SetModel(model)
		}
	}
	if r := call(1, func(c schema.Call) error { c.SetMetrics(); return nil }); string(r.bytes) != "some_metric 1\n" {
		t.Errorf("metrics: %+v", r)
	}
	if r := call(2, load("abc")); r.reply != "ok" {
		t.Errorf("load: %+v", r)
	}
	if r := call(3, load("nope")); r.reply != "failure" || r.text != "model_not_found" {
		t.Errorf("load of an unknown model: %+v", r)
	}
	r := call(4, func(c schema.Call) error {
		in, err := c.NewTokenize()
		if err != nil {
			return err
		}
		return errors.Join(in.SetModel("abc"), in.SetText([]byte("hi")))
	})
	if !slices.Equal(r.ids, []int32{'h', 'i'}) {
		t.Errorf("tokenize: %+v", r)
	}
	unknown := call(5, func(c schema.Call) error { c.SetMetrics(); setUnknown(c); return nil })
	if unknown.text != "unimplemented" {
		t.Errorf("unknown call: %+v", unknown)
	}
	e.idle()
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
	for id := range uint64(400) { // far more tokens than socket buffers and backlog hold
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
