package link

import (
	"math"
	"testing"

	capnp "capnproto.org/go/capnp/v3"

	"tandem/schema"
)

// A weight that divides nothing by zero: what a peer sends may be anything.
func TestOwnerWeight(t *testing.T) {
	for sent, want := range map[float32]float64{
		0: 0, 0.5: 0.5, 3: 3, -1: 0, float32(math.Inf(1)): 0, float32(math.NaN()): 0,
	} {
		_, segment := capnp.NewSingleSegmentMessage(nil)
		r, err := schema.NewRootInferRequest(segment)
		if err != nil {
			t.Fatal(err)
		}
		r.SetOwnerWeight(sent)
		in, err := decodeRequest(r)
		if err != nil || in.ownerWeight != want {
			t.Errorf("%g is taken as %g (%v), want %g", sent, in.ownerWeight, err, want)
		}
	}
}
