package link

import (
	"testing"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
	"tandem/schema/wire"
)

// FuzzDecode returns the engine's decoders whatever a peer could send.
func FuzzDecode(f *testing.F) {
	seed := func(fill func(schema.Frame) error) {
		msg, segment := capnp.NewSingleSegmentMessage(nil)
		frame, err := schema.NewRootFrame(segment)
		if err == nil {
			err = fill(frame)
		}
		if err != nil {
			f.Fatal(err)
		}
		data, err := msg.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	seed(func(f schema.Frame) error { f.SetPing(); return nil })
	seed(func(f schema.Frame) error {
		c, err := f.NewCall()
		if err == nil {
			_, err = c.NewTokenize()
		}
		return err
	})
	seed(func(f schema.Frame) error {
		c, err := f.NewCall()
		if err != nil {
			return err
		}
		in, err := c.NewDetokenize()
		if err == nil {
			_, err = in.NewTokens(3)
		}
		return err
	})
	seed(func(f schema.Frame) error {
		r, err := f.NewInfer()
		if err != nil {
			return err
		}
		r.SetTask(schema.Task_embed)
		_, err = r.NewPromptTokens(3)
		return err
	})
	seed(func(f schema.Frame) error {
		r, err := f.NewInfer()
		if err != nil {
			return err
		}
		if err := r.SetPrompt([]byte("hello")); err != nil {
			return err
		}
		s, err := r.NewSampling()
		if err != nil {
			return err
		}
		if _, err := s.NewSeeds(3); err != nil {
			return err
		}
		if _, err := s.NewLogitBias(2); err != nil {
			return err
		}
		m, err := r.NewMessages(1)
		if err != nil {
			return err
		}
		if err := m.At(0).SetRole("user"); err != nil {
			return err
		}
		if _, err := r.NewPromptTokens(2); err != nil {
			return err
		}
		rendered, err := r.NewRendered()
		if err != nil {
			return err
		}
		_, err = rendered.NewStops(2)
		return err
	})
	f.Fuzz(func(t *testing.T, data []byte) {
		msg, err := capnp.Unmarshal(data)
		if err != nil {
			return
		}
		msg.TraverseLimit = 1 << 20
		frame, err := schema.ReadRootFrame(msg)
		if err != nil {
			return
		}
		_ = wire.Guard(func() error { // an error is the peer's; a crash or endless work is ours
			switch frame.Which() {
			case schema.Frame_Which_infer:
				_, in, err := decodeInfer(frame)
				if err == nil && (len(in.stops) > maxStops || len(in.input.Messages) > maxMessages || len(in.sampling.logitBias) > maxBias) {
					t.Errorf("kept more than the limits: %d stops, %d messages", len(in.stops), len(in.input.Messages))
				}
				return err
			case schema.Frame_Which_call:
				_, err := decodeCall(frame)
				return err
			}
			return nil
		})
	})
}
