//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"tandem/engine/batch"
)

// ErrNotDeterministic means that DETERMINISTIC=true can't be kept with this hardware or model.
var ErrNotDeterministic = errors.New("answers would depend on what else is computed")

// batchInvariance is which operations a CPU computes in the same way for each row, whatever else is in the batch.
type batchInvariance int32

const (
	invariantNothing   batchInvariance = C.TDM_FREE
	invariantAttention batchInvariance = C.TDM_ATTENTION // costs nothing
	invariantAll       batchInvariance = C.TDM_ALL
)

func setBatchInvariance(mode batchInvariance) { C.tdm_row_invariance(C.int32_t(mode)) }

// batchInvarianceFor chooses the kernels of the process. Those of GPUs depend on the size of the batch, and nothing
// here changes that.
func batchInvarianceFor(o Options, accelerators []Device) (batchInvariance, error) {
	switch {
	case len(accelerators) > 0 && o.Deterministic:
		d := accelerators[0]
		return invariantNothing, fmt.Errorf("%w on %s (%s); with DEVICE=cpu the CPU computes", ErrNotDeterministic, d.Name, d.Description)
	case len(accelerators) > 0:
		return invariantNothing, nil
	case o.Deterministic:
		return invariantAll, nil
	}
	return invariantAttention, nil
}

const (
	invarianceTokens = 48 // of the sequence that is computed in two ways
	invarianceBeside = 32 // of another sequence in the batch; together enough for the kernels of large batches
)

// checkBatchInvariance computes a sequence in two ways: its last token alone after the others, and all of it in a batch
// with another sequence. If the logits differ, some kernel of this model depends on what else is in the batch.
func (b *Base) checkBatchInvariance() error {
	if min(b.limits.StepTokens, b.limits.SequenceMax) < invarianceTokens+invarianceBeside || b.limits.Sequences < 2 {
		return nil // with a context that small, sequences are computed alone
	}
	tokens := make([]batch.Token, invarianceTokens)
	for i := range tokens {
		tokens[i] = batch.Token((7 + 31*i) % b.vocab.size())
	}
	last := invarianceTokens - 1
	alone, err := b.logitsAfter(last,
		[]batch.Slice{{Seq: 0, Tokens: tokens[:last]}},
		[]batch.Slice{{Seq: 0, Start: last, Tokens: tokens[last:], Sampler: dryRun{}}})
	if err != nil {
		return err
	}
	beside, err := b.logitsAfter(last, []batch.Slice{
		{Seq: 1, Tokens: tokens, Sampler: dryRun{}},
		{Seq: 0, Tokens: tokens[1 : 1+invarianceBeside]},
	})
	if err != nil {
		return err
	}
	for i := range alone {
		if math.Float32bits(alone[i]) != math.Float32bits(beside[i]) {
			return fmt.Errorf("%w: a kernel for this model's weights chooses its way by the size of the batch", ErrNotDeterministic)
		}
	}
	return nil
}

// logitsAfter decodes the steps and copies the logits of the token at position last; then the cache is cleared.
func (b *Base) logitsAfter(last int, steps ...[]batch.Slice) ([]float32, error) {
	defer C.llama_memory_clear(b.memory, false)
	for _, slices := range steps {
		if err := b.decode(slices); err != nil {
			return nil, fmt.Errorf("compute in two ways: %w", err)
		}
	}
	final := steps[len(steps)-1][0]
	logits, err := b.logits(b.places[0] + last - final.Start)
	return slices.Clone(logits), err
}
