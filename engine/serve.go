package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tandem/engine/batch"
	"tandem/engine/demo"
	"tandem/engine/devices"
	"tandem/engine/link"
	"tandem/engine/metrics"
	"tandem/engine/models"
	"tandem/engine/preload"
	"tandem/engine/supervise"
)

const (
	closeTimeout  = 4 * time.Second // less than the supervisor's drainSlack
	maxFrameBytes = 16 << 20
	backlogBytes  = 64 << 20
	gaugeInterval = time.Second
)

// computeBackend is what loads models and decodes, llama.cpp or the mock, and what is known of its devices.
type computeBackend struct {
	backend      models.Backend
	device       string        // backend of the device in use: cpu, cuda, mock
	numericsID   string        // equal for equal tokens
	devices      []link.Device // of the machine
	backends     []link.Backend
	missing      []string // backends of accelerators that give no device although they should compute
	fitsInMemory func(bytes int64, alone bool) bool
	hostRoom     func() (room, free int64)
	sampleGauges func(*metrics.Metrics) // of devices; may be nil
	close        func() error           // may be nil
}

// foundMemory is what engines find on accelerators.
type foundMemory struct {
	before []supervise.FoundMemory // by the engine before this one
	note   func([]supervise.FoundMemory)
}

// engine is everything that runs, in the order in which it was started.
type engine struct {
	c       *Config
	log     *slog.Logger
	metrics *metrics.Metrics

	executor  *batch.Executor
	compute   computeBackend
	registry  *models.Registry
	cache     *models.Cache
	preloader *preload.Preloader
	link      *link.Link
	tracing   requestTracing

	lastExit supervise.LastExit

	eventLink atomic.Pointer[link.Link] // where the cache's events go, once there is a link
	heartbeat *supervise.HeartbeatWriter
	ctx       context.Context // of the goroutines in work
	stop      context.CancelFunc
	work      sync.WaitGroup
	linkCtx   context.Context
	stopLink  context.CancelFunc
	linkEnded chan struct{} // closed when the link has ended
}

// start starts everything; after an error it closes what it has started.
func start(c *Config, log *slog.Logger) (_ *engine, err error) {
	e := &engine{c: c, log: log, metrics: metrics.New(), linkEnded: make(chan struct{})}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.linkCtx, e.stopLink = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	last, err := supervise.TakeLastExit()
	if err != nil {
		log.Warn("the supervisor's word about the last engine can't be read", "err", err)
	}
	e.lastExit = last
	if e.heartbeat, err = supervise.NewHeartbeatWriter(c.Socket, e.activities, log); err != nil {
		return nil, err
	}
	e.executor = batch.NewExecutor(batch.Options{
		StepTokens: c.BatchTokens, TargetStep: c.StepTarget, StallFloor: c.StallTimeout, StepDelay: c.StepDelay,
		Log: log, Observe: &tokenObserver{Metrics: e.metrics, heartbeat: e.heartbeat},
	})
	if e.compute, err = newComputeBackend(c, e.executor, foundMemory{last.Memory, e.heartbeat.SetMemory}, log); err != nil {
		return nil, err
	}
	e.metrics.SetCompute(e.compute.device, c.Device, e.compute.missing)
	e.compute.backend = withFaultInjection(c, e.compute.backend, log)
	if err := e.openModels(); err != nil {
		return nil, err
	}
	if err := e.tracing.open(c, log); err != nil {
		return nil, err
	}
	e.connect(last)
	e.work.Go(func() { e.registry.Run(e.ctx) })
	e.work.Go(e.sampleGauges)
	e.work.Go(func() { e.heartbeat.Run(e.ctx) })
	e.work.Go(func() { e.preloader.Run(e.ctx) })
	log.Info("engine started", "build", build(), "device", e.compute.device, "library", libraryCommit(), "last_exit", last.String())
	return e, nil
}

