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

// openContext makes the context. Runs on the goroutine that steps.
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
	return nil
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
