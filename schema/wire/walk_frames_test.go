package wire_test

import (
	"testing"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
	"tandem/schema/wire"
)

// walk touches everything of a frame that the two links touch.
func walk(f schema.Frame) error {
	return wire.Guard(func() error {
		switch f.Which() {
		case schema.Frame_Which_hello:
			h, err := f.Hello()
			if err != nil {
				return err
			}
			return walkHello(h)
		case schema.Frame_Which_infer:
			r, err := f.Infer()
			if err != nil {
				return err
			}
			return walkInfer(r)
		case schema.Frame_Which_step:
			s, err := f.Step()
			if err != nil {
				return err
			}
			return walkStep(s)
		case schema.Frame_Which_call:
			call, err := f.Call()
			if err != nil || call.Which() != schema.Call_Which_load {
				return err
			}
			_, err = call.Load()
			return err
		}
		return nil
	})
}

func walkHello(h schema.Hello) error {
	_, err := wire.Agree(h)
	if err != nil {
		return err
	}
	if _, err = h.Build(); err != nil {
		return err
	}
	devices, err := h.Devices()
	if err != nil {
		return err
	}
	for i := range devices.Len() {
		if _, err := devices.At(i).Name(); err != nil {
			return err
		}
	}
	_, err = h.LastExit()
	return err
}

func walkInfer(r schema.InferRequest) error {
	if _, err := r.Prompt(); err != nil {
		return err
	}
	messages, err := r.Messages()
	if err != nil {
		return err
	}
	for i := range messages.Len() {
		if _, err := messages.At(i).Content(); err != nil {
			return err
		}
	}
	stops, err := r.Stops()
	if err != nil {
		return err
	}
	for i := range stops.Len() {
		if _, err := stops.At(i); err != nil {
			return err
		}
	}
	rendered, err := r.Rendered()
	if err != nil {
		return err
	}
	ids, err := rendered.PromptTokens()
	if err != nil {
		return err
	}
	for i := range ids.Len() {
		_ = ids.At(i)
	}
	return nil
}

func walkStep(s schema.Step) error {
	tokens, err := s.Tokens()
	if err != nil {
		return err
	}
	for i := range tokens.Len() {
		token := tokens.At(i)
		if _, err := token.Text(); err != nil {
			return err
		}
		if _, err := token.TopLogprobs(); err != nil {
			return err
		}
	}
	done, err := s.Done()
	if err != nil {
		return err
	}
	for i := range done.Len() {
		failure, err := done.At(i).Failure()
		if err != nil {
			return err
		}
		if _, err := failure.Text(); err != nil {
			return err
		}
	}
	return nil
}

// stepFrame is a frame of n tokens and a summary as bytes.
func stepFrame(t testing.TB, n int) []byte {
	msg, seg := capnp.NewSingleSegmentMessage(nil)
	f, err := schema.NewRootFrame(seg)
	if err != nil {
		t.Fatal(err)
	}
	if err := fillStep(f, n); err != nil {
		t.Fatal(err)
	}
	data, err := msg.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func fillStep(f schema.Frame, n int) error {
	s, err := f.NewStep()
	if err != nil {
		return err
	}
	tokens, err := s.NewTokens(int32(n))
	if err != nil {
		return err
	}
	for i := range n {
		token := tokens.At(i)
		token.SetRequestId(uint64(i))
		token.SetTokenId(int32(i))
		if err := token.SetText([]byte(" text")); err != nil {
			return err
		}
	}
	done, err := s.NewDone(1)
	if err != nil {
		return err
	}
	failure, err := done.At(0).NewFailure()
	if err != nil {
		return err
	}
	return failure.SetText("why")
}
