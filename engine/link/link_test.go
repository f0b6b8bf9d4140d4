package link

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema"
)

func maxTokens(n int) func(schema.InferRequest) error {
	return func(r schema.InferRequest) error { r.SetMaxNewTokens(uint32(n)); return nil }
}

func TestAnswerFromLoadToSummary(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	if c := p.awaitKind("catalog"); len(c.loaded) != 0 {
		t.Errorf("loaded at start: %v", c.loaded)
	}
	p.infer(1, "end 3")
	var kinds []schema.EventKind
	accepted := p.awaitFrame("accepted", func(f decodedFrame) bool {
		if f.kind == "event" && f.model == "abc" && f.version == "v1" {
			kinds = append(kinds, f.event)
		}
		return f.kind == "accepted"
	})
	if accepted.key != (attemptKey{1, 1}) || accepted.model != "abc" || accepted.version != "v1" || accepted.lookup != schema.CacheLookup_miss ||
		accepted.limit != defaultMaxNewTokens || len(accepted.prompt) != 5 || len(accepted.bytes) < 32 {
		t.Errorf("accepted %+v", accepted)
	}
	text, indices, end := p.awaitAnswer(1)
	if text != "abc" || !slices.Equal(indices, []int{0, 1, 2, 3}) || end.reason != schema.FinishReason_stop || end.output != 4 {
		t.Errorf("answer %q, indices %v, end %+v", text, indices, end)
	}
	if len(kinds) < 2 || kinds[0] != schema.EventKind_loading || kinds[len(kinds)-1] != schema.EventKind_loaded {
		t.Errorf("events before the acceptance: %v", kinds)
	}

	p.infer(2, "x", maxTokens(30))
	if accepted = p.awaitKind("accepted"); accepted.lookup != schema.CacheLookup_hit || accepted.limit != 30 {
		t.Errorf("second request accepted with %+v", accepted)
	}
	if text, _, end = p.awaitAnswer(2); text != "abcdefghijklmnopqrstuvwxyzabcd" || end.reason != schema.FinishReason_length {
		t.Errorf("answer %q, end %+v", text, end)
	}
	if !slices.Contains(p.loaded, "abc@v1") {
		p.awaitFrame("catalog with the entry", func(f decodedFrame) bool { return slices.Contains(f.loaded, "abc@v1") })
	}
	e.awaitIdle()
}

// The first request for a model is the first to learn its context: the engine cuts the answer, nobody before it could.
func TestAnswersFitTheContextWhenAsked(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	fit := func(r schema.InferRequest) error { r.SetFitContext(true); return nil }
	for id, change := range []func(schema.InferRequest) error{maxTokens(contextTokens + 1), maxTokens(0)} {
		p.infer(uint64(id+1), "end 3", change, fit)
		if a := p.awaitKind("accepted"); a.limit != contextTokens-len(a.prompt) {
			t.Errorf("%d of a context of %d beside a prompt of %d", a.limit, contextTokens, len(a.prompt))
		}
		p.awaitAnswer(uint64(id + 1))
	}
	e.awaitIdle()
}

// What a client wrote reaches the chat template as it was written. An empty system text is one.
func TestInputReachesTheModel(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	p.infer(1, "end 1", func(r schema.InferRequest) error { return r.SetSystem([]byte{}) })
	p.awaitAnswer(1)
	if in := e.backend.lastInput.Load(); !in.HasSystem || in.System != "" || in.Prompt != "end 1" {
		t.Errorf("an empty system text: %+v", in)
	}
	p.infer(2, "end 1")
	p.awaitAnswer(2)
	if in := e.backend.lastInput.Load(); in.HasSystem {
		t.Errorf("no system text: %+v", in)
	}
	p.infer(3, "end 1", func(r schema.InferRequest) error {
		list, err := r.NewMessages(1)
		return errors.Join(err, list.At(0).SetRole("user"), list.At(0).SetContent([]byte("Hi")))
	})
	p.awaitAnswer(3)
	if in := e.backend.lastInput.Load(); len(in.Messages) != 1 || !reflect.DeepEqual(in.Messages[0], models.Message{Role: "user", Content: "Hi"}) {
		t.Errorf("a conversation: %+v", in)
	}
	e.awaitIdle()
}

// brokenCatalog is a list of one model whose adapter can't be loaded.
type brokenCatalog struct{ Catalog }

