package models

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// scanInterval is how often MODELS_DIR is scanned.
const scanInterval = time.Second

// Demo is the built-in model as the registry shows it.
type Demo struct {
	Name        string
	Description string
	Files       []EmbeddedFile // the weights have no version
	// Known is what to say of it before the first load, as of other models whose header can be read.
	Known Known
}

// Known is what is known of a base before its first load.
type Known struct {
	TrainContext int        // tokens that the model was trained for; 0: not known
	Architecture string     // empty: not known
	Quantization string     // in the library's words; empty: not known
	Abilities    *Abilities // nil: not known
}

// RegistryOptions for NewRegistry.
type RegistryOptions struct {
	Dir         string // MODELS_DIR; may be empty or missing
	LinksInside bool   // links may not lead out of Dir
	Demo        *Demo  // nil: none
	AlwaysDemo  bool   // list the demo model although others are installed
	Log         *slog.Logger
}

// Registry lists the models on disk and the built-in one.
type Registry struct {
	opts      RegistryOptions
	scanner   *scanner // used by one goroutine: NewRegistry, AwaitFreshFiles, then Run
	lastFound map[string]foundModel
	unsettled bool // the last scan found a model whose files have just changed

	mu           sync.Mutex
	current      *catalog          // guarded by mu; replaced, never changed
	changed      chan struct{}     // guarded by mu; closed when current is replaced
	loadProblems map[string]string // guarded by mu; problems that only loads found, by source.identity or source.baseID
}

// NewRegistry reads the directory once. A directory that can't be read is an error, a missing one is not.
func NewRegistry(o RegistryOptions) (*Registry, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Registry{opts: o, scanner: newScanner(o.Dir, o.LinksInside, o.Log), lastFound: map[string]foundModel{}, changed: make(chan struct{}), loadProblems: map[string]string{}}
	if err := r.refresh(time.Now()); err != nil {
		return nil, err
	}
	return r, nil
}

// AwaitFreshFiles waits, at most for settleTime, for models whose files came just before the start, as where a pod
// copies them. Otherwise the demo model, or the first of several, would be loaded and answer in place of the default.
func (r *Registry) AwaitFreshFiles(ctx context.Context) error {
	if !r.unsettled {
		return nil
	}
	r.opts.Log.Info("model files have just changed: waiting for them", "most", settleTime)
	settled := time.NewTimer(settleTime)
	defer settled.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-settled.C:
	}
	return r.refresh(time.Now())
}

// Run looks for changes every second until ctx ends.
func (r *Registry) Run(ctx context.Context) {
	tick := time.NewTicker(scanInterval)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := r.refresh(time.Now())
		if err != nil && !failing {
			r.opts.Log.Error("models directory can't be read, what was found before stays", "err", err)
		}
		failing = err != nil
	}
}

// Snapshot lists the models by name. The slices are shared and must not be changed.
func (r *Registry) Snapshot() []Model {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current.models
}

// Changes returns a channel that is closed when the snapshot changes. Call it before Snapshot.
func (r *Registry) Changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Find returns a model by its name.
func (r *Registry) Find(model string) (Model, bool) {
	list := r.Snapshot()
	i := slices.IndexFunc(list, func(m Model) bool { return m.Name == model })
	if i < 0 {
		return Model{}, false
	}
	return list[i], true
}

func (r *Registry) source(model, version string) *source {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current.lookup(model, version)
}

// unpackedNames returns the names in CACHE_DIR of the unpacked files of all listed models.
func (r *Registry) unpackedNames() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := map[string]bool{}
	for _, versions := range r.current.sources {
		for _, s := range versions {
			s.addUnpackedNames(names)
		}
	}
	return names
}

// refresh scans and, when something is different, publishes the new catalog.
func (r *Registry) refresh(now time.Time) error {
	list, err := r.scanner.scan(now)
	if err != nil {
		return err
	}
	settled := map[string]foundModel{}
	r.unsettled = false
	for _, m := range list {
		r.unsettled = r.unsettled || !m.settled
		if before, known := r.lastFound[m.name]; !m.settled && known {
			m = before // what was found before counts until the new files have settled
		} else if !m.settled {
			continue
		}
		settled[m.name] = m
	}
	r.lastFound = settled
	next := buildCatalog(settled, r.listedDemo(settled))
	for _, m := range next.models {
		if d := m.DefaultVersion; d != "" && next.lookup(m.Name, d) == nil {
			r.scanner.warnOnce("default "+m.Name+" "+d, "default_version isn't installed", "model", m.Name, "version", d)
		}
	}
	r.logProblems(next)
	r.mu.Lock()
	defer r.mu.Unlock()
	next = next.withLoadProblems(r.loadProblems)
	if r.current != nil && sameCatalog(r.current, next) {
		return nil
	}
	if r.current != nil {
		r.opts.Log.Info("models changed", "models", len(next.models))
	}
	r.publish(next)
	return nil
}

// publish is called with mu held.
func (r *Registry) publish(next *catalog) {
	r.current = next
	close(r.changed)
	r.changed = make(chan struct{})
}

// logProblems logs once what can't be loaded: for versions that fail with their base only the base.
func (r *Registry) logProblems(c *catalog) {
	for _, m := range c.models {
		base := c.lookup(m.Name, BaseVersion)
		for _, v := range m.Versions {
			src := c.lookup(m.Name, v.Name)
			if v.Problem == "" || v.Name != BaseVersion && v.Problem == base.problem {
				continue
			}
			args := []any{"model", m.Name, "version", v.Name, "problem", v.Problem, "directory", src.dir}
			if detail := src.problemDetail(); detail != "" {
				args = append(args, "detail", detail)
			}
			r.scanner.logOnce("problem "+m.Name+" "+v.Name+" "+v.Problem, func() { r.opts.Log.Error("model can't be loaded", args...) })
		}
	}
}

// setLoadProblem records what a load found out about the files of key, a source's identity or baseID: why they can't be
// loaded, or nothing when they were. It reports whether that is new.
func (r *Registry) setLoadProblem(key, problem string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loadProblems[key] == problem {
		return false
	}
	if len(r.loadProblems) >= maxModels {
		clear(r.loadProblems)
	}
	if r.loadProblems[key] = problem; problem == "" {
		delete(r.loadProblems, key)
	}
	r.publish(r.current.withLoadProblems(r.loadProblems))
	return true
}

func (r *Registry) listedDemo(installed map[string]foundModel) *Demo {
	d := r.opts.Demo
	if d == nil {
		return nil
	}
	if _, taken := installed[d.Name]; taken || len(installed) > 0 && !r.opts.AlwaysDemo {
		return nil
	}
	return d
}
