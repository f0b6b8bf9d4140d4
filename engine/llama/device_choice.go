//go:build llama

package llama

import (
	"fmt"
	"slices"
	"strings"
)

// Names that Options.Device may have beside those of backends and devices.
const (
	DeviceAuto = "auto"
	DeviceCPU  = "cpu"
)

// DeviceError says that the device that was asked for isn't there.
type DeviceError struct{ Text string }

func (e *DeviceError) Error() string { return e.Text }

// chooseAccelerators returns the devices on which models may be put beside the CPU: those of the wanted name, or with
// auto all discrete ones, else the integrated ones. Without layers for them they stay out of it altogether: the library
// would send large products to them all the same.
func chooseAccelerators(wanted string, gpuLayers int, installed []InstalledBackend) ([]Device, error) {
	var discrete, integrated, named []Device
	for _, b := range installed {
		for _, d := range b.Devices {
			switch {
			case !d.GPU:
				continue
			case d.integrated:
				integrated = append(integrated, d)
			case !slices.ContainsFunc(discrete, d.isAlso):
				discrete = append(discrete, d)
			}
			if b.is(wanted) || strings.EqualFold(wanted, d.Name) {
				named = append(named, d)
			}
		}
	}
	var chosen []Device
	switch strings.ToLower(wanted) {
	case "", DeviceAuto:
		if chosen = discrete; len(discrete) == 0 {
			chosen = integrated
		}
	case DeviceCPU:
	default:
		if chosen = named; len(named) == 0 {
			return nil, &DeviceError{whyNotThere(wanted, installed)}
		}
	}
	if gpuLayers == 0 {
		return nil, nil
	}
	return chosen, nil
}

// needsBuses reports whether devices of several backends are to be told apart, which takes opening them.
func needsBuses(wanted string, gpuLayers int, installed []InstalledBackend) bool {
	if gpuLayers == 0 || wanted != "" && !strings.EqualFold(wanted, DeviceAuto) {
		return false
	}
	backends := 0
	for _, b := range installed {
		if slices.ContainsFunc(b.Devices, func(d Device) bool { return d.GPU && !d.integrated }) {
			backends++
		}
	}
	return backends > 1
}

// uses reports whether weights may go to the accelerator of this number.
func (b *Backend) uses(number int) bool {
	i := slices.IndexFunc(b.accelerators, func(d Device) bool { return d.number == number })
	return i >= 0 && (!b.opts.OneGPU || i == b.opts.MainGPU)
}

// home is the number of the first accelerator that is used; -1: there is none.
func (b *Backend) home() int {
	i := slices.IndexFunc(b.accelerators, func(d Device) bool { return b.uses(d.number) })
	if i < 0 {
		return -1
	}
	return b.accelerators[i].number
}

// isAlso reports whether two backends have the same device.
func (d *Device) isAlso(other Device) bool { return d.Bus != "" && d.Bus == other.Bus }

func (i *InstalledBackend) is(name string) bool {
	return strings.EqualFold(name, i.Name) || strings.EqualFold(name, i.library)
}

// whyNotThere says why there is no accelerator of that name, and what there is instead.
func whyNotThere(wanted string, installed []InstalledBackend) string {
	var there []string
	for _, b := range installed {
		if b.is(wanted) && b.Problem != "" {
			return fmt.Sprintf("the backend %s gives no device: %s", b.Name, b.Problem)
		}
		for _, d := range b.Devices {
			there = append(there, fmt.Sprintf("%s of %s", d.Name, b.Name))
		}
	}
	text := fmt.Sprintf("no GPU or backend of GPUs has the name %q; there is %s", wanted, strings.Join(there, ", "))
	for _, b := range installed {
		if b.Problem != "" {
			text += fmt.Sprintf("; the backend %s gives no device: %s", b.Name, b.Problem)
		}
	}
	return text
}

// Accelerators are the devices on which models may be put beside the CPU, those that are used with their memory at this
// moment; empty: the CPU computes.
func (b *Backend) Accelerators() []Device {
	chosen := slices.Clone(b.accelerators)
	for _, d := range b.Devices() {
		if i := slices.IndexFunc(chosen, func(c Device) bool { return c.number == d.number }); i >= 0 {
			chosen[i] = d
		}
	}
	return chosen
}

// ComputesOn is the backend that computes models: cpu, cuda ….
func (b *Backend) ComputesOn() string {
	if len(b.accelerators) > 0 {
		return b.accelerators[0].Backend
	}
	return DeviceCPU
}
