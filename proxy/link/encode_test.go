package link

import (
	"slices"
	"strings"
	"testing"
	"time"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/proxy/inflight"
	"tandem/schema"
	"tandem/schema/wire"
)

func TestSubmissionFrame(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h})
	p, e := attach(t, l, h, 1)
	temperature, topK := float32(0), int32(40)
	e.Infer(&inflight.Submission{
		ID: 9, Attempt: 2, Model: "demo", Version: "v1.0", Prompt: "hi", Timeout: time.Second, Owner: 3, OwnerWeight: 2.5, MaxNewTokens: 11, FitContext: true, PlainSampling: true,
		Stops: []string{"a", "b"}, Sampling: inflight.Sampling{Temperature: &temperature, TopK: &topK, Seed: 99},
		Rendered: &inflight.Rendered{PromptTokens: []int32{1, 2}, Grammar: "g", Stops: []string{"c"},
			Triggers: []inflight.Trigger{{Kind: 2, Value: "<call>"}, {Kind: 1, Token: 7}}}, Generated: []int32{5}, ReplaySteps: true,
		ExpectRevision: []byte("rev"),
	})
	p.expect(schema.Frame_Which_infer, func(f schema.Frame) {
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
		triggers, _ := rendered.Triggers()
		word, _ := triggers.At(0).Value()
		switch {
		case f.Id() != 9, f.Attempt() != 2, string(prompt) != "hi", in.TimeoutNs() != 1e9, in.Owner() != 3, in.OwnerWeight() != 2.5, in.MaxNewTokens() != 11, !in.FitContext(), !in.PlainSampling(), stops.Len() != 2:
			t.Error("the request's own fields are wrong")
		case s.Present() != 3, s.TopK() != 40, seeds.Len() != 1, seeds.At(0) != 99:
			t.Errorf("sampling: present %b, seeds %d", s.Present(), seeds.Len())
		case triggers.Len() != 2, triggers.At(0).Kind() != 2, word != "<call>", triggers.At(1).Token() != 7:
			t.Errorf("%d triggers, the first is %q", triggers.Len(), word)
		case generated.At(0) != 5, ids.Len() != 2, in.Replay() != schema.ReplayMode_decode, in.CountCache(), string(revision) != "rev":
			t.Error("the replay's fields are wrong")
		}
	})
	e.Cancel(9, 2)
	p.expect(schema.Frame_Which_cancel, func(f schema.Frame) {
		if f.Id() != 9 || f.Attempt() != 2 {
			t.Errorf("cancelled %d, %d", f.Id(), f.Attempt())
		}
	})
	e.Move()
	p.expect(schema.Frame_Which_move)
	e.Drained()
	p.expect(schema.Frame_Which_drained)
}

// A request that fits into no frame would otherwise end one connection after the other, and with them the requests of
// others.
func TestOversizeRequestKeepsTheConnection(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h, Wire: wire.Options{MaxFrameBytes: 64 << 10}})
	p, e := attach(t, l, h, 1)
	stops := slices.Repeat([]string{strings.Repeat("s", 256)}, 8)
	fit, tried := 0, 0
	for n := 50 << 10; n <= 66<<10; n += 256 {
		tried++
		s := &inflight.Submission{ID: uint64(n), Model: strings.Repeat("m", 256), Version: strings.Repeat("v", 256), Prompt: strings.Repeat("x", n), Stops: stops,
			RequestID: strings.Repeat("r", 64), Traceparent: strings.Repeat("t", 55),
			Rendered: &inflight.Rendered{Stops: stops, Triggers: slices.Repeat([]inflight.Trigger{{Kind: 2, Value: "<tool_call>"}}, 64)}, Generated: []int32{1}, ExpectRevision: make([]byte, 32)}
		if !e.Infer(s) {
			continue
		}
		fit++
		p.expect(schema.Frame_Which_infer, func(f schema.Frame) {
			if f.Id() != s.ID {
				t.Errorf("got request %d, want %d", f.Id(), s.ID)
			}
		})
	}
	if fit == 0 || fit == tried {
		t.Errorf("%d of %d fit", fit, tried)
	}
}

func TestLargePromptsPass(t *testing.T) {
	h := newRecordingHandler()
	l := listen(t, Options{Handler: h})
	p, e := attach(t, l, h, 1)
	text := strings.Repeat("é", 512<<10) // 1 MiB
	e.Infer(&inflight.Submission{ID: 1, Prompt: text, Rendered: &inflight.Rendered{PromptTokens: make([]int32, 1<<20)}, Generated: make([]int32, 1<<20)})
	p.expect(schema.Frame_Which_infer, func(f schema.Frame) {
		in, err := f.Infer()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := in.Prompt(); err != nil || string(got) != text {
			t.Errorf("%d bytes came, %v", len(got), err)
		}
	})
}

// An empty system text must reach the engine as something else than none.
func TestEmptySystemTextIsSent(t *testing.T) {
	for given, s := range map[bool]inflight.Submission{true: {Prompt: "x", HasSystem: true}, false: {Prompt: "x"}} {
		msg, err := capnp.Unmarshal(marshal(t, newInferFrame(&s).Build))
		if err != nil {
			t.Fatal(err)
		}
		f, err := schema.ReadRootFrame(msg)
		if err != nil {
			t.Fatal(err)
		}
		in, err := f.Infer()
		if err != nil || in.HasSystem() != given {
			t.Errorf("given %v: sent as %v, %v", given, in.HasSystem(), err)
		}
	}
}
