//go:build llama

package devices

import (
	"bytes"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
)

// fakeCards is NVIDIA's library with two cards, of which the second reports nothing but its address.
func fakeCards(t *testing.T) (*mock.Interface, *int) {
	t.Helper()
	at := func(address string) nvml.PciInfo {
		var pci nvml.PciInfo
		for i, c := range []byte(address) {
			setChar(&pci.BusId[i], c)
		}
		return pci
	}
	card := func(address string, r nvml.Return) *mock.Device {
		return &mock.Device{
			GetPciInfoFunc:          func() (nvml.PciInfo, nvml.Return) { return at(address), nvml.SUCCESS },
			GetUtilizationRatesFunc: func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 37, Memory: 12}, r },
			GetPowerUsageFunc:       func() (uint32, nvml.Return) { return 251_500, r },
			GetTemperatureFunc:      func(nvml.TemperatureSensors) (uint32, nvml.Return) { return 64, r },
		}
	}
	cards := []*mock.Device{card("00000000:3B:00.0", nvml.SUCCESS), card("00000000:AF:00.0", nvml.ERROR_NOT_SUPPORTED)}
	closed := 0
	return &mock.Interface{
		InitFunc:                   func() nvml.Return { return nvml.SUCCESS },
		ShutdownFunc:               func() nvml.Return { closed++; return nvml.SUCCESS },
		SystemGetDriverVersionFunc: func() (string, nvml.Return) { return "570.86.15", nvml.SUCCESS },
		DeviceGetCountFunc:         func() (int, nvml.Return) { return 3, nvml.SUCCESS },
		DeviceGetHandleByIndexFunc: func(i int) (nvml.Device, nvml.Return) {
			if i == 2 { // somebody else's
				return nil, nvml.ERROR_NO_PERMISSION
			}
			return cards[i], nvml.SUCCESS
		},
	}, &closed
}

// setChar sets a char of C, which is signed on some processors.
func setChar[T int8 | uint8](to *T, c byte) { *to = T(c) }

func TestNVMLReadsTheCardThatTheLibraryMeans(t *testing.T) {
	library, closed := fakeCards(t)
	n := openNVML(library, slog.New(slog.DiscardHandler))
	s, ok := n.Read("0000:3b:00.0")
	if want := (Sensors{"570.86.15", 0.37, 251.5, 64}); !ok || s != want {
		t.Errorf("got %+v, %v, want %+v", s, ok, want)
	}
	s, ok = n.Read("0000:af:00.0")
	if !ok || !math.IsNaN(s.Utilization) || !math.IsNaN(s.Watts) || !math.IsNaN(s.Celsius) || s.Driver == "" {
		t.Errorf("a card that reports nothing: %+v, %v", s, ok)
	}
	for _, address := range []string{"", "0000:01:00.0", "CUDA0"} {
		if s, ok := n.Read(address); ok {
			t.Errorf("%q is %+v", address, s)
		}
	}
	if err := n.Close(); err != nil || *closed != 1 {
		t.Errorf("closed %d times, %v", *closed, err)
	}
	if _, ok := n.Read("0000:3b:00.0"); ok || n.Close() != nil || *closed != 1 {
		t.Error("it goes on after Close")
	}
}

// TestNVMLThatIsNotThere opens the library of this machine, if it has one, and ones that fail.
func TestNVMLThatIsNotThere(t *testing.T) {
	for name, library := range map[string]nvml.Interface{
		"this machine": nvml.New(),
		"no such file": nvml.New(nvml.WithLibraryPath("/nonexistent/libnvidia-ml.so.1")),
		"no driver":    &mock.Interface{InitFunc: func() nvml.Return { return nvml.ERROR_DRIVER_NOT_LOADED }},
	} {
		var log bytes.Buffer
		n := openNVML(library, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		if _, ok := n.Read("ffff:ff:1f.0"); ok {
			t.Errorf("%s: a card that can't be there", name)
		}
		if err := n.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for line := range strings.Lines(log.String()) {
			if !strings.Contains(line, "level=DEBUG") {
				t.Errorf("%s: logs %s", name, line)
			}
		}
		if name != "this machine" && log.Len() == 0 {
			t.Errorf("%s: not a word even for who looks", name)
		}
	}
}
