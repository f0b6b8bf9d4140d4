package wire_test

import (
	"os"
	"path/filepath"
	"testing"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
	"tandem/schema/wire"
)

func storedFrame(t testing.TB, name string) []byte {
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestOlderMessagesHaveDefaults(t *testing.T) {
	c := connReading(t, append(storedFrame(t, "older-hello.bin"), storedFrame(t, "older-infer.bin")...), wire.Options{})
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
	data := append(storedFrame(t, "newer-hello.bin"), storedFrame(t, "newer-member.bin")...)
	c := connReading(t, append(data, storedFrame(t, "newer-event.bin")...), wire.Options{})
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
