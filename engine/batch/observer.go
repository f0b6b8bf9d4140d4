package batch

// Observer counts what the executor does. It is called on the executor's goroutine and must not block.
type Observer interface {
	// Decode is one call of Runner.Step; phase is prefill, decode or mixed.
	Decode(base, phase string, seconds float64, tokens, sequences int)
	// Sampling is time that a worker spent on a sampler, or a step on its draws.
	Sampling(base string, seconds float64)
	// DeviceDraws counts draws of a step from what the device picked; repeated: it was computed twice.
	DeviceDraws(base string, draws int, repeated bool)
	// Tokens counts tokens of kind prompt (computed), cached or generated.
	Tokens(base, kind string, n int)
	// Embedded counts texts whose embedding or score a turn gave.
	Embedded(base string, texts int)
	// Preempted: a sequence lost its cells and will be prefilled again.
	Preempted(base string)
	// DecodeError counts failed steps and sequences by FailureCode.
	DecodeError(base, code string)
}

// noopObserver is the observer when none was given.
type noopObserver struct{}

func (noopObserver) Decode(string, string, float64, int, int) {}

func (noopObserver) Sampling(string, float64) {}

func (noopObserver) DeviceDraws(string, int, bool) {}

func (noopObserver) Tokens(string, string, int) {}

func (noopObserver) Embedded(string, int) {}

func (noopObserver) Preempted(string) {}

func (noopObserver) DecodeError(string, string) {}
