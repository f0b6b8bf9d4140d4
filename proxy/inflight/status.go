package inflight

import (
	"slices"
	"strings"
	"time"
)

// Status is a snapshot for the endpoints. Slices are the caller's.
type Status struct {
	EngineUp       bool
	EverReady      bool          // an engine was ready once
	EngineAwayFor  time.Duration // since no engine takes new requests: it was lost, or is about to leave; 0 while one does
	Draining       bool
	CrashLoop      bool
	Loading        []string // model@version with a load in hand
	DefaultModel   string   // resolved
	DefaultVersion string
	DefaultMissing bool   // set, and not installed
	DefaultProblem string // why it can't be loaded; empty while it can, or that isn't known
	DefaultLoaded  bool
	Device         string // backend, last known while away; unknown before the first hello
	Devices        []Device
	Models         []Model
	Loaded         []Loaded
	CacheSize      int
	Waiting        int
	Running        int
	QueueCapacity  int
	Hello          Hello
}

// Status gives a snapshot of now.
func (d *Table) Status() Status {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{
		EngineUp: len(d.engines) > 0, EverReady: d.everReady, Draining: d.draining, CrashLoop: d.loop.on(now),
		Device: "unknown", Devices: slices.Clone(d.last.Devices), Models: copyModels(d.names.models), CacheSize: d.names.cacheSize,
		QueueCapacity: d.o.QueueCapacity, Hello: d.last,
	}
	s.Hello.Devices = slices.Clone(d.last.Devices)
	if d.last.Device != "" {
		s.Device = d.last.Device
	}
	if !d.vacant.IsZero() {
		s.EngineAwayFor = now.Sub(d.vacant)
	}
	for _, en := range d.entries {
		if en.state == streaming {
			s.Running++
		} else {
			s.Waiting++
		}
	}
	d.statusOfModels(&s, now)
	return s
}

func (d *Table) statusOfModels(s *Status, now time.Time) {
	for _, e := range d.engines {
		for p := range e.loading {
			if !slices.Contains(s.Loading, p.String()) {
				s.Loading = append(s.Loading, p.String())
			}
			s.Loaded = append(s.Loaded, Loaded{Model: p.model, Version: p.version, Loading: true})
		}
	}
	slices.Sort(s.Loading)
	loaded := d.loadedNow()
	s.Loaded = slices.DeleteFunc(s.Loaded, func(l Loaded) bool { _, ok := loaded[pair{l.Model, l.Version}]; return ok })
	for _, l := range loaded {
		s.Loaded = append(s.Loaded, l)
	}
	slices.SortFunc(s.Loaded, func(a, b Loaded) int {
		return strings.Compare(pair{a.Model, a.Version}.String(), pair{b.Model, b.Version}.String())
	})
	if !d.names.known() {
		s.DefaultModel = d.o.DefaultModel
		return
	}
	def := d.defaultPair()
	s.DefaultMissing = d.o.DefaultModelSet && def.model == ""
	if def.model == "" {
		s.DefaultModel = d.names.defaultModel(d.o)
		return
	}
	s.DefaultModel, s.DefaultVersion = def.model, def.version
	if _, s.DefaultLoaded = loaded[def]; !s.DefaultLoaded {
		s.DefaultProblem = d.defaultProblem(def, now)
	}
}
