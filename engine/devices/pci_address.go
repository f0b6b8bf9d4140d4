package devices

import (
	"strconv"
	"strings"
)

// pciAddress is an accelerator's address on the PCI bus. Libraries write it in several ways: 0000:3b:00.0,
// 00000000:3B:00.0.
type pciAddress struct{ domain, bus, device uint64 }

func parsePCIAddress(text string) (pciAddress, bool) {
	parts := strings.Split(strings.TrimSpace(text), ":")
	if len(parts) != 3 {
		return pciAddress{}, false
	}
	device, _, _ := strings.Cut(parts[2], ".") // functions of one card share its driver
	var numbers [3]uint64
	for i, part := range []string{parts[0], parts[1], device} {
		n, err := strconv.ParseUint(part, 16, 32)
		if err != nil {
			return pciAddress{}, false
		}
		numbers[i] = n
	}
	return pciAddress{numbers[0], numbers[1], numbers[2]}, true
}
