package main

import (
	"tandem/engine/link"
	"tandem/engine/mock"
)

// mockComputer answers without a model.
func mockComputer(c *Config) computer {
	return computer{
		backend:  mock.New(mock.Options{TokenDelay: c.MockTokenDelay, AbortMarker: c.MockAbortMarker}),
		device:   "mock",
		numerics: "mock-1",
		devices:  []link.Device{{Name: "mock", Backend: "mock"}},
	}
}
