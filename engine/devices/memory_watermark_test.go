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
	for _, tt := range []struct {
		name       string
		host       Memory
		room, free uint64
	}{
		{"below the watermark", Memory{Total: 1000, Used: 600}, 200, 400},
		{"above it", Memory{Total: 1000, Used: 900}, 1, 100},
		{"full", Memory{Total: 1000, Used: 1000}, 1, 1},
		{"the size isn't known", Memory{}, 0, 0},
	} {
		p := Placement{Watermark: 0.8}
		if room, free := p.HostRoom(tt.host); room != tt.room || free != tt.free {
			t.Errorf("%s: %d, %d; want %d, %d", tt.name, room, free, tt.room, tt.free)
		}
	}
}
