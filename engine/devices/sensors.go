package devices

import (
	"strconv"
	"strings"
)

// Sensors are what an accelerator's driver tells of it. NaN: it doesn't.
type Sensors struct {
	Driver      string
	Utilization float64 // 0 to 1
	Watts       float64
	Celsius     float64
}

// bus is an accelerator's place on the PCI bus. Libraries write it in several ways: 0000:3b:00.0, 00000000:3B:00.0.
type bus struct{ domain, bus, device uint64 }

func parseBus(text string) (bus, bool) {
	parts := strings.Split(strings.TrimSpace(text), ":")
	if len(parts) != 3 {
		return bus{}, false
	}
	device, _, _ := strings.Cut(parts[2], ".") // functions of one card share its driver
	var numbers [3]uint64
	for i, part := range []string{parts[0], parts[1], device} {
		n, err := strconv.ParseUint(part, 16, 32)
		if err != nil {
			return bus{}, false
		}
		numbers[i] = n
	}
	return bus{numbers[0], numbers[1], numbers[2]}, true
}
