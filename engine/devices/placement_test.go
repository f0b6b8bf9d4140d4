package devices

import (
	"math"
	"testing"
)

func TestFitsWhereTheWeightsGo(t *testing.T) {
	host := Memory{Total: 1000, Used: 600}                          // room for 200 under 0.8
	full, empty := Memory{Total: 100, Used: 90}, Memory{Total: 100} // and for 0 and 80
	unknown := Memory{}
	for _, tt := range []struct {
		name string
		p    Placement
		gpus []Memory
		most uint64 // that fits
	}{
		{"no accelerator", Placement{Layers: -1}, nil, 200},
		{"none wanted", Placement{Layers: 0}, []Memory{empty}, 200},
		{"all on the only one, whatever the host has", Placement{Layers: -1}, []Memory{{Total: 10_000, Used: 1000}}, 7000},
		{"the host is empty, the accelerator full", Placement{Layers: -1}, []Memory{full}, 0},
		{"one of two", Placement{Layers: -1, One: true, Main: 1}, []Memory{full, empty}, 80},
		{"one that isn't there: the load says so", Placement{Layers: -1, One: true, Main: 7}, []Memory{full}, math.MaxUint64},
		{"by free memory", Placement{Layers: -1}, []Memory{{Total: 100, Used: 50}, {Total: 100, Used: 25}}, 75}, // 30 and 45: 30/0.4 = 75
		{"by shares", Placement{Layers: -1, Shares: []float32{3, 1}}, []Memory{empty, empty}, 106},              // 80 on the first
		{"a share of nothing", Placement{Layers: -1, Shares: []float32{1}}, []Memory{empty, full}, 80},
		{"all of them full", Placement{Layers: -1}, []Memory{{Total: 100, Used: 100}, {Total: 100, Used: 100}}, 0},
		{"some layers: all there is", Placement{Layers: 5}, []Memory{empty, full}, 280},
		{"some layers on one", Placement{Layers: 5, One: true}, []Memory{empty, empty}, 280},
		{"nobody tells", Placement{Layers: -1}, []Memory{unknown}, math.MaxUint64},
		{"nobody tells, some layers", Placement{Layers: 1}, []Memory{unknown}, math.MaxUint64},
	} {
		tt.p.Highest = 0.8
		if !tt.p.Fits(tt.most, host, tt.gpus) {
			t.Errorf("%s: %d don't fit", tt.name, tt.most)
		}
		if tt.most < math.MaxUint64 && tt.p.Fits(tt.most+1, host, tt.gpus) {
			t.Errorf("%s: %d fit", tt.name, tt.most+1)
		}
	}
}

func TestFreeMemoryIsUsedBeyondTheWatermarkWhenNothingElseIsLoaded(t *testing.T) {
	host, gpu := Memory{Total: 1000, Used: 600}, Memory{Total: 1000, Used: 900}
	for _, tt := range []struct {
		name string
		p    Placement
		gpus []Memory
		most uint64
	}{
		{"on the host", Placement{Highest: 0.8}, nil, 388},
		{"passed already", Placement{Highest: 0.5}, nil, 388},
		{"on an accelerator", Placement{Highest: 0.8, Layers: -1}, []Memory{gpu}, 97},
	} {
		if !tt.p.Holds(tt.most, host, tt.gpus) || tt.p.Holds(tt.most+1, host, tt.gpus) {
			t.Errorf("%s: the most isn't %d", tt.name, tt.most)
		}
		if tt.p.Fits(tt.most, host, tt.gpus) {
			t.Errorf("%s: %d fit under the watermark", tt.name, tt.most)
		}
	}
}

func TestLeftOfTheHostBesideTheWeights(t *testing.T) {
	host := Memory{Total: 1000, Used: 600}
	for _, tt := range []struct {
		name  string
		p     Placement
		host  Memory
		gpus  []Memory
		bytes uint64
		want  uint64
	}{
		{"no accelerator", Placement{Layers: -1}, host, nil, 150, 50},
		{"none wanted", Placement{Layers: 0}, host, []Memory{{Total: 100}}, 150, 50},
		{"beyond the watermark", Placement{Layers: -1}, host, nil, 300, 100},
		{"nothing is left", Placement{Layers: -1}, host, nil, 400, 1},
		{"the accelerator's library knows", Placement{Layers: -1}, host, []Memory{{Total: 100}}, 150, 0},
		{"nobody tells", Placement{Layers: -1}, Memory{}, nil, 150, 0},
	} {
		tt.p.Highest = 0.8
		if got := tt.p.Left(tt.bytes, tt.host, tt.gpus); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
