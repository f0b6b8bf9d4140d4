package link

import (
	"fmt"
	"slices"
	"testing"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/engine/models"
	"tandem/schema"
	"tandem/schema/wire"
)

func TestFactsHaveTheMemoryOfEachDevice(t *testing.T) {
	_, segment, err := capnp.NewMessage(capnp.SingleSegment(nil))
	if err != nil {
		t.Fatal(err)
	}
	facts, err := schema.NewRootFacts(segment)
	if err != nil {
		t.Fatal(err)
	}
	from := models.Facts{CellsLimit: "a quarter", Sampling: models.Sampling{Place: models.SamplingDevice, DecidedBy: "it is faster"}, KV: models.KVCache{KeyType: "q8_0", ValueType: "f16", Flash: true, Layout: models.LayoutStreams}, Memory: []models.DeviceMemory{{Device: "CUDA0", WeightBytes: 1, CacheBytes: 2, ComputeBytes: 3, AdapterBytes: 5}, {Device: "CPU", WeightBytes: 4}}}
	if err := writeFacts(facts, &from); err != nil {
		t.Fatal(err)
	}
	d := fieldReader{}
	list, err := facts.Memory()
	d.noteError(err)
	var got []models.DeviceMemory
	for i := range list.Len() {
		m := list.At(i)
		got = append(got, models.DeviceMemory{Device: d.text(m.Device()), WeightBytes: int64(m.WeightBytes()), CacheBytes: int64(m.CacheBytes()), ComputeBytes: int64(m.ComputeBytes()), AdapterBytes: int64(m.AdapterBytes())})
	}
	if kv := (models.KVCache{KeyType: models.CacheType(d.text(facts.CacheTypeK())), ValueType: models.CacheType(d.text(facts.CacheTypeV())), Flash: facts.FlashAttention(), Layout: models.KVLayout(d.text(facts.KvLayout()))}); d.err != nil || kv != from.KV {
		t.Errorf("KV cache: %+v, %v", kv, d.err)
	}
	if sampling := (models.Sampling{Place: models.SamplingPlace(d.text(facts.Sampling())), DecidedBy: d.text(facts.SamplingDecidedBy())}); d.err != nil || sampling != from.Sampling {
		t.Errorf("sampling: %+v, %v", sampling, d.err)
	}
	if limit := d.text(facts.CellsLimit()); d.err != nil || !slices.Equal(got, from.Memory) || limit != from.CellsLimit {
		t.Errorf("%+v, %q, %v", got, limit, d.err)
	}
}

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
