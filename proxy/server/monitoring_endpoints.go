package server

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/proxy/metrics"
)

func (s *Server) health(x *exchange) {
	st := s.snapshot()
	x.reply(api.AppendHealth(nil, api.Health{Status: healthStatus(&st), Timestamp: time.Now()}))
}

func (s *Server) livez(x *exchange) { x.reply(api.AppendProbe(nil, api.Probe{OK: true})) }

func (s *Server) readyz(x *exchange) {
	st := s.snapshot()
	reason := notReady(&st, s.opts.EngineWait)
	status := fasthttp.StatusOK
	if reason != "" {
		status = fasthttp.StatusServiceUnavailable
	}
	x.replyStatus(status, api.AppendProbe(nil, api.Probe{OK: reason == "", Reason: reason}))
}

func (s *Server) status(x *exchange) {
	st := s.snapshot()
	reply := api.Status{Status: serviceStatus(&st), Timestamp: time.Now(), Prometheus: s.opts.Prometheus, Device: deviceName(&st)}
	for _, l := range st.Loaded {
		reply.Cached = append(reply.Cached, api.CachedModel{Model: l.Model, Version: l.Version, Loaded: !l.Loading})
	}
	reply.Devices = devicesOf(st.Devices)
	for _, b := range st.Backends {
		reply.Backends = append(reply.Backends, api.Backend{Name: b.Name, Devices: devicesOf(b.Devices), Problem: b.Problem})
	}
	reply.Memory = memoryOfModels(st.Loaded)
	x.reply(api.AppendStatus(nil, &reply))
}

// memoryOfModels is what each base takes: its versions are loaded entries of their own with the same facts.
func memoryOfModels(loaded []inflight.Loaded) []api.ModelMemory {
	var list []api.ModelMemory
	for _, l := range loaded {
		known := slices.ContainsFunc(list, func(m api.ModelMemory) bool { return m.Model == l.Model })
		if known || len(l.Facts.Memory) == 0 {
			continue
		}
		m := api.ModelMemory{Model: l.Model, Cells: l.Facts.Cells, CellsLimit: l.Facts.CellsLimit,
			CacheTypeK: l.Facts.CacheTypeK, CacheTypeV: l.Facts.CacheTypeV, FlashAttention: l.Facts.FlashAttention, KVLayout: l.Facts.KVLayout,
			Sampling: l.Facts.Sampling, SamplingDecidedBy: l.Facts.SamplingDecidedBy}
		for _, d := range l.Facts.Memory {
			m.Devices = append(m.Devices, api.DeviceMemory(d))
		}
		list = append(list, m)
	}
	return list
}

func devicesOf(list []inflight.Device) []api.Device {
	var out []api.Device
	for _, d := range list {
		out = append(out, api.Device{Name: d.Name, Backend: d.Backend, Description: d.Description, MemoryTotalBytes: d.MemoryTotal, MemoryFreeBytes: d.MemoryFree})
	}
	return out
}

func (s *Server) models(x *exchange) {
	x.reply(api.AppendModels(nil, s.installedModels()))
}

func (s *Server) installedModels() []api.Model {
	st := s.snapshot()
	list := make([]api.Model, 0, len(st.Models))
	for _, m := range st.Models {
		listed := api.Model{
			Name: m.Name, Description: m.Description, DefaultVersion: m.DefaultVersion, Context: m.ContextTokens,
			Bytes: m.Bytes, Quantization: m.Quantization, Architecture: m.Architecture,
		}
		if m.Abilities != nil {
			listed.Capabilities = capabilities(m.Abilities)
		}
		noteLoaded(&listed, st.Loaded)
		for _, v := range m.Versions {
			listed.Versions = append(listed.Versions, v.Name)
			if v.Problem != "" {
				listed.Problems = append(listed.Problems, api.Problem{Version: v.Name, Text: v.Problem})
			}
		}
		list = append(list, listed)
	}
	return list
}

// noteLoaded adds what is known of a model because a version of it is loaded.
func noteLoaded(m *api.Model, loaded []inflight.Loaded) {
	for i := range loaded {
		l := &loaded[i]
		if l.Model != m.Name {
			continue
		}
		if m.States == nil {
			m.States = make(map[string]api.LoadState)
		}
		m.States[l.Version] = api.StateLoaded
		if l.Loading {
			m.States[l.Version] = api.StateLoading
			continue
		}
		m.Capabilities = capabilities(&l.Facts.Abilities)
	}
}

func capabilities(f *inflight.Abilities) []string {
	var list []string
	for _, c := range []struct {
		has  bool
		name string
	}{
		{f.Generates && f.ChatTemplate, api.CapabilityChat}, {f.Generates, api.CapabilityCompletion}, {f.Tools, api.CapabilityTools},
		{f.Reasoning, api.CapabilityReasoning}, {f.Embeddings, api.CapabilityEmbeddings}, {f.Scores, api.CapabilityRerank},
	} {
		if c.has {
			list = append(list, c.name)
		}
	}
	return list
}

func (s *Server) connections() int {
	n := 0
	for _, l := range s.allListeners() {
		n += l.count()
	}
	return n
}

func (s *Server) routerPage(x *exchange) {
	page := s.pageBuffers.Get().(*bytes.Buffer)
	page.Reset()
	s.opts.Metrics.WriteRouterPage(page)
	x.ctx.SetContentType(metrics.RouterContentType)
	x.ctx.Response.SetBody(page.Bytes())
	s.pageBuffers.Put(page)
}

// routeTable lists the routes, for people without a browser.
func (s *Server) routeTable(x *exchange) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n\n", api.ServiceName, api.ServiceVersion)
	paths := make([]string, 0, len(s.routes))
	for path, r := range s.routes {
		if !s.opts.SeparateMetrics || !s.isMetrics(r.path) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	for _, path := range paths {
		r := s.routes[path]
		fmt.Fprintf(&b, "%-9s  %-20s  %s\n", r.allow(), path, r.description)
	}
	x.ctx.SetContentType("text/plain; charset=utf-8")
	x.ctx.Response.SetBodyString(b.String())
}
