//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim_embed.h"
*/
import "C"

import (
	"fmt"
	"slices"

	"tandem/engine/batch"
	"tandem/engine/models"
)

// open makes the context for embeddings, if there is none. Called on the goroutine that steps.
func (e *embedder) open() error {
	if e.context != nil {
		return nil
	}
	b := e.base
	tokens := embedPassTokens(b.vocab.size(), e.size)
	if needed := e.bytesNeeded(b.limits.SequenceMax, tokens); b.spec.MoreFits != nil && !b.spec.MoreFits(needed) {
		return fmt.Errorf("%w: a context of %d tokens takes %d MB", models.ErrEmbeddingMemory, b.limits.SequenceMax, needed>>20)
	}
	if err := e.newContext(b.limits.SequenceMax, tokens); err != nil {
		return fmt.Errorf("%w: %w", models.ErrEmbeddingMemory, err)
	}
	if b.onAccelerator() { // which may have to compile that
		e.untried = e.warmUpSteps()
	}
	return nil
}

// embedPassTokens is how many tokens a pass of a decoder may hold: it makes the logits of each, whether they are wanted
// or not.
func embedPassTokens(vocabulary, size int) int {
	return min(max(outputBytes/(4*(vocabulary+size)), minEmbedTokens), embedStepTokens)
}

// bytesNeeded is what a context of a decoder takes: keys and values of the longest text, the output of a pass, and
// about as much again to compute it.
func (e *embedder) bytesNeeded(sequenceTokens, passTokens int) int64 {
	output := int64(passTokens) * int64(e.base.vocab.size()+e.size) * 4
	return int64(sequenceTokens)*e.base.attention.cellBytes + 2*output
}

// newContext makes a context in which the longest text fits. A model that looks ahead, as encoders do, computes a text
// in one pass.
func (e *embedder) newContext(sequenceTokens, passTokens int) error {
	b := e.base
	if !e.causal {
		passTokens = max(sequenceTokens, min(passTokens, embedStepTokens))
	}
	params := C.tdm_context{
		cells: C.uint32_t(max(sequenceTokens, 256)), step_tokens: C.uint32_t(passTokens), ubatch: C.uint32_t(passTokens),
		sequences: embedSequences, threads: C.int32_t(b.threadChoice.all), embeddings: true, classify: C.bool(e.scores),
	}
	if b.keepsState() {
		params.sequences = 1 // each has a state of its own
	}
	b.attention.apply(&params, e.causal)
	errBuf := newErrorBuffer()
	defer errBuf.free()
	if e.context = C.tdm_context_new(b.model, &params, errBuf.text, errBuf.size); e.context == nil {
		return fmt.Errorf("make a context for embeddings of %d tokens: %w", sequenceTokens, errBuf.err())
	}
	e.memory = C.llama_get_memory(e.context)
	e.sequences = int(C.llama_n_seq_max(e.context))
	e.stepTokens = int(min(C.llama_n_batch(e.context), C.llama_n_ubatch(e.context)))
	e.cells = int(C.llama_n_ctx(e.context))
	if e.memory == nil { // nothing is kept, so a pass is all there is
		e.cells = e.stepTokens
	}
	e.batch = newBatchArrays(e.stepTokens)
	e.freeSequences = e.freeSequences[:0]
	for seq := range e.sequences {
		e.freeSequences = append(e.freeSequences, seq)
	}
	slices.Reverse(e.freeSequences)
	return nil
}

// encoderBytes is what an encoder takes for a text of so many tokens beside its weights: the library sets aside the
// logits of each token, which an encoder doesn't have, and a mask over the text.
func encoderBytes(tokens, vocabulary, size int) int64 {
	return int64(tokens)*int64(vocabulary+8*size)*4 + int64(tokens)*int64(tokens)*4
}

// openEncoder makes the only context of a model that has no next token. Called on the goroutine that steps.
func (b *Base) openEncoder() error {
	b.embed.causal = false
	size := chooseEncoderContext(b.spec, b.attention.rope.longest, b.vocab.size(), b.embed.size, b.leastFree())
	b.size.limit = "the model's context, CONTEXT and a quarter of the free memory"
	if err := b.embed.newContext(size, embedStepTokens); err != nil {
		return err
	}
	if most := b.embed.stepTokens; size > most {
		size = most
	}
	// The executor gets a runner with limits as any other, but no request for an answer comes this far.
	b.limits = batch.Limits{Cells: max(size, 256), Sequences: b.embed.sequences, SequenceMax: size, StepTokens: size}
	b.readContextMemory(b.embed.context)
	b.logPlacement()
	if b.threadChoice.all > 1 && b.hostComputes() {
		var err error
		if b.thread, err = b.backend.sharedStepThread(); err != nil {
			return err
		}
	}
	return nil
}

// warmUpSteps are a short text and, on a GPU, a full pass, for which it has other kernels.
func (e *embedder) warmUpSteps() []warmUpStep {
	sizes := []int{min(4, e.stepTokens)}
	if e.base.onAccelerator() {
		sizes = append(sizes, min(e.stepTokens, embedStepTokens, e.cells))
	}
	var steps []warmUpStep
	for _, n := range sizes {
		steps = append(steps, warmUpStep{name: fmt.Sprintf("texts of %d tokens", n), compute: func() error { return e.dryRun(n) }})
	}
	return steps
}

// dryRun computes texts of so many tokens together, the first of them as long as a text may be.
func (e *embedder) dryRun(tokens int) error {
	var parts []passPart
	for tokens > 0 && len(parts) < len(e.freeSequences) {
		n := min(tokens, e.base.limits.SequenceMax)
		job := &embedJob{ctx: e.ctx, tokens: make([]batch.Token, n), done: make(chan embedResult, 1), sequence: -1}
		parts = append(parts, passPart{job, n})
		tokens -= n
	}
	e.takeSequences(parts)
	defer func() {
		for _, p := range parts {
			e.forget(p.job)
		}
	}()
	return e.compute(parts)
}

// chooseEncoderContext is the longest text: what was asked for and what the model reads, cut to what a
// quarter of the free memory can hold.
func chooseEncoderContext(spec models.BaseSpec, longest, vocabulary, size int, freeBytes int64) int {
	tokens := spec.Context
	if tokens == 0 {
		tokens = defaultContext
	}
	tokens = min(tokens, longest)
	for tokens > minEmbedTokens && freeBytes > 0 && encoderBytes(tokens, vocabulary, size) > freeBytes/4 {
		tokens = max(tokens-tokens/16-1, minEmbedTokens)
	}
	return tokens
}
