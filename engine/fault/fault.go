// Package fault makes an engine die on purpose, where a native library would: while it loads a certain model, or when a
// certain prompt is to give its first token. It wraps any backend, so that crash recovery is tested with the real
// library too. It is off unless one of its options is set, which only tests should do.
package fault

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// Options say when the process aborts; with the zero value it never does.
type Options struct {
	// Marker aborts when a prompt that contains it is to give a token.
	Marker string
	// Loads abort in the middle of a load: model for its base, model@version for that version's adapter.
	Loads []string
	// Abort ends the process; required.
	Abort func(why string)
}

// Enabled reports whether any option asks for an abort.
func (o Options) Enabled() bool { return o.Marker != "" || len(o.Loads) > 0 }

// Backend is a backend whose loads and steps may end the process.
type Backend struct {
	models.Backend
	o Options
}

// Wrap returns a backend that does what b does and aborts where o says.
func Wrap(b models.Backend, o Options) *Backend { return &Backend{b, o} }

// steppableBase is what the backends of this program return: a base that can be stepped.
type steppableBase interface {
	models.Base
	batch.Runner
}

// LoadBase aborts at the first progress report of a base in Options.Loads, so that the load is under way.
func (b *Backend) LoadBase(ctx context.Context, spec models.BaseSpec, progress func(models.Progress)) (models.Base, error) {
	onProgress := progress
	if b.aborts(spec.Name) {
		onProgress = func(p models.Progress) { b.o.Abort("load of " + spec.Name) }
	}
	base, err := b.Backend.LoadBase(ctx, spec, onProgress)
	if err != nil {
		return nil, err
	}
	inner, ok := base.(steppableBase)
	if !ok { // it can't be stepped, so there is nothing to abort
		return base, nil
	}
	return &Base{steppableBase: inner, backend: b, name: spec.Name, fatalSamplers: make(map[batch.Sampler]struct{})}, nil
}

func (b *Backend) aborts(load string) bool { return slices.Contains(b.o.Loads, load) }

// Base is a loaded base whose steps and adapter loads may end the process.
type Base struct {
	steppableBase
	backend *Backend
	name    string

	mu            sync.Mutex
	fatalSamplers map[batch.Sampler]struct{} // of prompts with the marker
}

var (
	_ models.Base         = (*Base)(nil)
	_ batch.Runner        = (*Base)(nil)
	_ batch.DrawTimer     = (*Base)(nil)
	_ batch.DeviceSampler = (*Base)(nil)
	_ batch.FirstTimer    = (*Base)(nil)
)

// LoadAdapter aborts for a version in Options.Loads.
func (b *Base) LoadAdapter(ctx context.Context, spec models.AdapterSpec) (models.Adapter, error) {
	if name := b.name + "@" + spec.Name; b.backend.aborts(name) {
		b.backend.o.Abort("load of " + name)
	}
	return b.steppableBase.LoadAdapter(ctx, spec)
}

// NewSampler remembers the samplers of prompts that hold the marker.
func (b *Base) NewSampler(s batch.Sampling, prompt, generated []batch.Token) (batch.Sampler, error) {
	sampler, err := b.steppableBase.NewSampler(s, prompt, generated)
	if err == nil && b.hasMarker(prompt) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.fatalSamplers[sampler] = struct{}{}
	}
	return sampler, err
}

// hasMarker looks at the text of the prompt's tokens, since a replay has no other text.
func (b *Base) hasMarker(prompt []batch.Token) bool {
	if b.backend.o.Marker == "" {
		return false
	}
	var text []byte
	for _, t := range prompt {
		text = append(text, b.Piece(t)...)
	}
	return bytes.Contains(text, []byte(b.backend.o.Marker))
}

// Step aborts when a prompt with the marker is to give a token.
func (b *Base) Step(slices []batch.Slice) error {
	if b.drawsFatalToken(slices) {
		b.backend.o.Abort("a prompt holds the marker")
	}
	return b.steppableBase.Step(slices)
}

// Embed aborts for a text with the marker.
func (b *Base) Embed(ctx context.Context, task models.Task, adapter models.Adapter, tokens []int32) ([]float32, error) {
	if b.hasMarker(tokens) {
		b.backend.o.Abort("a text holds the marker")
	}
	return b.steppableBase.Embed(ctx, task, adapter, tokens)
}

func (b *Base) drawsFatalToken(slices []batch.Slice) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.fatalSamplers) == 0 {
		return false
	}
	for i := range slices {
		if s := slices[i].Sampler; s != nil {
			if _, fatal := b.fatalSamplers[s]; fatal {
				return true
			}
		}
	}
	return false
}

// DrawTime implements batch.DrawTimer for a runner that does.
func (b *Base) DrawTime() time.Duration {
	if timer, ok := b.steppableBase.(batch.DrawTimer); ok {
		return timer.DrawTime()
	}
	return 0
}

// DeviceDraws implements batch.DeviceSampler for a runner that does.
func (b *Base) DeviceDraws() batch.DeviceDraws {
	if sampler, ok := b.steppableBase.(batch.DeviceSampler); ok {
		return sampler.DeviceDraws()
	}
	return batch.DeviceDraws{}
}

// MeasuredSteps implements batch.StepMeasurer for a runner that does.
func (b *Base) MeasuredSteps() []batch.MeasuredStep {
	if measurer, ok := b.steppableBase.(batch.StepMeasurer); ok {
		return measurer.MeasuredSteps()
	}
	return nil
}

// FirstOfKind implements batch.FirstTimer for a runner that does.
func (b *Base) FirstOfKind(slices []batch.Slice) bool {
	first, ok := b.steppableBase.(batch.FirstTimer)
	return ok && first.FirstOfKind(slices)
}
