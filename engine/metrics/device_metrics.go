package metrics

import (
	"cmp"
	"math"
	"strings"

	vm "github.com/VictoriaMetrics/metrics"
)

// Device is what is known of a device. The one named host is the machine's own memory, or the cgroup's if that has a
// limit.
type Device struct {
	Name        string // CPU, CUDA0, host …
	Description string
	Backend     string
	Driver      string
	UsedBytes   uint64
	TotalBytes  uint64
	GPU         *GPU // nil: no driver reports anything
}

// GPU is what the GPU's driver reports; NaN: not reported.
type GPU struct {
	Utilization float64 // 0 to 1
	Watts       float64
	Celsius     float64
}

// deviceSeries are the series of one device.
type deviceSeries struct {
	used, total                 *vm.Gauge
	utilization, watts, celsius *vm.Gauge // nil until known
}

// SetDevice sets a device's state. Devices are never removed.
func (m *Metrics) SetDevice(d Device) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.devices[d.Name]
	if g == nil {
		g = &deviceSeries{
			used:  m.set.NewGauge(seriesName("llm_device_memory_used_bytes", d.Name), nil),
			total: m.set.NewGauge(seriesName("llm_device_memory_total_bytes", d.Name), nil),
		}
		m.set.NewGauge(seriesName("llm_device_info", d.Name, d.Description, d.Backend, d.Driver), nil).Set(1)
		m.devices[d.Name] = g
	}
	g.used.Set(float64(d.UsedBytes))
	g.total.Set(float64(d.TotalBytes))
	if d.GPU == nil {
		return
	}
	m.setSensor(&g.utilization, "llm_gpu_utilization_ratio", d.Name, d.GPU.Utilization)
	m.setSensor(&g.watts, "llm_gpu_power_watts", d.Name, d.GPU.Watts)
	m.setSensor(&g.celsius, "llm_gpu_temperature_celsius", d.Name, d.GPU.Celsius)
}

// SetCompute sets which backend computes, what the settings ask for, and which backends of accelerators are missed.
// Called once.
func (m *Metrics) SetCompute(backend, setting string, missing []string) {
	m.set.NewGauge(seriesName("llm_engine_compute_info", backend, setting, cmp.Or(strings.Join(missing, ","), "none")), nil).Set(1)
}

// setSensor sets a sensor's series, which is made with the first known value; NaN is ignored. Called with mu held.
func (m *Metrics) setSensor(g **vm.Gauge, name, device string, value float64) {
	if math.IsNaN(value) {
		return
	}
	if *g == nil {
		*g = m.set.NewGauge(seriesName(name, device), nil)
	}
	(*g).Set(value)
}
