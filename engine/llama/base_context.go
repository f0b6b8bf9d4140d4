//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"fmt"

	"tandem/engine/batch"
)

// openContext makes the context and does a dry run, so that memory pools grow now. Runs on the goroutine that steps.
func (b *Base) openContext() error {
	b.threadChoice = newThreadChoice(threadCount(b.opts.Threads, int64(C.llama_model_size(b.model))))
	if !b.embed.causal { // a model that looks ahead has no next token
		return b.openEncoder()
	}
	b.size = chooseContextSize(b.spec, b.opts, b.attention.rope.longest, b.placement)
	if wanted := b.size.sequenceTokens * b.size.sequences; b.size.cells < wanted {
		b.opts.Logger.Info("KV cache is smaller than all sequences at full length",
			"model", b.spec.Name, "cells", b.size.cells, "wanted", wanted, "decided_by", b.size.limit)
	}
	params := C.tdm_context{
		cells:       C.uint32_t(b.size.cells),
		step_tokens: C.uint32_t(b.opts.StepTokens),
		ubatch:      microBatch,
		sequences:   C.uint32_t(b.size.sequences),
		outputs:     C.uint32_t(b.size.sequences + batch.MaxScoredTokens),
		threads:     C.int32_t(b.threadChoice.all),
	}
	b.attention.apply(&params, true)
	errBuf := newErrorBuffer()
	defer errBuf.free()
	if b.context = C.tdm_context_new(b.model, &params, errBuf.text, errBuf.size); b.context == nil {
		return fmt.Errorf("make a context of %d cells: %w", b.size.cells, errBuf.err())
	}
	if b.memory = C.llama_get_memory(b.context); b.memory == nil {
		C.llama_free(b.context)
		b.context = nil
		return b.openEncoder()
	}
	b.generates = true
	if err := b.checkFlash(); err != nil {
		return err
	}
	b.setLimits()
	b.openAdapterSlots()
	b.batch = newBatchArrays(b.limits.StepTokens)
	b.readContextMemory(b.context)
	b.logPlacement()
	if b.threadChoice.all > 1 && b.hostComputes() {
		var err error
		if b.thread, err = b.backend.sharedStepThread(); err != nil {
			return err
		}
	}
	if err := b.dryRun(len(b.backend.accelerators) > 0); err != nil {
		return err
	}
	return b.openDeviceSampling()
}

// setLimits reads the sizes that the library chose: it clamps n_batch and rounds the cells.
func (b *Base) setLimits() {
	cells := int(C.llama_n_ctx(b.context))
	longest := min(b.size.sequenceTokens, cells, int(C.llama_n_ctx_seq(b.context)))
	recurrent := bool(C.llama_model_is_recurrent(b.model)) || bool(C.llama_model_is_hybrid(b.model))
	b.limits = batch.Limits{
		Cells:       cells,
		Sequences:   int(C.llama_n_seq_max(b.context)),
		SequenceMax: longest,
		StepTokens:  int(C.llama_n_batch(b.context)),
		Prefix:      !recurrent,
		Vocabulary:  b.vocab.size(),
	}
}

// dryRun decodes a pass of prompt tokens and one token of every sequence with output. A GPU gets a full pass, since its
// pools grow with what is computed. On a CPU all buffers are reserved with the context, and a full pass would take a
// third of the load's time: 0.4 s for 130 MB of weights on two cores, and more for a larger model.
func (b *Base) dryRun(gpu bool) error {
	first := batch.Token(max(0, int(b.vocab.bos)))
	most := cpuDryRun
	if gpu {
		most = microBatch
	}
	prompt := make([]batch.Token, min(most, b.limits.StepTokens, b.limits.SequenceMax-1))
	for i := range prompt {
		prompt[i] = first
	}
	slices := []batch.Slice{{Seq: 0, Tokens: prompt}}
	if err := b.decode(slices); err != nil {
		return fmt.Errorf("dry run with %d prompt tokens: %w", len(prompt), err)
	}
	C.llama_memory_clear(b.memory, false)
	if err := b.decodeFirstTokens(min(b.limits.Sequences, b.limits.StepTokens), dryRun{}); err != nil {
		return err
	}
	if b.opts.Deterministic {
		return b.checkBatchInvariance()
	}
	return nil
}

// decodeFirstTokens decodes a token of each of so many sequences with output, and clears the cache.
func (b *Base) decodeFirstTokens(sequences int, output dryRun) error {
	first := []batch.Token{batch.Token(max(0, int(b.vocab.bos)))}
	slices := make([]batch.Slice, sequences)
	for seq := range slices {
		slices[seq] = batch.Slice{Seq: seq, Tokens: first, Sampler: output}
	}
	if err := b.decode(slices); err != nil {
		return fmt.Errorf("dry run with %d sequences: %w", sequences, err)
	}
	C.llama_memory_clear(b.memory, false)
	return nil
}

// dryRun is a sampler that only makes decode compute logits, or candidates; it draws nothing.
type dryRun struct {
	batch.Sampler
	candidates bool
}
