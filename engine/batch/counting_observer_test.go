package batch

import (
	"sync/atomic"
)

// countingObserver is an observer.
type countingObserver struct {
	preempted, errors, prompt, cached, generated, decodes, embedded atomic.Int64
}

func (c *countingObserver) Decode(string, string, float64, int, int) { c.decodes.Add(1) }

func (c *countingObserver) Sampling(string, float64) {}

func (c *countingObserver) DeviceDraws(string, int, bool) {}

func (c *countingObserver) Embedded(_ string, n int) { c.embedded.Add(int64(n)) }

func (c *countingObserver) Preempted(string) { c.preempted.Add(1) }

func (c *countingObserver) DecodeError(string, string) { c.errors.Add(1) }

func (c *countingObserver) Tokens(_, kind string, n int) {
	switch kind {
	case "prompt":
		c.prompt.Add(int64(n))
	case "cached":
		c.cached.Add(int64(n))
	case "generated":
		c.generated.Add(int64(n))
	}
}
