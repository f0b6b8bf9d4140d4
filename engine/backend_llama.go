//go:build llama

package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"strings"
	"time"

	"tandem/engine/batch"
	"tandem/engine/devices"
	"tandem/engine/link"
	"tandem/engine/llama"
	"tandem/engine/metrics"
	"tandem/engine/models"
	"tandem/engine/supervise"
)

// These go into the numerics id. samplerVersion changes with how tokens are drawn, patchVersion with a patch in
// scripts/native/patches that changes what llama.cpp computes.
const (
	samplerVersion = "gumbel-1"
	patchVersion   = "attention-2"
)

// newComputeBackend loads llama.cpp's backends, or returns the mock when ENGINE_MOCK is set.
func newComputeBackend(c *Config, executor *batch.Executor, memory foundMemory, log *slog.Logger) (computeBackend, error) {
	if c.Mock {
		log.Warn("ENGINE_MOCK is set: answers are made up")
		return mockBackend(c), nil
	}
	backend, err := llama.New(llama.Options{
		BackendDir: c.BackendDir, Logger: log, LibraryLogger: slog.New(demoteInfo{log.Handler()}),
		OnDevice: executor.Do, OnTurn: executor.TakeTurn, OnDeviceFailure: endWithLostDevice(log),
		Threads: c.Threads, Deterministic: c.Deterministic, Device: c.Device, GPULayers: c.GPULayers, MainGPU: c.MainGPU, OneGPU: c.OneGPU, GPUSplit: c.GPUSplit,
		DeviceSampling: llama.DeviceSampling(c.BackendSampling),
		CacheCells:     c.KVCells, MicroBatch: c.MicroBatch, Watermark: c.MemoryWatermark,
		FoundBefore: llamaMemory(memory.before), MemoryWait: memoryWait, OnFound: func(found []llama.FoundMemory) { memory.note(supervisedMemory(found)) },
	})
	if missing, ok := errors.AsType[*llama.DeviceError](err); ok {
		return computeBackend{}, c.problem("DEVICE", missing.Text)
	}
	if err != nil {
		return computeBackend{}, err
	}
	driver := devices.OpenNVML(log)
	out := computeBackend{
		backend: backend, device: backend.ComputesOn(),
		close:        func() error { return errors.Join(backend.Close(), driver.Close()) },
		sampleGauges: func(m *metrics.Metrics) { sampleDeviceGauges(m, backend, driver) },
	}
	out.describeDevices(c, backend, log)
	out.numericsID = numericsID(out.device, c.Deterministic, c.Attention)
	placement := devices.Placement{GPULayers: c.GPULayers, OneGPU: c.OneGPU, MainGPU: c.MainGPU, GPUSplit: c.GPUSplit, Watermark: c.MemoryWatermark}
	out.fitsInMemory = func(bytes int64, alone bool) bool {
		host, accelerators := deviceMemory(backend)
		return placement.Fits(uint64(bytes), alone, host, accelerators)
	}
	out.hostRoom = func() (room, free int64) {
		host, _ := deviceMemory(backend)
		below, all := placement.HostRoom(host)
		return int64(below), int64(all)
	}
	return out, nil
}

// memoryWait is how long after the engine's start loads wait for memory that the engine before had. A driver gives it
// back after a while; what somebody else has taken stays away.
const memoryWait = 30 * time.Second

func llamaMemory(list []supervise.FoundMemory) []llama.FoundMemory {
	out := make([]llama.FoundMemory, len(list))
	for i, m := range list {
		out[i] = llama.FoundMemory(m)
	}
	return out
}

func supervisedMemory(list []llama.FoundMemory) []supervise.FoundMemory {
	out := make([]supervise.FoundMemory, len(list))
	for i, m := range list {
		out[i] = supervise.FoundMemory(m)
	}
	return out
}

// endWithLostDevice ends the process: everything that its models hold is on the device. The next engine finds the
// device again, or says that it is missing.
func endWithLostDevice(log *slog.Logger) func(error) {
	return func(err error) {
		log.Error("the device doesn't compute any more; the engine ends so that a new one starts", "err", err)
		os.Exit(codeFailed)
	}
}

// describeDevices keeps for the proxy and the metrics what there is to compute on, and logs it.
func (out *computeBackend) describeDevices(c *Config, backend *llama.Backend, log *slog.Logger) {
	for _, d := range backend.Devices() {
		out.devices = append(out.devices, linkDevice(d))
		log.Info("device", "name", d.Name, "description", d.Description, "backend", d.Backend, "used", d.Used, "memory", d.TotalBytes)
	}
	installed := backend.Backends()
	for _, b := range installed {
		out.backends = append(out.backends, linkBackend(b))
		logBackend(log, b)
	}
	if out.missing = missingAccelerators(c, out.device, installed); len(out.missing) > 0 {
		log.Warn("the CPU computes, since no accelerator is there; DEVICE=cpu says that this is meant", "missing", out.missing)
	}
}

