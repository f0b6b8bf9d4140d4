package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
	"tandem/schema/wire"
)

// connReading returns a Conn that reads the bytes and then EOF.
func connReading(t testing.TB, data []byte, o wire.Options) *wire.Conn {
	ca, cb := net.Pipe()
	c := wire.New(cb, o)
	t.Cleanup(func() { ca.Close(); c.Close() })
	go func() {
		ca.Write(data)
		ca.Close()
	}()
	return c
}

// segmentHeader frames segments of the given word counts, without bodies.
func segmentHeader(counts ...uint32) []byte {
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
		"4 GB header":          segmentHeader(1 << 29),
		"largest header":       segmentHeader(1<<32 - 1),
		"17 MiB":               segmentHeader(17 << 17),
		"512 segments":         segmentHeader(make([]uint32, 512)...),
		"2^32 segments":        {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"sum over the limit":   segmentHeader(1<<20, 1<<20, 1<<20),
		"no root":              segmentHeader(0),
		"end inside header":    {0, 0, 0, 0, 1},
		"end inside body":      append(segmentHeader(2), 1, 2, 3),
		"root out of bounds":   append(segmentHeader(1), 0xfc, 0xff, 0xff, 0x7f, 9, 9, 9, 9),
		"root is a list":       append(segmentHeader(1), 1, 0, 0, 0, 0, 0, 0, 0),
		"root is a capability": append(segmentHeader(1), 3, 0, 0, 0, 0, 0, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			c := connReading(t, data, wire.Options{})
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
	c := connReading(t, data, wire.Options{TraverseBytes: 4 << 20})
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

func FuzzRead(f *testing.F) {
	for _, name := range []string{"older-hello.bin", "older-infer.bin", "newer-hello.bin", "newer-member.bin", "newer-event.bin"} {
		f.Add(storedFrame(f, name))
	}
	f.Add(append(storedFrame(f, "older-hello.bin"), storedFrame(f, "older-infer.bin")...))
	f.Add(stepFrame(f, 3))
	f.Add(segmentHeader(1 << 29))
	f.Add(segmentHeader(1, 1, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		c := connReading(t, data, wire.Options{MaxFrameBytes: 1 << 20, TraverseBytes: 4 << 20})
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
