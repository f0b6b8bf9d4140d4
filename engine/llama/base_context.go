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
	"tandem/engine/models"
)

// openContext makes the context. Runs on the goroutine that steps.
func (b *Base) openContext() error {
	b.planAgain()
	b.threadChoice = newThreadChoice(threadCount(b.opts.Threads, int64(C.llama_model_size(b.model))))
	if !b.embed.causal { // a model that looks ahead has no next token
		return b.openEncoder()
	}
	if wanted := b.size.sequenceTokens * b.size.sequences; b.size.cells < wanted {
		b.opts.Logger.Info("KV cache is smaller than all sequences at full length",
			"model", b.spec.Name, "cells", b.size.cells, "wanted", wanted, "decided_by", b.size.limit)
	}
	params := C.tdm_context{
		cells:       C.uint32_t(b.size.cells),
		step_tokens: C.uint32_t(b.opts.StepTokens),
		// With streams the library may put one token more than this into a pass, if there are as many sequences.
		ubatch:    C.uint32_t(max(b.opts.MicroBatch, b.size.sequences)),
		sequences: C.uint32_t(b.size.sequences),
		streams:   C.bool(b.size.layout == models.LayoutStreams),
		outputs:   C.uint32_t(b.size.sequences + batch.MaxScoredTokens),
		threads:   C.int32_t(b.threadChoice.all),
	}
	b.attention.apply(&params, true)
	errBuf := newErrorBuffer()
	defer errBuf.free()
	if b.context = C.tdm_context_new(b.model, &params, errBuf.text, errBuf.size); b.context == nil {
		return fmt.Errorf("make a context of %d cells: %w", b.size.cells, errBuf.err())
	}
	if b.memory = C.llama_get_memory(b.context); b.memory == nil {
		C.tdm_context_free(b.context)
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
	return nil
}

// setLimits reads the sizes that the library chose: it clamps n_batch and rounds the cells.
func (b *Base) setLimits() {
	cells := int(C.llama_n_ctx(b.context))
	longest := min(b.size.sequenceTokens, cells, int(C.llama_n_ctx_seq(b.context)))
	b.limits = batch.Limits{
		Cells:       cells,
		Sequences:   int(C.llama_n_seq_max(b.context)),
		SequenceMax: longest,
		StepTokens:  int(C.llama_n_batch(b.context)),
		Prefix:      !b.keepsState(),
		Vocabulary:  b.vocab.size(),
	}
	if b.size.layout == models.LayoutStreams {
		b.limits.StreamCells = int(C.llama_n_ctx_seq(b.context))
		b.limits.CopyTokens = b.limits.StreamCells / streamCopyShare
	}
}

// streamCopyShare: copying a stream copies all its cells, used or not, which takes as long as computing about one token
// for so many of them.
const streamCopyShare = 256

// keepsState reports whether sequences have a state that isn't a row of cells, so that they can't be cut, nor a part of
// one be copied.
func (b *Base) keepsState() bool {
	return bool(C.llama_model_is_recurrent(b.model)) || bool(C.llama_model_is_hybrid(b.model))
}