func (e *engine) openModels() error {
	c := e.c
	var err error
	if e.registry, err = models.NewRegistry(models.RegistryOptions{
		Dir: c.ModelsDir, LinksInside: !c.FollowLinks, Demo: builtInDemo(c), AlwaysDemo: c.Demo == DemoTrue, Log: e.log,
	}); err != nil {
		return fmt.Errorf("read models directory: %w", err)
	}
	if err := e.registry.AwaitFreshFiles(e.ctx); err != nil {
		return fmt.Errorf("read models directory again: %w", err)
	}
	e.cache = models.NewCache(models.CacheOptions{
		Registry: e.registry, Backend: e.compute.backend, Dir: c.CacheDir, Size: c.CacheSize,
		Context: c.Context, Parallel: c.Parallel, Attention: c.Attention, MMap: c.MMap, LoadTimeout: c.LoadTimeout, BusyWait: c.BusyWait,
		Attach: e.attach, Detach: e.detach, OnEvent: e.modelEvent, OnLoad: e.noteLoad, MemoryFits: e.compute.fitsInMemory, HostRoom: e.compute.hostRoom, Log: e.log,
	})
	e.preloader = preload.New(preload.Options{
		Registry: e.registry, Cache: e.cache, Models: c.Preload, ModelsDir: c.ModelsDir,
		DefaultModel: c.DefaultModel, DefaultModelSet: c.DefaultModelSet, DefaultVersion: c.DefaultVersion,
		KilledEngine: e.killedLastEngine, Started: e.heartbeat.SetStarted, Log: e.log,
	})
	return nil
}

// killedLastEngine reports whether the engine before this one died of a fault while it loaded this version.
func (e *engine) killedLastEngine(model, version string) bool {
	return e.lastExit.Fault() && slices.ContainsFunc(e.lastExit.Loads, func(l supervise.Loading) bool {
		return l.Model == model && l.Version == version
	})
}

// noteLoad writes the begin and end of a load to the heartbeat.
func (e *engine) noteLoad(l models.LoadHeartbeat, loading bool) {
	e.heartbeat.SetLoading(supervise.Loading{Model: l.Model, Version: l.Version, Revision: l.Revision}, loading)
}

func builtInDemo(c *Config) *models.Demo {
	if c.Demo == DemoFalse {
		return nil
	}
	d := &models.Demo{Name: demo.Name, Description: demo.Description}
	if !c.Mock { // which has other abilities
		d.Known = models.Known{
			TrainContext: demo.Context, Architecture: demo.Architecture, Quantization: demo.Quantization,
			Abilities: &models.Abilities{ChatTemplate: true, Embeddings: true},
		}
	}
	for _, f := range demo.Files() {
		d.Files = append(d.Files, models.EmbeddedFile{Version: f.Version, Packed: f.Packed, SHA256: f.SHA256, Bytes: f.Bytes})
	}
	return d
}

// attach gives a loaded base to the executor.
func (e *engine) attach(ctx context.Context, key string, b models.Base) error {
	runner, ok := b.(batch.Runner)
	if !ok {
		return fmt.Errorf("attach %s: a %T can't decode", key, b)
	}
	if err := e.executor.Attach(ctx, key, runner); err != nil {
		return err
	}
	e.metrics.AddBase(key)
	kv, cells := b.Facts().KV, b.Facts().Cells
	if kv.Bytes == 0 { // an encoder keeps nothing
		return nil
	}
	e.metrics.SetKVCache(key, metrics.KVCache{Bytes: kv.Bytes, KeyType: string(kv.KeyType), ValueType: string(kv.ValueType)})
	e.log.Info("KV cache", "base", key, "bytes", kv.Bytes, "cells", cells, "bytes_per_token", kv.Bytes/int64(max(cells, 1)),
		"keys", kv.KeyType, "values", kv.ValueType, "flash_attention", kv.Flash, "layout", kv.Layout, "context", b.Facts().ContextTokens)
	return nil
}

func (e *engine) detach(ctx context.Context, key string) error {
	if err := e.executor.Detach(ctx, key); err != nil {
		return err
	}
	e.metrics.RemoveBase(key)
	return nil
}

// modelEvent passes on what happens to a model: to the proxy, the gauges, the log and the preloader.
func (e *engine) modelEvent(ev models.Event) {
	if l := e.eventLink.Load(); l != nil {
		l.Event(ev)
	}
	switch ev.Kind {
	case models.EventLoading:
		e.log.Info("loading", "model", ev.Model, "version", ev.Version)
	case models.EventProgress:
		e.metrics.SetLoadProgress(ev.Model, ev.Progress.Ratio)
		e.log.Debug("loading", "model", ev.Model, "version", ev.Version, "phase", ev.Progress.Phase, "ratio", ev.Progress.Ratio)
	case models.EventLoaded:
		e.metrics.LoadEnded(ev.Model)
		e.log.Info("loaded", "model", ev.Model, "version", ev.Version, "took", ev.Took.Round(time.Millisecond), "bytes", ev.Bytes)
	case models.EventLoadFailed:
		e.metrics.LoadEnded(ev.Model)
		e.preloader.LoadFailed(ev.Model, ev.Version)
		if ev.Logged {
			return
		}
		e.log.Error("model load failed", "model", ev.Model, "version", ev.Version, "reason", ev.Reason, "err", ev.Message)
	case models.EventEvicted:
		e.log.Info("evicted", "model", ev.Model, "version", ev.Version, "reason", ev.Reason)
	}
}

