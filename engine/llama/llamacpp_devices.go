//go:build llama

package llama

/*
#cgo CXXFLAGS: -std=c++17 -O3 -Wno-psabi
#cgo LDFLAGS: -lllama-common -lllama -lggml -lggml-base -lm -Wl,-rpath,$ORIGIN/lib
#include <stdlib.h>
#include "shim.h"
*/
import "C"

// Device is one piece of hardware as the library sees it.
type Device struct {
	Name        string // CPU, CUDA0 …
	Description string
	Backend     string // cpu, cuda …, as in metrics
	GPU         bool
	Used        bool // it may compute for this process; the three below are known of these alone
	FreeBytes   int64
	TotalBytes  int64
	Bus         string // address on the PCI bus, empty when it has none

	integrated bool // it shares the host's memory
	number     int  // in the library's list
}

// Devices lists the devices, with the memory of those that are used at this moment.
func (b *Backend) Devices() []Device {
	return listDevices(func(d *Device) bool { return !d.GPU || b.uses(d.number) })
}

// listDevices lists the devices. Only those that may be opened are asked for their memory: CUDA takes some of a card
// that is asked, and ends the process where the card is somebody else's.
func listDevices(mayOpen func(*Device) bool) []Device {
	out := make([]Device, 0, int(C.tdm_device_count()))
	for i := range int(C.tdm_device_count()) {
		var d C.tdm_device
		if !C.tdm_device_get(C.int32_t(i), &d) {
			continue
		}
		device := deviceOf(&d)
		device.number = i
		if device.Used = mayOpen(&device); device.Used {
			C.tdm_device_open(C.int32_t(i), &d)
			device.TotalBytes, device.Bus = int64(d.total), C.GoString(d.bus)
			device.FreeBytes = freeBytes(int64(d.free), device.TotalBytes)
		}
		out = append(out, device)
	}
	return out
}

// freeBytes bounds what a device says is free. With CUDA's managed memory (GGML_CUDA_ENABLE_UNIFIED_MEMORY) it is what
// the host has.
func freeBytes(free, total int64) int64 {
	if total <= 0 {
		return free
	}
	return min(free, total)
}

func deviceOf(d *C.tdm_device) Device {
	return Device{
		Name:        C.GoString(d.name),
		Description: C.GoString(d.description),
		Backend:     backendName(C.GoString(d.backend)),
		GPU:         d._type == C.GGML_BACKEND_DEVICE_TYPE_GPU || d._type == C.GGML_BACKEND_DEVICE_TYPE_IGPU,
		integrated:  d._type == C.GGML_BACKEND_DEVICE_TYPE_IGPU,
	}
}
