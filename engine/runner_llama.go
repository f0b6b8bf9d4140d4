//go:build llama

package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"

	"tandem/engine/batch"
	"tandem/engine/devices"
	"tandem/engine/link"
	"tandem/engine/llama"
	"tandem/engine/metrics"
)

// These go into the numerics id. samplerVersion moves with any change of how tokens are drawn, patchVersion with a patch in
// scripts/native/patches that changes what llama.cpp computes.
const (
	samplerVersion = "gumbel-1"
	patchVersion   = "attention-2"
)

// newComputer loads llama.cpp's backends, or gives the mock when that was asked for.
func newComputer(c *Config, executor *batch.Executor, log *slog.Logger) (computer, error) {
	if c.Mock {
		log.Warn("ENGINE_MOCK is set: answers are made up")
		return mockComputer(c), nil
	}
	backend, err := llama.New(llama.Options{
		BackendDir: c.BackendDir, Logger: slog.New(chatty{log.Handler()}),
		OnDevice: executor.Do,
		Threads:  c.Threads, Deterministic: c.Deterministic, GPULayers: c.GPULayers, MainGPU: c.MainGPU, OneGPU: c.OneGPU, GPUSplit: c.GPUSplit,
	})
	if err != nil {
		return computer{}, err
	}
	driver := devices.OpenNVML(log)
	out := computer{
		backend: backend, device: "cpu",
		close:  func() error { return errors.Join(backend.Close(), driver.Close()) },
		sample: func(m *metrics.Metrics) { sampleDevices(m, backend, driver) },
	}
	for _, d := range backend.Devices() {
		out.devices = append(out.devices, describe(d))
		if d.GPU && c.GPULayers != 0 {
			out.device = d.Backend
		}
		log.Info("device", "name", d.Name, "description", d.Description, "backend", d.Backend, "memory", d.TotalBytes)
	}
	out.numerics = numerics(out.device, c.Deterministic)
	placement := devices.Placement{GPULayers: c.GPULayers, OneGPU: c.OneGPU, MainGPU: c.MainGPU, GPUSplit: c.GPUSplit, Watermark: c.MemoryWatermark}
	out.fits = func(bytes int64, alone bool) bool {
		host, accelerators := memories(backend)
		if alone {
			return placement.FitsFreeMemory(uint64(bytes), host, accelerators)
		}
		return placement.FitsWatermark(uint64(bytes), host, accelerators)
	}
	out.left = func(bytes int64) int64 {
		host, accelerators := memories(backend)
		return int64(placement.HostMemoryLeft(uint64(bytes), host, accelerators))
	}
	return out, nil
}

// describe tells the proxy of a device. The library says that all memory of a CPU is free; the host knows better.
func describe(d llama.Device) link.Device {
	out := link.Device{Name: d.Name, Backend: d.Backend, MemoryTotal: uint64(d.TotalBytes), MemoryFree: uint64(d.FreeBytes)}
	if host, err := devices.Host(); err == nil && !d.GPU {
		out.MemoryTotal, out.MemoryFree = host.Total, host.Total-min(host.Used, host.Total)
	}
	return out
}

// numerics names what decides which token follows: the library, its backends' instruction sets, the device and our sampler.
func numerics(device string, deterministic bool) string {
	h := fnv.New64a()
	fmt.Fprint(h, llama.BuildInfo(), patchVersion, device, samplerVersion)
	if deterministic {
		device += "-deterministic"
	}
	return fmt.Sprintf("llama-%s-%016x", device, h.Sum64())
}

// chatty makes the library's information, a hundred lines a load, debug output.
type chatty struct{ slog.Handler }

func (h chatty) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, demoted(level))
}

func (h chatty) Handle(ctx context.Context, r slog.Record) error {
	r.Level = demoted(r.Level)
	if strings.Contains(r.Message, "possible training context overflow") { // the cache is shared by many sequences, each within its context
		if r.Level = slog.LevelDebug; !h.Handler.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

func demoted(level slog.Level) slog.Level {
	if level == slog.LevelInfo {
		return slog.LevelDebug
	}
	return level
}

// memories of the host and of the accelerators, as they are now. Of what nobody tells, the size is 0.
func memories(backend *llama.Backend) (host devices.Memory, accelerators []devices.Memory) {
	host, _ = devices.Host()
	for _, d := range backend.Devices() {
		if d.GPU {
			accelerators = append(accelerators, devices.Memory{Total: uint64(d.TotalBytes), Used: uint64(max(d.TotalBytes-d.FreeBytes, 0))})
		}
	}
	return host, accelerators
}

// sampleDevices brings the gauges of accelerators up to date; the CPU's memory is the host's.
func sampleDevices(m *metrics.Metrics, backend *llama.Backend, driver *devices.NVML) {
	for _, d := range backend.Devices() {
		if !d.GPU {
			continue
		}
		told := metrics.Device{
			Name: d.Name, Description: d.Description, Backend: d.Backend,
			UsedBytes: uint64(max(d.TotalBytes-d.FreeBytes, 0)), TotalBytes: uint64(d.TotalBytes),
		}
		if s, ok := driver.Read(d.Bus); ok {
			told.Driver, told.GPU = s.Driver, &metrics.GPU{Utilization: s.Utilization, Watts: s.Watts, Celsius: s.Celsius}
		}
		m.SetDevice(told)
	}
}

// abort ends the process as a failed assertion of the library does.
func abort() { llama.Abort() }

// libraryCommit takes the release and commit out of the library's description.
func libraryCommit() string {
	info, _, _ := strings.Cut(llama.BuildInfo(), ";")
	return strings.TrimPrefix(info, "llama.cpp ")
}