// connect starts the link.
func (e *engine) connect(last supervise.LastExit) {
	e.link = link.New(link.Options{
		Socket: e.c.Socket, Models: e.cache, Catalog: e.registry, Executor: e.executor,
		Hello: link.Hello{
			Build: build(), Instance: randomInstanceID(), Numerics: e.compute.numericsID, Device: e.compute.device, Devices: e.compute.devices, Backends: e.compute.backends,
			LibraryCommit: libraryCommit(), LastExit: linkLastExit(last), ProcessID: os.Getpid(),
			MaxPromptBytes: e.c.PromptBytes,
		},
		DefaultVersion: e.c.DefaultVersion, WriteMetrics: func(w io.Writer) { e.metrics.WritePrometheus(w) },
		GrammarBudget: e.c.GrammarTokenBudget, LoadStall: e.c.LoadStall, Log: e.log, Recorder: e.tracing.recorder,
		Connected: e.heartbeat.SetConnected,
	})
	e.eventLink.Store(e.link)
	go func() {
		defer close(e.linkEnded)
		e.link.Run(e.linkCtx)
	}()
}

// randomInstanceID is a random number that isn't 0.
func randomInstanceID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:]) | 1
}

var exitKinds = map[supervise.Kind]link.ExitKind{
	supervise.None: link.ExitNone, supervise.Exit: link.ExitCode, supervise.Signal: link.ExitSignal,
	supervise.OOM: link.ExitOOM, supervise.Stall: link.ExitStall, supervise.Upgrade: link.ExitUpgrade,
}

func linkLastExit(e supervise.LastExit) link.LastExit {
	out := link.LastExit{Kind: exitKinds[e.Kind], Signal: e.Signal, Code: e.Code, Uptime: e.Uptime, Crashes: e.Crashes}
	for _, l := range e.Loads {
		out.Loads = append(out.Loads, link.Load{Model: l.Model, Version: l.Version, Revision: l.Revision})
	}
	return out
}

// sampleGauges brings the gauges up to date once a second.
func (e *engine) sampleGauges() {
	tick := time.NewTicker(gaugeInterval)
	defer tick.Stop()
	for {
		for _, b := range e.executor.Stats() {
			e.metrics.SetState(b.Base, metrics.State{
				Idle: b.FreeSequences, Prefilling: b.Prefilling, Decoding: b.Decoding, Waiting: b.Waiting,
				CellsUsed: b.Cells - b.FreeCells, Cells: b.Cells,
			})
		}
		if m, err := devices.Host(); err == nil { // what can't be read has no series
			e.metrics.SetDevice(metrics.Device{Name: "host", Description: "host memory", Backend: "host", UsedBytes: m.Used, TotalBytes: m.Total})
		}
		if e.compute.sampleGauges != nil {
			e.compute.sampleGauges(e.metrics)
		}
		select {
		case <-e.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// drain lets the requests in progress end, or go to another engine.
func (e *engine) drain(ctx context.Context) error {
	return e.link.Drain(ctx, e.c.DrainTimeout, supervise.Replaced())
}

// close ends everything in the opposite order. It may be called after a start that failed halfway.
func (e *engine) close() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeTimeout, errors.New("closing took too long"))
	defer cancel()
	e.stopLink()
	if e.link != nil {
		<-e.linkEnded
	}
	e.stop()
	var problems []error
	if e.cache != nil {
		if err := e.cache.Close(ctx); err != nil {
			problems = append(problems, fmt.Errorf("close model cache: %w", err))
		}
	}
	var running error
	if e.executor != nil {
		running = e.executor.Close(ctx)
		problems = append(problems, running)
	}
	e.work.Wait()
	if e.compute.close != nil && running == nil { // a step that goes on needs what this closes
		problems = append(problems, e.compute.close())
	}
	e.tracing.close(ctx, e.log)
	return errors.Join(problems...)
}

// activities are the executor's and those of the loads in progress.
func (e *engine) activities() []supervise.Activity {
	var all []supervise.Activity
	for _, h := range e.link.Heartbeats() {
		all = append(all, supervise.Activity{Name: h.Name, Phase: h.Phase, Counter: h.Counter, Age: h.Age, Budget: h.Budget})
	}
	return all
}
