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
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
)

const (
	// repeatedWarmUp: a warm-up step of a CPU that takes less than this is repeated; a longer one is timed at once,
	// with what only a first one does.
	repeatedWarmUp = 100 * time.Millisecond
	// warmUpRepeats: the shortest of so many counts. Another process that takes the processor for some milliseconds in
	// one of them would make prompts, or steps, look as if they cost nothing.
	warmUpRepeats = 3
)

// warmUpStep is something that a base computes before it serves.
type warmUpStep struct {
	name    string
	compute func() error
	work    batch.MeasuredStep // what it computes, if its time says something of the steps to come
}

// warmUp computes what will come, so that memory pools grow now, what can't be computed fails now, and a device
// compiles its kernels now: where a driver has to make them for a card, that takes minutes. Each step is a call of its
// own, so that each has the time of one, and others take their turns in between. What they take is what the first steps
// of requests are expected to take.
func (b *Base) warmUp(ctx context.Context, progress func(models.Progress)) error {
	steps := b.embed.warmUpSteps()
	if b.generates {
		steps = b.warmUpSteps()
	}
	for i, step := range steps {
		if progress != nil {
			progress(models.Progress{Phase: "warm-up", Ratio: float64(i) / float64(len(steps))})
		}
		if err := b.computeWarmUp(ctx, step); err != nil {
			return fmt.Errorf("warm up with %s: %w", step.name, err)
		}
	}
	return nil
}

func (b *Base) computeWarmUp(ctx context.Context, step warmUpStep) error {
	took, err := b.timeWarmUp(ctx, step)
	if err != nil || step.work == (batch.MeasuredStep{}) {
		return err
	}
	for i := 0; i < warmUpRepeats && (took < repeatedWarmUp || i == 0 && b.onAccelerator()); i++ {
		again, err := b.timeWarmUp(ctx, step)
		if err != nil {
			return err
		}
		took = min(took, again)
	}
	step.work.Took = took
	b.measuredSteps = append(b.measuredSteps, step.work)
	return nil
}

func (b *Base) timeWarmUp(ctx context.Context, step warmUpStep) (took time.Duration, err error) {
	err = b.opts.OnDevice(ctx, func() error {
		if b.memory != nil {
			defer C.llama_memory_clear(b.memory, false)
		}
		start := time.Now()
		defer func() { took = time.Since(start) }()
		return step.compute()
	})
	return took, err
}

// MeasuredSteps implements batch.StepMeasurer.
func (b *Base) MeasuredSteps() []batch.MeasuredStep { return b.measuredSteps }

// warmUpSteps are a pass of prompt tokens, a token of every sequence with output and of some, and a single token, for
// which there are other kernels. A GPU gets a full pass, since its pools grow with what is computed. On a CPU all
// buffers are reserved with the context, and a full pass would take a third of the load's time: 0.4 s for 130 MB of
// weights on two cores, and more for a larger model.
func (b *Base) warmUpSteps() []warmUpStep {
	prompt, sequences := cpuDryRun, min(b.limits.Sequences, b.limits.StepTokens)
	if b.onAccelerator() {
		prompt = b.opts.MicroBatch
	}
	prompt = min(prompt, b.limits.StepTokens, b.limits.SequenceMax-1)
	steps := []warmUpStep{
		{
			name: fmt.Sprintf("%d prompt tokens", prompt), compute: func() error { return b.decodePrompt(prompt) },
			work: batch.MeasuredStep{Prompts: prompt},
		},
		b.firstTokensStep(sequences),
	}
	for _, few := range []int{8, 2, 1} { // on a GPU, one step costs about as much as another
		if few < sequences && (few == 1 || !b.onAccelerator()) {
			steps = append(steps, b.firstTokensStep(few))
		}
	}
	if b.opts.Deterministic {
		steps = append(steps, warmUpStep{name: "a sequence in two ways", compute: b.checkBatchInvariance})
	}
	return append(steps, warmUpStep{name: "candidates", compute: b.openDeviceSampling})
}

func (b *Base) firstTokensStep(sequences int) warmUpStep {
	compute := func() error { return b.decodeFirstTokens(sequences, dryRun{}) }
	return warmUpStep{fmt.Sprintf("a token of %d sequences", sequences), compute, batch.MeasuredStep{Decodes: sequences}}
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
