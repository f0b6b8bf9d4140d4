package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
	"tandem/schema/wire"
)

// feed gives a Conn that reads the bytes and then the end.
func feed(t testing.TB, data []byte, o wire.Options) *wire.Conn {
	ca, cb := net.Pipe()
	c := wire.New(cb, o)
	t.Cleanup(func() { ca.Close(); c.Close() })
	go func() {
		ca.Write(data)
		ca.Close()
	}()
	return c
}

// words frames segments of the given word counts, without bodies.
func words(counts ...uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(counts)-1))
	for _, n := range counts {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	if len(b)%8 != 0 {
		b = append(b, 0, 0, 0, 0)
	}
	return b
}

func TestHostileBytesEndTheConnection(t *testing.T) {
	for name, data := range map[string][]byte{
		"garbage":              bytes.Repeat([]byte{0xfe, 0x13, 0x37, 0x99}, 100),
		"text":                 []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"4 GB header":          words(1 << 29),
		"largest header":       words(1<<32 - 1),
		"17 MiB":               words(17 << 17),
		"512 segments":         words(make([]uint32, 512)...),
		"2^32 segments":        {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"sum over the limit":   words(1<<20, 1<<20, 1<<20),
		"no root":              words(0),
		"end inside header":    {0, 0, 0, 0, 1},
		"end inside body":      append(words(2), 1, 2, 3),
		"root out of bounds":   append(words(1), 0xfc, 0xff, 0xff, 0x7f, 9, 9, 9, 9),
		"root is a list":       append(words(1), 1, 0, 0, 0, 0, 0, 0, 0),
		"root is a capability": append(words(1), 3, 0, 0, 0, 0, 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			c := feed(t, data, wire.Options{})
			f, release, err := c.Read()
			if err == nil { // a frame without content is possible; what follows must end
				if f.Which() != schema.Frame_Which_hello || f.HasHello() {
					t.Errorf("made a frame %v of it", f.Which())
				}
				release()
				_, _, err = c.Read()
			}
			if err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestTraverseLimitStopsAmplification(t *testing.T) {
	msg, seg := capnp.NewSingleSegmentMessage(nil)
	f, err := schema.NewRootFrame(seg)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.NewInfer()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetPrompt(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	data, err := msg.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	c := feed(t, data, wire.Options{TraverseBytes: 4 << 20})
	got, release, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	in, err := got.Infer()
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	for err == nil && reads < 10 {
		_, err = in.Prompt()
		reads++
	}
	if reads != 4 {
		t.Errorf("read a 1 MiB field %d times within a limit of 4 MiB", reads)
	}
}

func TestGuardTurnsAPanicIntoAnError(t *testing.T) {
	_, seg := capnp.NewSingleSegmentMessage(nil)
	f, err := schema.NewRootFrame(seg)
	if err != nil {
		t.Fatal(err)
	}
	f.SetCancel()
	err = wire.Guard(func() error {
		_, err := f.Infer() // panics: cancel is set
		return err
	})
	if !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("got %v", err)
	}
}

func stored(t testing.TB, name string) []byte {
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestOlderMessagesHaveDefaults(t *testing.T) {
	c := feed(t, append(stored(t, "older-hello.bin"), stored(t, "older-infer.bin")...), wire.Options{})
	f, release, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	h, err := f.Hello()
	if err != nil {
		t.Fatal(err)
	}
	build, _ := h.Build()
	if version, err := wire.Agree(h); err != nil || version != 1 || build != "0.9.0" || h.InstanceId() != 0x0123456789abcdef || h.HasLimits() {
		t.Errorf("hello: version %d (%v), build %q, instance %x", version, err, build, h.InstanceId())
	}
	release()

	f, release, err = c.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	r, err := f.Infer()
	if err != nil {
		t.Fatal(err)
	}
	model, _ := r.Model()
	text, _ := r.Prompt()
	if f.Id() != 7 || f.Attempt() != 2 || model != "demo" || string(text) != "What is the capital of France?" {
		t.Errorf("got %d/%d %q %q", f.Id(), f.Attempt(), model, text)
	}
	stops, err := r.Stops()
	if err != nil || stops.Len() != 0 || !r.CountCache() || r.Raw() || r.TimeoutNs() != 0 || r.HasSampling() || r.Replay() != schema.ReplayMode_none {
		t.Errorf("fields that weren't there: stops %d (%v), countCache %v, raw %v", stops.Len(), err, r.CountCache(), r.Raw())
	}
}

func TestNewerMessagesAreReadAsFarAsKnown(t *testing.T) {
	data := append(stored(t, "newer-hello.bin"), stored(t, "newer-member.bin")...)
	c := feed(t, append(data, stored(t, "newer-event.bin")...), wire.Options{})
	f, release, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	h, err := f.Hello()
	if err != nil {
		t.Fatal(err)
	}
	if version, err := wire.Agree(h); err != nil || version != wire.Protocol {
		t.Errorf("agreed on %d (%v)", version, err)
	}
	release()

	f, release, err = c.Read()
	if err != nil {
		t.Fatal(err)
	}
	if f.Id() != 9 || f.Which() <= schema.Frame_Which_moved {
		t.Errorf("unknown member: id %d, which %v", f.Id(), f.Which())
	}
	if err := walk(f); err != nil {
		t.Errorf("walking over an unknown member: %v", err)
	}
	release()

	f, release, err = c.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	e, err := f.Event()
	if err != nil || e.Kind() != 77 {
		t.Errorf("event kind %v (%v)", e.Kind(), err)
	}
}

func TestAgree(t *testing.T) {
	for name, test := range map[string]struct {
		low, high uint16
		want      uint16
	}{
		"same":       {1, 1, 1},
		"newer peer": {1, 9, 1},
		"too new":    {2, 9, 0},
		"too old":    {0, 0, 0},
		"reversed":   {3, 1, 0},
	} {
		_, seg := capnp.NewSingleSegmentMessage(nil)
		h, err := schema.NewRootHello(seg)
		if err != nil {
			t.Fatal(err)
		}
		h.SetProtocol(test.high)
		h.SetMinProtocol(test.low)
		if got, err := wire.Agree(h); got != test.want || (err == nil) != (test.want != 0) {
			t.Errorf("%s: agreed on %d (%v), want %d", name, got, err, test.want)
		}
	}
}

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

func FuzzRead(f *testing.F) {
	for _, name := range []string{"older-hello.bin", "older-infer.bin", "newer-hello.bin", "newer-member.bin", "newer-event.bin"} {
		f.Add(stored(f, name))
	}
	f.Add(append(stored(f, "older-hello.bin"), stored(f, "older-infer.bin")...))
	f.Add(stepFrame(f, 3))
	f.Add(words(1 << 29))
	f.Add(words(1, 1, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		c := feed(t, data, wire.Options{MaxFrameBytes: 1 << 20, TraverseBytes: 4 << 20})
		total := 0
		for {
			frame, release, err := c.Read()
			if err != nil {
				if err == io.EOF && uint64(len(data)) != c.BytesIn() {
					t.Errorf("a clean end after %d of %d bytes", c.BytesIn(), len(data))
				}
				return
			}
			_ = walk(frame)
			release()
			if total++; total > len(data) {
				t.Fatal("more frames than bytes")
			}
		}
	})
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
