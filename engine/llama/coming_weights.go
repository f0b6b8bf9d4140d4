//go:build llama

package llama

import "sync"

// Weights that a load is about to put on the accelerators, so that a context that is made meanwhile leaves them their
// room: a context never shrinks.

// expectWeights notes weights of so many bytes until arrived is called: they have their memory, or never will.
func (m *memoryBook) expectWeights(bytes int64) (arrived func()) {
	m.add(bytes)
	return sync.OnceFunc(func() { m.add(-bytes) })
}

func (m *memoryBook) add(coming int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.coming += coming
}

func (m *memoryBook) comingBytes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.coming
}

// comingWeights is how much of each device, by its place in the list, will be weights that have no memory yet: as the
// library spreads them, and all of them on accelerators even if some layers stay in the host's memory.
func (b *Backend) comingWeights(devices []Device, bytes int64) []int64 {
	weights := make([]int64, len(devices))
	for at, d := range devices {
		for i, a := range b.accelerators {
			switch {
			case a.number != d.number:
			case b.opts.OneGPU && i != b.opts.MainGPU:
			case i < len(b.opts.GPUSplit):
				weights[at] = int64(b.opts.GPUSplit[i] * splitScale)
			default:
				weights[at] = d.FreeBytes
			}
		}
	}
	return sharesOf(bytes, weights)
}

// leave is what is left of the free bytes of a device beside coming weights: at least 1, since 0 means not known.
func leave(free, coming int64) int64 {
	if free <= 0 || coming <= 0 {
		return free
	}
	return max(free-coming, 1)
}

const splitScale = 1 << 20 // makes proportions whole numbers
