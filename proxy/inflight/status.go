package inflight

import (
	"slices"
	"strings"
	"time"
)

// Status is a snapshot for the endpoints. Slices are the caller's.
type Status struct {
	EngineUp  bool
	EverReady bool // an engine was ready once
	// how long no engine has taken new requests: it was lost, or is about to leave; 0 while one does
	EngineAwayFor  time.Duration
	Draining       bool
	CrashLoop      bool
	Loading        []string // model@version that is being loaded
	DefaultModel   string   // resolved
	DefaultVersion string
	DefaultMissing bool   // it was set explicitly, and isn't installed
	DefaultProblem string // why it can't be loaded; empty when it can, or when that isn't known
	DefaultLoaded  bool
	Device         string // backend; without an engine the last one's, "unknown" before the first hello
	Devices        []Device
	Backends       []Backend // nobody changes their devices
	Models         []Model   // with the default versions that the settings give them
	Loaded         []Loaded
	CacheSize      int
	Waiting        int
	Running        int
	QueueCapacity  int
	Hello          Hello
}

// Status returns a snapshot of the table as it is now.
func (t *Table) Status() Status {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Status{
		EngineUp: len(t.engines) > 0, EverReady: t.everReady, Draining: t.draining, CrashLoop: t.crashLoop.isActive(now),
		Device: "unknown", Devices: slices.Clone(t.lastHello.Devices), Backends: slices.Clone(t.lastHello.Backends), Models: t.catalog.listed(t.options), CacheSize: t.catalog.cacheSize,
		QueueCapacity: t.options.QueueCapacity, Hello: t.lastHello,
	}
	s.Hello.Devices, s.Hello.Backends = slices.Clone(t.lastHello.Devices), slices.Clone(t.lastHello.Backends)
	if t.lastHello.Device != "" {
		s.Device = t.lastHello.Device
	}
	if !t.unavailableSince.IsZero() {
		s.EngineAwayFor = now.Sub(t.unavailableSince)
	}
	for _, en := range t.entries {
		if en.state == streaming {
			s.Running++
		} else {
			s.Waiting++
		}
	}
	t.statusOfModels(&s, now)
	return s
}

// statusOfModels fills in what is loading and loaded, and the state of the default model.
func (t *Table) statusOfModels(s *Status, now time.Time) {
	for _, e := range t.engines {
		for mv := range e.loading {
			if !slices.Contains(s.Loading, mv.String()) {
				s.Loading = append(s.Loading, mv.String())
			}
			s.Loaded = append(s.Loaded, Loaded{Model: mv.model, Version: mv.version, Loading: true})
		}
	}
	slices.Sort(s.Loading)
	loaded := t.loadedModels()
	s.Loaded = slices.DeleteFunc(s.Loaded, func(l Loaded) bool { _, ok := loaded[modelVersion{l.Model, l.Version}]; return ok })
	for _, l := range loaded {
		s.Loaded = append(s.Loaded, l)
	}
	slices.SortFunc(s.Loaded, func(a, b Loaded) int {
		return strings.Compare(modelVersion{a.Model, a.Version}.String(), modelVersion{b.Model, b.Version}.String())
	})
	if !t.catalog.known() {
		s.DefaultModel = t.options.DefaultModel
		return
	}
	def := t.defaultModelVersion()
	s.DefaultMissing = t.options.DefaultModelSet && def.model == ""
	if def.model == "" {
		s.DefaultModel = t.catalog.defaultModel(t.options)
		return
	}
	s.DefaultModel, s.DefaultVersion = def.model, def.version
	if _, s.DefaultLoaded = loaded[def]; !s.DefaultLoaded {
		s.DefaultProblem = t.defaultProblem(def, now)
	}
}

// loadedModels returns what is loaded at any engine; where two have a version, the newer engine's report counts.
func (t *Table) loadedModels() map[modelVersion]Loaded {
	all := make(map[modelVersion]Loaded)
	for _, e := range t.engines {
		for mv, l := range e.loaded {
			all[mv] = l
		}
	}
	return all
}

// defaultProblem says why the default model can't be loaded, or nothing when that doesn't matter yet. Broken files
// count at once. A failed load does too, as long as the model was never loaded; afterwards it counts only once it has
// lasted for EngineWait.
func (t *Table) defaultProblem(def modelVersion, now time.Time) string {
	if problem := t.catalog.problem(def); problem != "" {
		return problem
	}
	if t.quarantine.modelBlockedFor(def, now) > 0 {
		return "engine_crash"
	}
	for _, e := range t.engines {
		if f, failed := e.failed[def]; failed && (t.lastLoadedDefault != def || now.Sub(f.since) >= t.options.EngineWait) {
			return f.reason
		}
	}
	return ""
}
