// Package fault makes an engine die on purpose, where a native library would: while it loads a certain model, or when a certain prompt is
// to give its first token. It wraps any backend, so that what surrounds the engine is tested with the real library too. It is off unless
// somebody sets one of its options, and only tests should.
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

// Options say when the process dies; the zero value never does.
type Options struct {
	// Marker kills when a prompt that contains it is to give its first token.
	Marker string
	// Loads kill in the middle of a load: model for its base, model@version for that version's adapter.
	Loads []string
	// Abort ends the process; required.
	Abort func(why string)
}

// Wanted tells whether there is anything to die of.
func (o Options) Wanted() bool { return o.Marker != "" || len(o.Loads) > 0 }

// Backend is a backend whose loads and steps may end the process.
type Backend struct {
	models.Backend
	o Options
}

// Wrap gives b a tendency to die.
func Wrap(b models.Backend, o Options) *Backend { return &Backend{b, o} }

// Loaded is what the backends of this program give: a base that can be stepped.
type loaded interface {
	models.Base
	batch.Runner
}

// LoadBase dies at the first sign of progress of a base that is to kill, so that the load is under way.
func (b *Backend) LoadBase(ctx context.Context, spec models.BaseSpec, progress func(models.Progress)) (models.Base, error) {
	tell := progress
	if b.kills(spec.Name) {
		tell = func(p models.Progress) { b.o.Abort("load of " + spec.Name) }
	}
	base, err := b.Backend.LoadBase(ctx, spec, tell)
	if err != nil {
		return nil, err
	}
	inner, ok := base.(loaded)
	if !ok { // nothing here can step it, so nothing here can die of it
		return base, nil
	}
	return &Base{loaded: inner, backend: b, name: spec.Name, fatal: make(map[batch.Sampler]struct{})}, nil
}

func (b *Backend) kills(load string) bool { return slices.Contains(b.o.Loads, load) }

// Base is a loaded base that may die.
type Base struct {
	loaded
	backend *Backend
	name    string

	mu    sync.Mutex
	fatal map[batch.Sampler]struct{} // of prompts with the marker
}

var (
	_ models.Base     = (*Base)(nil)
	_ batch.Runner    = (*Base)(nil)
	_ batch.DrawTimer = (*Base)(nil)
)

// LoadAdapter dies for a version that is to kill.
func (b *Base) LoadAdapter(ctx context.Context, spec models.AdapterSpec) (models.Adapter, error) {
	if name := b.name + "@" + spec.Name; b.backend.kills(name) {
		b.backend.o.Abort("load of " + name)
	}
	return b.loaded.LoadAdapter(ctx, spec)
}

// NewSampler remembers the samplers of prompts that hold the marker.
func (b *Base) NewSampler(s batch.Sampling, prompt, generated []batch.Token) (batch.Sampler, error) {
	sampler, err := b.loaded.NewSampler(s, prompt, generated)
	if err == nil && b.marked(prompt) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.fatal[sampler] = struct{}{}
	}
	return sampler, err
}

// marked looks at the prompt's text as the tokens give it, since a replay brings no other.
func (b *Base) marked(prompt []batch.Token) bool {
	if b.backend.o.Marker == "" {
		return false
	}
	var text []byte
	for _, t := range prompt {
		text = append(text, b.Piece(t)...)
	}
	return bytes.Contains(text, []byte(b.backend.o.Marker))
}

// Step dies when a prompt with the marker is to give a token.
func (b *Base) Step(adapter batch.Adapter, slices []batch.Slice) error {
	if b.dies(slices) {
		b.backend.o.Abort("a prompt holds the marker")
	}
	return b.loaded.Step(adapter, slices)
}

func (b *Base) dies(slices []batch.Slice) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.fatal) == 0 {
		return false
	}
	for i := range slices {
		if s := slices[i].Sampler; s != nil {
			if _, fatal := b.fatal[s]; fatal {
				return true
			}
		}
	}
	return false
}

// DrawTime implements batch.DrawTimer for a runner that does.
func (b *Base) DrawTime() time.Duration {
	if timer, ok := b.loaded.(batch.DrawTimer); ok {
		return timer.DrawTime()
	}
	return 0
}
