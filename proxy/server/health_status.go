package server

import (
	"fmt"
	"strings"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
)

// snapshot is the request table's status, with this server's own drain added.
func (s *Server) snapshot() inflight.Status {
	st := s.opts.Requests.Status()
	st.Draining = st.Draining || s.draining.Load()
	return st
}

// healthStatus returns the most severe condition that applies.
func healthStatus(st *inflight.Status) api.HealthStatus {
	switch {
	case st.Draining:
		return api.HealthDraining
	case st.CrashLoop, st.EverReady && (!st.EngineUp || st.EngineAwayFor > 0), st.EngineUp && (st.DefaultMissing || st.DefaultProblem != ""):
		return api.HealthDegraded
	case !st.EverReady, !st.DefaultLoaded && len(st.Loading) > 0:
		return api.HealthLoading
	}
	return api.HealthOK
}

func serviceStatus(st *inflight.Status) api.ServiceStatus {
	if st.CrashLoop && !st.Draining {
		return api.ServiceUnhealthy
	}
	switch healthStatus(st) {
	case api.HealthDraining:
		return api.ServiceDraining
	case api.HealthDegraded:
		return api.ServiceDegraded
	case api.HealthLoading:
		return api.ServiceLoading
	}
	return api.ServiceHealthy
}

// notReady returns why the server isn't ready, or nothing. An engine that has been away for less than engineWait is no
// reason.
func notReady(st *inflight.Status, engineWait time.Duration) string {
	switch {
	case st.Draining:
		return "draining"
	case st.CrashLoop:
		return "the engine stops again and again"
	case st.EngineUp && st.DefaultMissing:
		return fmt.Sprintf("the default model %s is not installed (DEFAULT_MODEL)", st.DefaultModel)
	case st.EngineUp && st.DefaultProblem != "":
		return fmt.Sprintf("the default model %s version %s can't be loaded: %s", st.DefaultModel, st.DefaultVersion, st.DefaultProblem)
	case !st.EverReady && !st.EngineUp:
		return "no engine has connected yet"
	case !st.EverReady && len(st.Loading) > 0:
		return "loading " + strings.Join(st.Loading, ", ")
	case !st.EverReady:
		return fmt.Sprintf("the engine is not ready yet; the default model is %s", st.DefaultModel)
	case !st.EngineUp && st.EngineAwayFor >= engineWait:
		return fmt.Sprintf("the engine is away for %s", st.EngineAwayFor.Round(time.Second))
	case st.EngineAwayFor > 0 && st.EngineAwayFor >= engineWait:
		return fmt.Sprintf("the engine ends and takes nothing new, for %s by now", st.EngineAwayFor.Round(time.Second))
	}
	return ""
}

func deviceName(st *inflight.Status) string {
	if st.Device == "" {
		return "unknown"
	}
	return st.Device
}
