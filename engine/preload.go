package main

import (
	"errors"
	"strings"
	"time"

	"tandem/engine/models"
	"tandem/schema/settings"
)

// Pauses between two attempts at a default model that can't be loaded just now.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second

	brokenRetry     = time.Minute // of files that seem to be broken: a disk or a network may have been
	lastBrokenRetry = 10 * time.Minute
)

// preload loads what should be there from the start, one after the other; a failure stops nothing. Then it looks after the default model.
func (e *engine) preload() {
	keep, loaded := false, ""
	for _, name := range e.c.Preload {
		model, version, _ := strings.Cut(name, "@")
		if model == "default" {
			model, version = e.defaultModel(true), ""
			keep, loaded = true, model
		}
		m, ok := e.registry.Find(model)
		if !ok {
			e.log.Error("model to preload isn't installed", "model", model, "models_dir", e.c.ModelsDir)
			if keep && loaded == model {
				loaded = ""
			}
			continue
		}
		if version == "" {
			version = m.Resolve(e.c.DefaultVersion)
		}
		e.fetchUnlessDeadly(model, version)
	}
	e.heartbeat.started.Store(true)
	e.keepDefault(keep, loaded)
}

// fetchUnlessDeadly is fetch, but for a version in whose load the engine before this one died of a fault: loading it at each start would
// end one engine after the other. When a request asks for it the proxy watches, and refuses it after a second death.
func (e *engine) fetchUnlessDeadly(model, version string) {
	for _, l := range e.lastExit.Loads {
		if l.Model == model && l.Version == version && e.lastExit.Fault() {
			e.log.Warn("not preloaded: the engine before this one died loading it", "model", model, "version", version)
			return
		}
	}
	e.fetch(model, version)
}

// fetch loads a version and tells whether it is loaded now. A load that failed has been logged as such.
func (e *engine) fetch(model, version string) bool {
	lease, err := e.cache.AcquireReplay(e.ctx, model, version)
	if err == nil {
		lease.Release()
		return true
	}
	if le, load := errors.AsType[*models.LoadError](err); e.ctx.Err() == nil && (!load || le.Reason == models.ReasonNotFound) {
		e.log.Error("preload failed", "model", model, "version", version, "err", err)
	}
	return false
}

// keepDefault tries the default model again for as long as it can't be loaded: nobody is sent to a proxy that isn't ready for want of it,
// so no request would. preload: another one that becomes the default, as when its files came just before the start, is loaded too; loaded is
// the one that was.
func (e *engine) keepDefault(preload bool, loaded string) {
	for {
		changed := e.registry.Changes()
		if model, version, problem := e.defaultVersion(); preload && model != "" && model != loaded && problem == "" {
			loaded = model
			e.fetchUnlessDeadly(model, version)
		}
		select {
		case <-e.ctx.Done():
			return
		case <-changed:
			continue
		case <-e.defaultFailed:
		}
		e.retryDefault()
		select {
		case <-e.defaultFailed: // of these attempts
		default:
		}
	}
}

// retryDefault ends when the default model is loaded or there is none. Files that seem to be broken are tried less often.
func (e *engine) retryDefault() {
	var wait time.Duration
	last := time.Now()
	for e.ctx.Err() == nil {
		changed := e.registry.Changes()
		model, version, problem := e.defaultVersion()
		if model == "" {
			return
		}
		pause := retryAfter(wait, problem)
		select {
		case <-e.ctx.Done():
			return
		case <-changed:
			continue
		case <-time.After(time.Until(last.Add(pause))):
		}
		if e.fetch(model, version) {
			return
		}
		wait, last = pause, time.Now()
	}
}

// retryAfter is the pause behind one of this length.
func retryAfter(before time.Duration, problem string) time.Duration {
	if problem != "" {
		return min(max(2*before, brokenRetry), lastBrokenRetry)
	}
	return min(max(2*before, firstRetry), lastRetry)
}

// defaultVersion is what a request gets that names nothing, and why it can't be loaded; no model: it isn't installed.
func (e *engine) defaultVersion() (model, version, problem string) {
	m, ok := e.registry.Find(e.defaultModel(false))
	if !ok {
		return "", "", ""
	}
	v, ok := m.Find(m.Resolve(e.c.DefaultVersion))
	if !ok {
		return "", "", ""
	}
	return m.Name, v.Name, v.Problem
}

// noteFailure wakes the retries when it was the default model that couldn't be loaded.
func (e *engine) noteFailure(ev models.Event) {
	if model, version, _ := e.defaultVersion(); ev.Model != model || ev.Version != version {
		return
	}
	select {
	case e.defaultFailed <- struct{}{}:
	default:
	}
}

// defaultModel is the configured one, or another when nobody configured any and the documented default isn't installed.
func (e *engine) defaultModel(tell bool) string {
	var names []string
	for _, m := range e.registry.Snapshot() {
		names = append(names, m.Name)
	}
	name := settings.DefaultModel(e.c.DefaultModel, e.c.DefaultModelSet, names)
	if tell && name != e.c.DefaultModel {
		what := "the only installed model"
		if name == settings.DemoModel {
			what = "the built-in demo model"
		}
		e.log.Info("DEFAULT_MODEL isn't set and the documented default isn't installed: "+what+" is the default", "model", name)
	}
	return name
}
