package metrics

import (
	"math"

	vm "github.com/VictoriaMetrics/metrics"
)

// Device is what is known of a device. The one named host is the machine's own memory, or the cgroup's where there is a limit.
type Device struct {
	Name        string // CPU, CUDA0, host …
	Description string
	Backend     string
	Driver      string
	UsedBytes   uint64
	TotalBytes  uint64
	GPU         *GPU // nil: nothing tells
}

// GPU is what its driver tells; NaN: it doesn't.
type GPU struct {
	Utilization float64 // 0 to 1
	Watts       float64
	Celsius     float64
}

// device holds the series of one device.
type device struct {
	used, total                 *vm.Gauge
	utilization, watts, celsius *vm.Gauge // nil until known
}

// SetDevice says how a device does. Devices don't go away.
func (m *Metrics) SetDevice(d Device) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g := m.devices[d.Name]
	if g == nil {
		g = &device{
			used:  m.set.NewGauge(series("llm_device_memory_used_bytes", d.Name), nil),
			total: m.set.NewGauge(series("llm_device_memory_total_bytes", d.Name), nil),
		}
		m.set.NewGauge(series("llm_device_info", d.Name, d.Description, d.Backend, d.Driver), nil).Set(1)
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

// setSensor makes the series with the first value that is known, and leaves out others. Called with mu held.
func (m *Metrics) setSensor(g **vm.Gauge, name, device string, value float64) {
	if math.IsNaN(value) {
		return
	}
	if *g == nil {
		*g = m.set.NewGauge(series(name, device), nil)
	}
	(*g).Set(value)
}
