// Package preload loads models at the engine's start, and tries the default model again when it can't be loaded. It
// decides what to load and when to retry. How a model is loaded, and which one is evicted for it, is decided in package
// models.
package preload

import (
	"context"
	"errors"
	"log/slog"
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

// Options of a Preloader. Registry, Cache and Log must be given.
type Options struct {
	Registry *models.Registry
	Cache    *models.Cache

	Models          []string // model, model@version or default
	DefaultModel    string
	DefaultModelSet bool // somebody set it; otherwise another may take its place (settings.DefaultModel)
	DefaultVersion  string
	ModelsDir       string // for the log

	// KilledEngine reports whether the engine before this one died of a fault while it loaded this version; nil: it
	// didn't.
	KilledEngine func(model, version string) bool
	// Started is called when everything in Models was tried; may be nil.
	Started func()
	Log     *slog.Logger
}

// Preloader loads what should be there from the start and looks after the default model.
type Preloader struct {
	o             Options
	defaultFailed chan struct{} // a place for one: a load of the default model failed
}

// New prepares a preloader; Run does the work.
func New(o Options) *Preloader { return &Preloader{o: o, defaultFailed: make(chan struct{}, 1)} }

// Run loads Options.Models one after the other; a failure stops nothing. Then it looks after the default model until
// ctx ends.
func (p *Preloader) Run(ctx context.Context) {
	keepDefault, loadedDefault := false, ""
	for _, name := range p.o.Models {
		model, version, _ := strings.Cut(name, "@")
		if model == "default" {
			model, version = p.logDefaultModel(), ""
			keepDefault, loadedDefault = true, model
		}
		m, ok := p.o.Registry.Find(model)
		if !ok {
			p.o.Log.Error("model to preload isn't installed", "model", model, "models_dir", p.o.ModelsDir)
			if keepDefault && loadedDefault == model {
				loadedDefault = ""
			}
			continue
		}
		if version == "" {
			version = m.Resolve(p.o.DefaultVersion)
		}
		p.loadUnlessDeadly(ctx, model, version)
	}
	if p.o.Started != nil {
		p.o.Started()
	}
	p.watchDefault(ctx, keepDefault, loadedDefault)
}

// loadUnlessDeadly is load, but for a version in whose load the engine before this one died of a fault: loading it at
// each start would end one engine after the other. When a request asks for it the proxy watches, and refuses it after a
// second death.
func (p *Preloader) loadUnlessDeadly(ctx context.Context, model, version string) {
	if p.o.KilledEngine != nil && p.o.KilledEngine(model, version) {
		p.o.Log.Warn("not preloaded: the engine before this one died loading it", "model", model, "version", version)
		return
	}
	p.load(ctx, model, version)
}

// load loads a version and reports whether it is loaded now. A load that failed has been logged as such.
func (p *Preloader) load(ctx context.Context, model, version string) bool {
	lease, err := p.o.Cache.AcquireReplay(ctx, model, version)
	if err == nil {
		lease.Release()
		return true
	}
	if loadErr, ok := errors.AsType[*models.LoadError](err); ctx.Err() == nil && (!ok || loadErr.Reason == models.ReasonNotFound) {
		p.o.Log.Error("preload failed", "model", model, "version", version, "err", err)
	}
	return false
}

// watchDefault tries the default model again for as long as it can't be loaded: a proxy without it isn't ready, so
// nobody is sent there and no request would load it. preload: another model that becomes the default, as when its files
// came just before the start, is loaded too. loaded is the default that was preloaded.
func (p *Preloader) watchDefault(ctx context.Context, preload bool, loaded string) {
	for {
		changed := p.o.Registry.Changes()
		if model, version, problem := p.defaultVersion(); preload && model != "" && model != loaded && problem == "" {
			loaded = model
			p.loadUnlessDeadly(ctx, model, version)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			continue
		case <-p.defaultFailed:
		}
		p.retryDefault(ctx)
		select {
		case <-p.defaultFailed: // of these attempts
		default:
		}
	}
}

// retryDefault ends when the default model is loaded or there is none. Files that seem to be broken are tried less
// often.
func (p *Preloader) retryDefault(ctx context.Context) {
	var lastPause time.Duration
	lastTry := time.Now()
	for ctx.Err() == nil {
		changed := p.o.Registry.Changes()
		model, version, problem := p.defaultVersion()
		if model == "" {
			return
		}
		pause := nextPause(lastPause, problem)
		select {
		case <-ctx.Done():
			return
		case <-changed:
			continue
		case <-time.After(time.Until(lastTry.Add(pause))):
		}
		if p.load(ctx, model, version) {
			return
		}
		lastPause, lastTry = pause, time.Now()
	}
}

// nextPause is the pause after one of the length before.
func nextPause(before time.Duration, problem string) time.Duration {
	if problem != "" {
		return min(max(2*before, brokenRetry), lastBrokenRetry)
	}
	return min(max(2*before, firstRetry), lastRetry)
}

// defaultVersion is what a request gets that names nothing, and why it can't be loaded. An empty model: it isn't
// installed.
func (p *Preloader) defaultVersion() (model, version, problem string) {
	m, ok := p.o.Registry.Find(p.DefaultModel())
	if !ok {
		return "", "", ""
	}
	v, ok := m.Find(m.Resolve(p.o.DefaultVersion))
	if !ok {
		return "", "", ""
	}
	return m.Name, v.Name, v.Problem
}

// LoadFailed starts the retries when it was the default version that couldn't be loaded. It doesn't wait.
func (p *Preloader) LoadFailed(model, version string) {
	if m, v, _ := p.defaultVersion(); model != m || version != v {
		return
	}
	select {
	case p.defaultFailed <- struct{}{}:
	default:
	}
}

// DefaultModel is the configured one, or another when nobody configured any and the documented default isn't installed.
func (p *Preloader) DefaultModel() string {
	var names []string
	for _, m := range p.o.Registry.Snapshot() {
		names = append(names, m.Name)
	}
	return settings.DefaultModel(p.o.DefaultModel, p.o.DefaultModelSet, names)
}

// logDefaultModel is DefaultModel, and writes a log line when it isn't the documented one.
func (p *Preloader) logDefaultModel() string {
	name := p.DefaultModel()
	if name == p.o.DefaultModel {
		return name
	}
	what := "the only installed model"
	if name == settings.DemoModel {
		what = "the built-in demo model"
	}
	p.o.Log.Info("DEFAULT_MODEL isn't set and the documented default isn't installed: "+what+" is the default", "model", name)
	return name
}
