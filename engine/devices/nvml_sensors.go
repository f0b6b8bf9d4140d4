//go:build llama

package devices

import (
	"fmt"
	"log/slog"
	"math"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// NVML reads the sensors of NVIDIA cards. Its zero value has no cards. It isn't safe for concurrent use.
type NVML struct {
	library nvml.Interface
	driver  string
	cards   map[pciAddress]nvml.Device
}

// OpenNVML loads NVIDIA's management library, which comes with the driver. That a machine has none is only logged at
// level debug.
func OpenNVML(log *slog.Logger) *NVML { return openNVML(nvml.New(), log) }

func openNVML(library nvml.Interface, log *slog.Logger) *NVML {
	n := &NVML{cards: make(map[pciAddress]nvml.Device)}
	if r := library.Init(); r != nvml.SUCCESS {
		log.Debug("no NVML: GPUs have no utilisation, power and temperature", "why", returnText(r))
		return n
	}
	n.library = library
	n.driver, _ = library.SystemGetDriverVersion() // empty when it isn't known
	count, r := library.DeviceGetCount()
	if r != nvml.SUCCESS {
		log.Debug("NVML lists no GPUs", "why", returnText(r))
		return n
	}
	for i := range count {
		card, r := library.DeviceGetHandleByIndex(i)
		if r != nvml.SUCCESS {
			log.Debug("NVML doesn't give a GPU", "number", i, "why", returnText(r)) // it may not be this process's
			continue
		}
		pci, r := card.GetPciInfo()
		address, ok := parsePCIAddress(busID(&pci))
		if r != nvml.SUCCESS || !ok {
			log.Debug("NVML doesn't say where a GPU is", "number", i, "why", returnText(r))
			continue
		}
		n.cards[address] = card
	}
	return n
}

// returnText is a text for a return value that doesn't need the library, which may not be there.
func returnText(r nvml.Return) string {
	if r == nvml.ERROR_LIBRARY_NOT_FOUND {
		return "libnvidia-ml.so.1 isn't there"
	}
	return fmt.Sprintf("NVML error %d", int(r))
}

// busID is the text in a C array.
func busID(pci *nvml.PciInfo) string {
	var text []byte
	for _, c := range pci.BusId {
		if c == 0 {
			break
		}
		text = append(text, byte(c))
	}
	return string(text)
}

// Read returns the sensors of the card at a PCI address now; false: the driver knows no such card.
func (n *NVML) Read(address string) (Sensors, bool) {
	at, ok := parsePCIAddress(address)
	card := n.cards[at]
	if !ok || card == nil {
		return Sensors{}, false
	}
	s := unknownSensors()
	s.Driver = n.driver
	if rates, r := card.GetUtilizationRates(); r == nvml.SUCCESS {
		s.Utilization = float64(rates.Gpu) / 100
	}
	if milliwatts, r := card.GetPowerUsage(); r == nvml.SUCCESS {
		s.Watts = float64(milliwatts) / 1e3
	}
	if celsius, r := card.GetTemperature(nvml.TEMPERATURE_GPU); r == nvml.SUCCESS {
		s.Celsius = float64(celsius)
	}
	return s, true
}

// Close shuts the library down.
func (n *NVML) Close() error {
	if n.library == nil {
		return nil
	}
	r := n.library.Shutdown()
	n.library, n.cards = nil, nil
	if r != nvml.SUCCESS {
		return fmt.Errorf("close NVML: %s", returnText(r))
	}
	return nil
}

func unknownSensors() Sensors {
	return Sensors{Utilization: math.NaN(), Watts: math.NaN(), Celsius: math.NaN()}
}
