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
	"sync"
	"sync/atomic"
	"time"

	"tandem/engine/batch"
	"tandem/engine/demo"
	"tandem/engine/devices"
	"tandem/engine/link"
	"tandem/engine/metrics"
	"tandem/engine/models"
	"tandem/engine/supervise"
)

const (
	closeTimeout  = 4 * time.Second // less than the supervisor's patience
	maxFrameBytes = 16 << 20
	backlogBytes  = 64 << 20
	samplePeriod  = time.Second // of gauges
)

// computer is what computes: llama.cpp or the mock.
type computer struct {
	backend  models.Backend
	device   string        // backend of the device in use: cpu, cuda, mock
	numerics string        // equal for equal tokens
	devices  []link.Device // of the machine
	fits     func(bytes int64, alone bool) bool
	left     func(bytes int64) int64
	sample   func(*metrics.Metrics) // device gauges; may be nil
	close    func() error           // may be nil
}

// engine is everything that runs, in the order in which it was started.
type engine struct {
	c       *Config
	log     *slog.Logger
	metrics *metrics.Metrics

	executor *batch.Executor
	computer computer
	registry *models.Registry
	cache    *models.Cache
	link     *link.Link
	record   record

	lastExit      supervise.LastExit
	defaultFailed chan struct{} // a place for one: a load of the default model failed

	events    atomic.Pointer[link.Link] // where the cache's events go, once there is a link
	heartbeat heartbeat
	ctx       context.Context // of the goroutines below
	stop      context.CancelFunc
	work      sync.WaitGroup
	linkCtx   context.Context
	unlink    context.CancelFunc
	linked    chan struct{} // closed when the link has ended
}

// start brings everything up; what was started before an error is taken down again.
func start(c *Config, log *slog.Logger) (_ *engine, err error) {
	e := &engine{c: c, log: log, metrics: metrics.New(), linked: make(chan struct{}), defaultFailed: make(chan struct{}, 1)}
	e.ctx, e.stop = context.WithCancel(context.Background())
	e.linkCtx, e.unlink = context.WithCancel(context.Background())
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
	if err := e.heartbeat.open(c.Socket, e.activities, log); err != nil {
		return nil, err
	}
	e.executor = batch.NewExecutor(batch.Options{
		StepTokens: c.BatchTokens, TargetStep: c.StepTarget, StallFloor: c.StallTimeout, StepDelay: c.StepDelay,
		Log: log, Observe: &observer{Metrics: e.metrics, heartbeat: &e.heartbeat},
	})
	if e.computer, err = newComputer(c, e.executor, log); err != nil {
		return nil, err
	}
	e.computer.backend = mortal(c, e.computer.backend, log)
	if err := e.openModels(); err != nil {
		return nil, err
	}
	if err := e.record.open(c, log); err != nil {
		return nil, err
	}
	e.connect(last)
	e.work.Go(func() { e.registry.Run(e.ctx) })
	e.work.Go(e.sample)
	e.work.Go(func() { e.heartbeat.run(e.ctx) })
	e.work.Go(e.preload)
	log.Info("engine started", "build", build(), "device", e.computer.device, "library", libraryCommit(), "last_exit", last.String())
	return e, nil
}

func (e *engine) openModels() error {
	c := e.c
	var err error
	if e.registry, err = models.NewRegistry(models.RegistryOptions{
		Dir: c.ModelsDir, LinksInside: !c.FollowLinks, Demo: builtIn(c.Demo), AlwaysDemo: c.Demo == DemoTrue, Log: e.log,
	}); err != nil {
		return fmt.Errorf("read models directory: %w", err)
	}
	e.cache = models.NewCache(models.CacheOptions{
		Registry: e.registry, Backend: e.computer.backend, Dir: c.CacheDir, Size: c.CacheSize,
		Context: c.Context, Parallel: c.Parallel, MMap: c.MMap, LoadTimeout: c.LoadTimeout, BusyWait: c.BusyWait,
		Attach: e.attach, Detach: e.detach, OnEvent: e.event, OnLoad: e.heartbeat.load, MemoryFits: e.computer.fits, MemoryLeft: e.computer.left, Log: e.log,
	})
	return nil
}

func builtIn(mode DemoMode) *models.Demo {
	if mode == DemoFalse {
		return nil
	}
	d := &models.Demo{Name: demo.Name, Description: demo.Description}
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
	return nil
}

func (e *engine) detach(ctx context.Context, key string) error {
	if err := e.executor.Detach(ctx, key); err != nil {
		return err
	}
	e.metrics.RemoveBase(key)
	return nil
}

// event passes on what happens to models: to the proxy, the gauges, the log and the heartbeat.
func (e *engine) event(ev models.Event) {
	if l := e.events.Load(); l != nil {
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
		e.noteFailure(ev)
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
		Identity: link.Identity{
			Build: build(), Instance: instance(), Numerics: e.computer.numerics, Device: e.computer.device, Devices: e.computer.devices,
			LibraryCommit: libraryCommit(), LastExit: exitOf(last), ProcessID: os.Getpid(),
			MaxPromptBytes: e.c.PromptBytes,
		},
		DefaultVersion: e.c.DefaultVersion, WriteMetrics: func(w io.Writer) { e.metrics.WritePrometheus(w) },
		GrammarBudget: e.c.GrammarTokenBudget, LoadStall: e.c.LoadStall, Log: e.log, Recorder: e.record.recorder,
		Connected: e.heartbeat.connected.Store,
	})
	e.events.Store(e.link)
	go func() {
		defer close(e.linked)
		e.link.Run(e.linkCtx)
	}()
}

// instance is a random number that isn't 0.
func instance() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:]) | 1
}

var exitKinds = map[supervise.Kind]link.ExitKind{
	supervise.None: link.ExitNone, supervise.Exit: link.ExitCode, supervise.Signal: link.ExitSignal,
	supervise.OOM: link.ExitOOM, supervise.Stall: link.ExitStall, supervise.Upgrade: link.ExitUpgrade,
}

func exitOf(e supervise.LastExit) link.LastExit {
	out := link.LastExit{Kind: exitKinds[e.Kind], Signal: e.Signal, Code: e.Code, Uptime: e.Uptime, Crashes: e.Crashes}
	for _, l := range e.Loads {
		out.Loads = append(out.Loads, link.Load{Model: l.Model, Version: l.Version, Revision: l.Revision})
	}
	return out
}

// sample brings the gauges up to date once a second.
func (e *engine) sample() {
	tick := time.NewTicker(samplePeriod)
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
		if e.computer.sample != nil {
			e.computer.sample(e.metrics)
		}
		select {
		case <-e.ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// drain lets what is in hand end, or go elsewhere.
func (e *engine) drain(ctx context.Context) error {
	return e.link.Drain(ctx, e.c.DrainTimeout, supervise.Replaced())
}

// close takes everything down in the opposite order. It may be called after a start that failed halfway.
func (e *engine) close() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closeTimeout, errors.New("closing took too long"))
	defer cancel()
	e.unlink()
	if e.link != nil {
		<-e.linked
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
	if e.computer.close != nil && running == nil { // a step that goes on needs what this closes
		problems = append(problems, e.computer.close())
	}
	e.record.close(ctx, e.log)
	return errors.Join(problems...)
}
