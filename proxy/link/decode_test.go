package link

import (
	"errors"
	"slices"
	"testing"
	"time"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/proxy/inflight"
	"tandem/schema"
)

// marshal returns the bytes of a frame.
func marshal(t testing.TB, build func(schema.Frame) error) []byte {
	t.Helper()
	msg, seg, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		t.Fatal(err)
	}
	f, err := schema.NewRootFrame(seg)
	if err == nil {
		err = build(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	data, err := msg.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// decodeBytes does what the reader does with a frame, without the guard against panics.
func decodeBytes(d *decoder, data []byte) error {
	msg, err := capnp.Unmarshal(data)
	if err != nil {
		return err
	}
	msg.TraverseLimit = 64 << 20
	f, err := schema.ReadRootFrame(msg)
	if err != nil {
		return err
	}
	if f.Which() == schema.Frame_Which_hello {
		_, err := decodeHello(f)
		return err
	}
	return d.decode(f)
}

func stepFrame(f schema.Frame) error {
	s, err := f.NewStep()
	if err != nil {
		return err
	}
	s.SetDurationNs(1000)
	tokens, err := s.NewTokens(2)
	if err != nil {
		return err
	}
	for i := range 2 {
		t := tokens.At(i)
		t.SetRequestId(uint64(i + 1))
		t.SetAttempt(3)
		t.SetIndex(uint32(4 + i))
		t.SetTokenId(-5)
		t.SetTextEnd(6)
		t.SetMargin(0.25)
		t.SetSinceLastNs(7)
		if err := t.SetText([]byte("é")); err != nil {
			return err
		}
	}
	done, err := s.NewDone(1)
	if err != nil {
		return err
	}
	done.At(0).SetRequestId(2)
	done.At(0).SetReason(schema.FinishReason_error)
	done.At(0).SetOutputTokens(8)
	failure, err := done.At(0).NewFailure()
	if err != nil {
		return err
	}
	failure.SetPromptTokens(520)
	return failure.SetCode("decode_failed")
}

func eventFrame(f schema.Frame) error {
	e, err := f.NewEvent()
	if err != nil {
		return err
	}
	e.SetKind(schema.EventKind_loaded)
	e.SetTookNs(1 << 63) // longer than a duration can be
	facts, err := e.NewFacts()
	if err != nil {
		return err
	}
	facts.SetCells(100)
	facts.SetFlashAttention(true)
	memory, err := facts.NewMemory(1)
	if err != nil {
		return err
	}
	memory.At(0).SetWeightBytes(1)
	memory.At(0).SetCacheBytes(2)
	memory.At(0).SetComputeBytes(3)
	memory.At(0).SetAdapterBytes(4)
	if err := errors.Join(memory.At(0).SetDevice("CUDA0"), facts.SetCellsLimit("a quarter"), facts.SetCacheTypeK("q8_0"), facts.SetCacheTypeV("f16"), facts.SetKvLayout("streams"), facts.SetSampling("device"), facts.SetSamplingDecidedBy("it is faster")); err != nil {
		return err
	}
	if err := facts.SetQuantization("Q8_0"); err != nil {
		return err
	}
	return e.SetModel("demo")
}

func replyFrame(f schema.Frame) error {
	f.SetId(1)
	r, err := f.NewReply()
	if err != nil {
		return err
	}
	return r.SetMetrics([]byte("up 1\n"))
}

func pongFrame(f schema.Frame) error {
	p, err := f.NewPong()
	if err != nil {
		return err
	}
	beats, err := p.NewBeats(1)
	if err != nil {
		return err
	}
	beats.At(0).SetBudgetNs(30e9)
	return beats.At(0).SetExecutor("cpu0")
}

func TestDecodeStep(t *testing.T) {
	var d decoder
	for range 2 { // the second time into the buffers of the first
		if err := decodeBytes(&d, marshal(t, stepFrame)); err != nil {
			t.Fatal(err)
		}
		if len(d.step.Tokens) != 2 || len(d.step.Done) != 1 || d.step.Duration != 1000 {
			t.Fatalf("step %+v", d.step)
		}
		tok := d.step.Tokens[1]
		if tok.ID != 2 || tok.Attempt != 3 || tok.Index != 5 || tok.Token != -5 || string(tok.Text) != "é" || tok.TextEnd != 6 || tok.Margin != 0.25 || tok.SinceLast != 7 {
			t.Errorf("token %+v", tok)
		}
		if s := d.step.Done[0]; s.ID != 2 || s.Reason != inflight.FinishError || s.OutputTokens != 8 || s.Failure.Code != "decode_failed" || s.Failure.PromptTokens != 520 {
			t.Errorf("summary %+v", s)
		}
	}
}

func TestDecodeEventAndHeartbeats(t *testing.T) {
	var d decoder
	if err := decodeBytes(&d, marshal(t, eventFrame)); err != nil {
		t.Fatal(err)
	}
	if e := d.event; e.Kind != inflight.EventLoaded || e.Model != "demo" || e.Facts.Cells != 100 || e.Facts.Quantization != "Q8_0" || e.Took <= 0 {
		t.Errorf("event %+v", e)
	}
	memory := []inflight.DeviceMemory{{Device: "CUDA0", WeightBytes: 1, CacheBytes: 2, ComputeBytes: 3, AdapterBytes: 4}}
	if f := d.event.Facts; !slices.Equal(f.Memory, memory) || f.CellsLimit != "a quarter" || f.CacheTypeK != "q8_0" || f.CacheTypeV != "f16" || !f.FlashAttention || f.KVLayout != "streams" || f.Sampling != "device" || f.SamplingDecidedBy != "it is faster" {
		t.Errorf("facts %+v", f)
	}
	if err := decodeBytes(&d, marshal(t, pongFrame)); err != nil {
		t.Fatal(err)
	}
	if len(d.heartbeats) != 1 || d.heartbeats[0].Executor != "cpu0" || d.heartbeats[0].Budget != 30*time.Second {
		t.Errorf("heartbeats %+v", d.heartbeats)
	}
}

func TestEnumsMatchTheSchema(t *testing.T) {
	for name, pair := range map[string][2]int{
		"stop": {int(inflight.FinishStop), int(schema.FinishReason_stop)}, "length": {int(inflight.FinishLength), int(schema.FinishReason_length)},
		"cancelled": {int(inflight.FinishCancelled), int(schema.FinishReason_cancelled)}, "deadline": {int(inflight.FinishDeadline), int(schema.FinishReason_deadline)},
		"error": {int(inflight.FinishError), int(schema.FinishReason_error)}, "moved": {int(inflight.FinishMoved), int(schema.FinishReason_movedAway)},
		"exit code": {int(inflight.ExitCode), int(schema.ExitKind_exit)}, "exit signal": {int(inflight.ExitSignal), int(schema.ExitKind_signal)},
		"exit oom": {int(inflight.ExitOOM), int(schema.ExitKind_oom)}, "exit stall": {int(inflight.ExitStall), int(schema.ExitKind_stall)},
		"exit upgrade": {int(inflight.ExitUpgrade), int(schema.ExitKind_upgrade)},
		"loading":      {int(inflight.EventLoading), int(schema.EventKind_loading)}, "progress": {int(inflight.EventProgress), int(schema.EventKind_progress)},
		"loaded": {int(inflight.EventLoaded), int(schema.EventKind_loaded)}, "load failed": {int(inflight.EventLoadFailed), int(schema.EventKind_loadFailed)},
		"evicted": {int(inflight.EventEvicted), int(schema.EventKind_evicted)},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %d here and %d in the schema", name, pair[0], pair[1])
		}
	}
}

// FuzzDecode checks that no frame makes the decoder panic (which otherwise only the guard around it would catch), and
// that what is decoded is bounded.
func FuzzDecode(f *testing.F) {
	seeds := []func(schema.Frame) error{
		helloFrame(1), stepFrame, eventFrame, replyFrame, pongFrame,
		func(f schema.Frame) error { _, err := f.NewAccepted(); return err },
		func(f schema.Frame) error { _, err := f.NewDraining(); return err },
		func(f schema.Frame) error { f.SetMoved(); return nil },
		func(f schema.Frame) error { return f.SetGoAway("bye") },
		func(f schema.Frame) error {
			c, err := f.NewCatalog()
			if err != nil {
				return err
			}
			_, err = c.NewModels(2)
			return err
		},
		func(f schema.Frame) error {
			s, err := f.NewStats()
			if err != nil {
				return err
			}
			_, err = s.NewBases(2)
			return err
		},
	}
	for _, build := range seeds {
		f.Add(marshal(f, build))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var d decoder
		if err := decodeBytes(&d, data); err != nil {
			return
		}
		if len(d.step.Tokens) > maxStepTokens || len(d.step.Done) > maxStepTokens || len(d.catalog.Models) > maxModels || len(d.heartbeats) > maxListEntries {
			t.Error("a list is longer than its bound")
		}
	})
}