func (brokenCatalog) Snapshot() []models.Model {
	return []models.Model{{Name: "m", Versions: []models.Version{{Name: "base"}, {Name: "v1", Problem: "no tensors"}}}}
}

func TestProblemsOfModelsAreReported(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{}, func(_ *batch.Options, l *Options) { l.Catalog = brokenCatalog{l.Catalog} })
	p := e.acceptConnection()
	if c := p.awaitKind("catalog"); !slices.Equal(c.problems, []string{"m@v1: no tensors"}) {
		t.Errorf("problems %q", c.problems)
	}
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
		"grammar that can't be followed": {"x", func(r schema.InferRequest) error { return r.SetGrammar("root ::= (") },
			schema.FinishReason_error, "invalid_request", "grammar"},
		"tools that aren't": {"x", func(r schema.InferRequest) error { return r.SetTools([]byte("[7]")) },
			schema.FinishReason_error, "invalid_request", "tools"},
		"choice of a tool that isn't there": {"x", func(r schema.InferRequest) error { return r.SetToolChoice([]byte(`{"name":"f"}`)) },
			schema.FinishReason_error, "invalid_request", "tool_choice"},
		"options of the template that aren't": {"x", func(r schema.InferRequest) error { return r.SetTemplateOptions([]byte(`{"messages":[]}`)) },
			schema.FinishReason_error, "invalid_request", "chat_template_kwargs"},
		"empty stop": {"x", func(r schema.InferRequest) error { _, err := r.NewStops(1); return err },
			schema.FinishReason_error, "invalid_request", ""},
		"bias of a token that the model hasn't": {"x", sampled(func(s schema.Sampling) {
			if list, err := s.NewLogitBias(1); err == nil {
				list.At(0).SetToken(256)
			}
		}), schema.FinishReason_error, "invalid_request", "logit_bias"},
		"prompt token that the model hasn't": {"", promptTokens('a', -1),
			schema.FinishReason_error, "invalid_request", "prompt"},
		"more prompt tokens than the context": {"", promptTokens(make([]int32, contextTokens+1)...),
			schema.FinishReason_error, "context_length_exceeded", "prompt"},
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
			e := newLinkTest(t, &fakeBackend{})
			p := e.acceptConnection()
			p.infer(1, test.prompt, test.change)
			_, _, end := p.awaitAnswer(1)
			if end.reason != test.reason || end.code != test.code || end.param != test.param {
				t.Errorf("ended with %v %q %q, want %v %q %q", end.reason, end.code, end.param, test.reason, test.code, test.param)
			}
			e.awaitIdle()
		})
	}
}

func TestLoadFailures(t *testing.T) {
	for reason, code := range map[models.Reason]string{
		models.ReasonOutOfMemory: "out_of_memory", models.ReasonBadFormat: "model_load_failed", models.ReasonTimeout: "model_load_failed",
	} {
		e := newLinkTest(t, &fakeBackend{failReasons: map[string]models.Reason{"abc": reason}})
		p := e.acceptConnection()
		p.infer(1, "x")
		failed, listed := false, false
		var end decodedSummary
		p.awaitFrame("summary", func(f decodedFrame) bool {
			failed, listed = failed || f.event == schema.EventKind_loadFailed, listed || len(f.problems) > 0
			if len(f.done) > 0 {
				end = f.done[0]
			}
			return len(f.done) > 0
		})
		if end.code != code {
			t.Errorf("%s: ended with %+v, want %s", reason, end, code)
		}
		if !failed || listed != (reason == models.ReasonBadFormat) { // before the summary
			t.Errorf("%s: event sent: %v, problem listed: %v", reason, failed, listed)
		}
	}
}

func TestReplayContinues(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	p.infer(1, "x", maxTokens(10))
	accepted := p.awaitKind("accepted")
	full, _, _ := p.awaitAnswer(1)

	p.infer(2, "ignored, since the tokens are given", maxTokens(10), replayOf(accepted, 4))
	if again := p.awaitKind("accepted"); again.lookup != schema.CacheLookup_uncounted || !slices.Equal(again.prompt, accepted.prompt) {
		t.Errorf("accepted again: %+v", again)
	}
	text, indices, end := p.awaitAnswer(2)
	if "abcd"+text != full || indices[0] != 4 || len(indices) != 6 || end.output != 10 {
		t.Errorf("got %q at %v of %q, end %+v", text, indices, full, end)
	}
}

