package main

import (
	"tandem/engine/link"
	"tandem/engine/metrics"
	"tandem/engine/mock"
	"tandem/engine/models"
)

// mockMemoryBytes is the memory of the mock's made-up device.
const mockMemoryBytes = 16 << 30

// mockBackend is a backend that answers without a model.
func mockBackend(c *Config) computeBackend {
	fail := make(map[string]models.Reason, len(c.MockFailLoad))
	for _, name := range c.MockFailLoad {
		fail[name] = models.ReasonBadFormat
	}
	out := computeBackend{
		backend:    mock.New(mock.Options{TokenDelay: c.MockTokenDelay, LoadDelay: c.MockLoadDelay, FailLoad: fail}),
		device:     "mock",
		numericsID: "mock-1",
		devices:    []link.Device{{Name: "mock", Backend: "mock", Description: "made up"}},
	}
	out.backends = []link.Backend{{Name: "mock", Devices: out.devices}}
	if c.MockMemoryUsed > 0 {
		out.sampleGauges = func(m *metrics.Metrics) {
			m.SetDevice(metrics.Device{Name: "mock", Description: "made up", Backend: "mock",
				UsedBytes: uint64(c.MockMemoryUsed * mockMemoryBytes), TotalBytes: mockMemoryBytes})
		}
	}
	return out
}
