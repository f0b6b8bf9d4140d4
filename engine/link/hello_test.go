package link

import (
	"fmt"
	"slices"
	"testing"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
	"tandem/schema/wire"
)

func TestHelloDescribesDevicesAndBackends(t *testing.T) {
	gpu := Device{Name: "CUDA0", Backend: "cuda", Description: "a card", MemoryTotal: 80, MemoryFree: 79}
	id := Hello{Devices: []Device{gpu}, Backends: []Backend{{Name: "cuda", Devices: []Device{gpu}}, {Name: "vulkan", Problem: "a library is missing"}, {Name: "cpu"}}}
	_, segment, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		t.Fatal(err)
	}
	frame, err := schema.NewRootFrame(segment)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.write(frame, wire.Options{}); err != nil {
		t.Fatal(err)
	}
	hello, err := frame.Hello()
	if err != nil {
		t.Fatal(err)
	}
	d := fieldReader{}
	describe := func(list schema.Device_List, err error) string {
		d.noteError(err)
		text := ""
		for i := range list.Len() {
			to := list.At(i)
			text += fmt.Sprint(d.text(to.Name()), " ", d.text(to.Backend()), " ", d.text(to.Description()), " ", to.MemoryFree(), "/", to.MemoryTotal())
		}
		return text
	}
	got := []string{describe(hello.Devices())}
	backends, err := hello.Backends()
	d.noteError(err)
	for i := range backends.Len() {
		b := backends.At(i)
		got = append(got, d.text(b.Name())+": "+describe(b.Devices())+d.text(b.Problem()))
	}
	want := []string{"CUDA0 cuda a card 79/80", "cuda: CUDA0 cuda a card 79/80", "vulkan: a library is missing", "cpu: "}
	if d.err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, d.err, want)
	}
}
