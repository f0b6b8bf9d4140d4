package main

import (
	"log/slog"

	"tandem/engine/fault"
	"tandem/engine/models"
)

// withFaultInjection wraps a backend so that it ends the process where ABORT_MARKER and ABORT_LOAD say so.
func withFaultInjection(c *Config, b models.Backend, log *slog.Logger) models.Backend {
	o := fault.Options{Marker: c.AbortMarker, Loads: c.AbortLoads, Abort: func(why string) {
		log.Error("aborting as the settings ask for", "because_of", why)
		abortProcess()
	}}
	if !o.Enabled() {
		return b
	}
	log.Error("this engine kills itself on purpose, as ABORT_MARKER or ABORT_LOAD ask for; never set them where others send requests",
		"marker", o.Marker, "loads", o.Loads)
	return fault.Wrap(b, o)
}
