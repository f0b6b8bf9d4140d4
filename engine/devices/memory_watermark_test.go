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
		{"no accelerator", Placement{GPULayers: -1}, nil, 200},
		{"none wanted", Placement{GPULayers: 0}, []Memory{empty}, 200},
		{"all on the only one, whatever the host has", Placement{GPULayers: -1}, []Memory{{Total: 10_000, Used: 1000}}, 7000},
		{"the host is empty, the accelerator full", Placement{GPULayers: -1}, []Memory{full}, 0},
		{"one of two", Placement{GPULayers: -1, OneGPU: true, MainGPU: 1}, []Memory{full, empty}, 80},
		{"one that isn't there: the load says so", Placement{GPULayers: -1, OneGPU: true, MainGPU: 7}, []Memory{full}, math.MaxUint64},
		// 30 and 45: 30/0.4 = 75
		{"by free memory", Placement{GPULayers: -1}, []Memory{{Total: 100, Used: 50}, {Total: 100, Used: 25}}, 75},
		// 80 on the first
		{"by shares", Placement{GPULayers: -1, GPUSplit: []float32{3, 1}}, []Memory{empty, empty}, 106},
		{"a share of nothing", Placement{GPULayers: -1, GPUSplit: []float32{1}}, []Memory{empty, full}, 80},
		{"all of them full", Placement{GPULayers: -1}, []Memory{{Total: 100, Used: 100}, {Total: 100, Used: 100}}, 0},
		{"some layers: all there is", Placement{GPULayers: 5}, []Memory{empty, full}, 280},
		{"some layers on one", Placement{GPULayers: 5, OneGPU: true}, []Memory{empty, empty}, 280},
		{"the size isn't known", Placement{GPULayers: -1}, []Memory{unknown}, math.MaxUint64},
		{"the size isn't known, some layers", Placement{GPULayers: 1}, []Memory{unknown}, math.MaxUint64},
	} {
		tt.p.Watermark = 0.8
		if !tt.p.FitsWatermark(tt.most, host, tt.gpus) {
			t.Errorf("%s: %d don't fit", tt.name, tt.most)
		}
		if tt.most < math.MaxUint64 && tt.p.FitsWatermark(tt.most+1, host, tt.gpus) {
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
		{"on the host", Placement{Watermark: 0.8}, nil, 388},
		{"passed already", Placement{Watermark: 0.5}, nil, 388},
		{"on an accelerator", Placement{Watermark: 0.8, GPULayers: -1}, []Memory{gpu}, 97},
	} {
		if !tt.p.FitsFreeMemory(tt.most, host, tt.gpus) || tt.p.FitsFreeMemory(tt.most+1, host, tt.gpus) {
			t.Errorf("%s: the most isn't %d", tt.name, tt.most)
		}
		if tt.p.FitsWatermark(tt.most, host, tt.gpus) {
			t.Errorf("%s: %d fit under the watermark", tt.name, tt.most)
		}
		if !tt.p.Fits(tt.most, true, host, tt.gpus) || tt.p.Fits(tt.most, false, host, tt.gpus) {
			t.Errorf("%s: %d fit beside others, or not alone", tt.name, tt.most)
		}
	}
}

func TestRoomOfTheHost(t *testing.T) {
	host := Memory{Total: 1000, Used: 600}
	for _, tt := range []struct {
		name  string
		p     Placement
		host  Memory
		gpus  []Memory
		bytes uint64
		want  uint64
	}{
		{"no accelerator", Placement{GPULayers: -1}, host, nil, 150, 200},
		{"none wanted", Placement{GPULayers: 0}, host, []Memory{{Total: 100}}, 150, 200},
		{"beyond the watermark", Placement{GPULayers: -1}, host, nil, 300, 400},
		{"a part on an accelerator", Placement{GPULayers: 3}, host, []Memory{{Total: 100}}, 300, 200},
		{"the host is full", Placement{GPULayers: -1}, Memory{Total: 1000, Used: 1000}, []Memory{{Total: 100}}, 300, 1},
		{"the size isn't known", Placement{GPULayers: -1}, Memory{}, nil, 150, 0},
	} {
		tt.p.Watermark = 0.8
		if got := tt.p.HostRoom(tt.bytes, tt.host, tt.gpus); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