// A request that was accepted by an engine with a larger context isn't its client's fault.
func TestReplaysThatDoNotFitTheContextAnyMore(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	p.infer(1, "x", maxTokens(10))
	accepted := p.awaitKind("accepted")
	p.awaitAnswer(1)
	for i, c := range []struct {
		name                  string
		prompt, answer, limit int
		code                  string
	}{
		{"a prompt without room for an answer", contextTokens, 0, 10, "engine_crashed"},
		{"an answer that has grown too long", 500, 13, 100, "engine_crashed"},
		{"a limit above the context", 10, 5, contextTokens + 1, "engine_crashed"},
		{"one that just fits", 500, 11, 100, ""},
	} {
		accepted.prompt = make([]int32, c.prompt)
		for i := range accepted.prompt {
			accepted.prompt[i] = 'x'
		}
		id := uint64(i + 2)
		p.infer(id, "ignored", maxTokens(c.limit), replayOf(accepted, c.answer))
		if _, _, end := p.awaitAnswer(id); end.code != c.code {
			t.Errorf("%s: %+v, want %q", c.name, end, c.code)
		}
	}
}

func TestReplayOfNothingAfterAChangeStartsAfresh(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
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
	if a := p.awaitKind("accepted"); len(a.prompt) != 5 || !slices.Equal(a.stops, []string{"§", "stop"}) {
		t.Errorf("accepted %+v", a)
	}
	if text, _, _ := p.awaitAnswer(1); text != "ab" {
		t.Errorf("answer %q", text)
	}
}

func ping(p *fakeProxy) {
	err := p.conn.SendControl(func(f schema.Frame) error { f.SetPing(); return nil })
	if err != nil {
		p.t.Fatal(err)
	}
}

func TestPong(t *testing.T) {
	b := &fakeBackend{loadGate: make(chan struct{})}
	e := newLinkTest(t, b)
	p := e.acceptConnection()
	ping(p)
	if pong := p.awaitKind("pong"); pong.heartbeats != 1 {
		t.Errorf("%d heartbeats while idle", pong.heartbeats)
	}
	p.infer(1, "end 1")
	p.awaitFrame("loading", func(f decodedFrame) bool { return f.event == schema.EventKind_loading })
	ping(p)
	if pong := p.awaitKind("pong"); pong.heartbeats != 2 {
		t.Errorf("%d heartbeats during a load", pong.heartbeats)
	}
	close(b.loadGate)
	p.awaitAnswer(1)
}

func TestCalls(t *testing.T) {
	e := newLinkTest(t, &fakeBackend{})
	p := e.acceptConnection()
	call := func(id uint64, fill func(schema.Call) error) decodedFrame {
		p.send(id, 0, func(f schema.Frame) error {
			c, err := f.NewCall()
			if err != nil {
				return err
			}
			return fill(c)
		})
		return p.awaitFrame("reply", func(f decodedFrame) bool { return f.kind == "reply" && f.key.id == id })
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
	e.link.mu.Lock()
	s := e.link.session
	e.link.mu.Unlock()
	setRunning := func(n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.callsRunning = n
	}
	setRunning(maxCalls) // clients' calls don't keep the metrics away
	if r := call(9, func(c schema.Call) error { c.SetMetrics(); return nil }); string(r.bytes) != "some_metric 1\n" {
		t.Errorf("metrics beside many calls: %+v", r)
	}
	setRunning(0)
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
	if r := call(6, func(c schema.Call) error {
		in, err := c.NewRender()
		if err != nil {
			return err
		}
		return errors.Join(in.SetModel("abc"), in.SetPrompt([]byte("hi")))
	}); string(r.bytes) != "hi" || !slices.Equal(r.ids, []int32{'h', 'i'}) {
		t.Errorf("render: %+v", r)
	}
	if r := call(7, func(c schema.Call) error {
		in, err := c.NewRender()
		if err != nil {
			return err
		}
		return errors.Join(in.SetModel("abc"), in.SetTools([]byte("{}")))
	}); r.text != "invalid_request" {
		t.Errorf("render with tools that aren't: %+v", r)
	}
	unknown := call(5, func(c schema.Call) error { c.SetMetrics(); setUnknown(c); return nil })
	if unknown.text != "unimplemented" {
		t.Errorf("unknown call: %+v", unknown)
	}
	e.awaitIdle()
}

// setUnknown makes a call of a later schema.
func setUnknown(c schema.Call) { capnp.Struct(c).SetUint16(0, 77) }
