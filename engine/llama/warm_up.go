//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"fmt"
	"math/bits"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// warmUpStep is something that a base computes before it serves.
type warmUpStep struct {
	name    string
	compute func() error
}

// warmUp computes what will come, so that memory pools grow now, what can't be computed fails now, and a device
// compiles its kernels now: where a driver has to make them for a card, that takes minutes. Each step is a call of its
// own, so that each has the time of one, and others take their turns in between.
func (b *Base) warmUp(ctx context.Context, progress func(models.Progress)) error {
	steps := b.embed.warmUpSteps()
	if b.generates {
		steps = b.warmUpSteps()
	}
	for i, step := range steps {
		if progress != nil {
			progress(models.Progress{Phase: "warm-up", Ratio: float64(i) / float64(len(steps))})
		}
		err := b.opts.OnDevice(ctx, func() error {
			if b.memory != nil {
				defer C.llama_memory_clear(b.memory, false)
			}
			return step.compute()
		})
		if err != nil {
			return fmt.Errorf("warm up with %s: %w", step.name, err)
		}
	}
	return nil
}

// warmUpSteps are a pass of prompt tokens and a token of every sequence with output. A GPU gets a full pass, since its
// pools grow with what is computed, and a single token, for which it has other kernels. On a CPU all buffers are
// reserved with the context, and a full pass would take a third of the load's time: 0.4 s for 130 MB of weights on two
// cores, and more for a larger model.
func (b *Base) warmUpSteps() []warmUpStep {
	prompt, sequences := cpuDryRun, min(b.limits.Sequences, b.limits.StepTokens)
	if b.onAccelerator() {
		prompt = b.opts.MicroBatch
	}
	prompt = min(prompt, b.limits.StepTokens, b.limits.SequenceMax-1)
	steps := []warmUpStep{
		{fmt.Sprintf("%d prompt tokens", prompt), func() error { return b.decodePrompt(prompt) }},
		{fmt.Sprintf("%d sequences", sequences), func() error { return b.decodeFirstTokens(sequences, dryRun{}) }},
	}
	if b.onAccelerator() && sequences > 1 {
		steps = append(steps, warmUpStep{"one sequence", func() error { return b.decodeFirstTokens(1, dryRun{}) }})
	}
	if b.opts.Deterministic {
		steps = append(steps, warmUpStep{"a sequence in two ways", b.checkBatchInvariance})
	}
	return append(steps, warmUpStep{"candidates", b.openDeviceSampling})
}

func (b *Base) onAccelerator() bool { return len(b.backend.accelerators) > 0 }

// decodePrompt decodes so many tokens of one sequence.
func (b *Base) decodePrompt(tokens int) error {
	prompt := make([]batch.Token, tokens)
	for i := range prompt {
		prompt[i] = b.gapFiller()
	}
	return b.decode([]batch.Slice{{Seq: 0, Tokens: prompt}})
}

// decodeFirstTokens decodes a token of each of so many sequences with output, and clears the cache.
func (b *Base) decodeFirstTokens(sequences int, output dryRun) error {
	slices := make([]batch.Slice, sequences)
	for seq := range slices {
		slices[seq] = batch.Slice{Seq: seq, Tokens: []batch.Token{b.gapFiller()}, Sampler: output}
	}
	defer C.llama_memory_clear(b.memory, false)
	return b.decode(slices)
}

// dryRun is a sampler that only makes decode compute logits, or candidates; it draws nothing.
type dryRun struct {
	batch.Sampler
	candidates bool
}

// stepKind is what decides which kernels a GPU runs, as far as anybody outside its backend can tell.
type stepKind struct {
	adapters bool
	size     int // bits of the number of tokens
}

func kindOf(slices []batch.Slice) stepKind {
	tokens, adapters := 0, false
	for i := range slices {
		tokens += len(slices[i].Tokens)
		adapters = adapters || slices[i].Adapter != nil
	}
	return newStepKind(tokens, adapters)
}

func newStepKind(tokens int, adapters bool) stepKind {
	return stepKind{adapters, bits.Len(uint(tokens))}
}

// FirstOfKind implements batch.FirstTimer: a GPU may have to compile the kernels of a step.
func (b *Base) FirstOfKind(slices []batch.Slice) bool {
	return b.onAccelerator() && !b.computedKinds[kindOf(slices)]
}

// noteComputed notes that the kernels of a step are there.
func (b *Base) noteComputed(slices []batch.Slice) {
	if !b.FirstOfKind(slices) {
		return
	}
	if b.computedKinds == nil {
		b.computedKinds = make(map[stepKind]bool)
	}
	b.computedKinds[kindOf(slices)] = true
}
