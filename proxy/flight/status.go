package flight

import (
	"slices"
	"strings"
	"time"
)

// Status implements Server.
func (d *Desk) Status() Status {
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

func (d *Desk) statusOfModels(s *Status, now time.Time) {
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