// logBackend says what a backend gives, or why it gives nothing: the library passes over it without a word.
func logBackend(log *slog.Logger, b llama.InstalledBackend) {
	names := make([]string, 0, len(b.Devices))
	for _, d := range b.Devices {
		names = append(names, d.Name)
	}
	if b.Problem == "" {
		log.Info("backend", "name", b.Name, "devices", names)
		return
	}
	level := slog.LevelInfo
	if b.Accelerates() {
		level = slog.LevelWarn
	}
	log.Log(context.Background(), level, "backend gives no device", "name", b.Name, "why", b.Problem)
}

// missingAccelerators names the installed backends of accelerators without a device when the CPU computes in their
// place and nobody asked for that.
func missingAccelerators(c *Config, device string, installed []llama.InstalledBackend) []string {
	if device != llama.DeviceCPU || c.GPULayers == 0 || !strings.EqualFold(c.Device, llama.DeviceAuto) {
		return nil
	}
	var missing []string
	for _, b := range installed {
		if b.Accelerates() && len(b.Devices) == 0 {
			missing = append(missing, b.Name)
		}
	}
	return missing
}

func linkBackend(b llama.InstalledBackend) link.Backend {
	out := link.Backend{Name: b.Name, Problem: b.Problem}
	for _, d := range b.Devices {
		out.Devices = append(out.Devices, linkDevice(d))
	}
	return out
}

// linkDevice describes a device for the proxy. The library says that all memory of a CPU is free; the host knows
// better.
func linkDevice(d llama.Device) link.Device {
	out := link.Device{Name: d.Name, Backend: d.Backend, Description: d.Description, MemoryTotal: uint64(d.TotalBytes), MemoryFree: uint64(d.FreeBytes)}
	if host, err := devices.Host(); err == nil && !d.GPU {
		out.MemoryTotal, out.MemoryFree = host.Total, host.Total-min(host.Used, host.Total)
	}
	return out
}

// numericsID names what decides which token follows: the library, its backends' instruction sets, the device, our
// sampler, and how attention is computed where a model.yaml doesn't say it.
func numericsID(device string, deterministic bool, attention models.Attention) string {
	h := fnv.New64a()
	fmt.Fprint(h, llama.BuildInfo(), patchVersion, device, samplerVersion, attention)
	if deterministic {
		device += "-deterministic"
	}
	return fmt.Sprintf("llama-%s-%016x", device, h.Sum64())
}

// demoteInfo is a log handler for the library: its info lines, a hundred a load, become debug lines.
type demoteInfo struct{ slog.Handler }

func (h demoteInfo) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, demotedLevel(level))
}

func (h demoteInfo) Handle(ctx context.Context, r slog.Record) error {
	r.Level = demotedLevel(r.Level)
	// the cache is shared by many sequences, each within its context
	if strings.Contains(r.Message, "possible training context overflow") {
		if r.Level = slog.LevelDebug; !h.Handler.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

func demotedLevel(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}

// deviceMemory is the memory of the host and of each accelerator that computes, as it is now. What can't be read has
// size 0.
func deviceMemory(backend *llama.Backend) (host devices.Memory, accelerators []devices.Memory) {
	host, _ = devices.Host()
	for _, d := range backend.Accelerators() {
		accelerators = append(accelerators, devices.Memory{Total: uint64(d.TotalBytes), Used: uint64(max(d.TotalBytes-d.FreeBytes, 0))})
	}
	return host, accelerators
}

// sampleDeviceGauges brings the gauges of the accelerators that are used up to date; the CPU's memory is the host's.
func sampleDeviceGauges(m *metrics.Metrics, backend *llama.Backend, driver *devices.NVML) {
	for _, d := range backend.Devices() {
		if !d.GPU || !d.Used {
			continue
		}
		gauges := metrics.Device{
			Name: d.Name, Description: d.Description, Backend: d.Backend,
			UsedBytes: uint64(max(d.TotalBytes-d.FreeBytes, 0)), TotalBytes: uint64(d.TotalBytes),
		}
		if s, ok := driver.Read(d.Bus); ok {
			gauges.Driver, gauges.GPU = s.Driver, &metrics.GPU{Utilization: s.Utilization, Watts: s.Watts, Celsius: s.Celsius}
		}
		m.SetDevice(gauges)
	}
}

// abortProcess ends the process as a failed assertion of the library does.
func abortProcess() { llama.Abort() }

// libraryCommit is the release and commit in the library's description.
func libraryCommit() string {
	info, _, _ := strings.Cut(llama.BuildInfo(), ";")
	return strings.TrimPrefix(info, "llama.cpp ")
}
