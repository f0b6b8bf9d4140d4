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

// ErrNotDeterministic is for what DETERMINISTIC=true can't be promised for.
var ErrNotDeterministic = errors.New("answers would depend on what else is computed")

// invariance is what a CPU computes in one way for each row, whatever is computed beside it.
type invariance int32

const (
	invariantNothing   invariance = C.TDM_FREE
	invariantAttention invariance = C.TDM_ATTENTION // costs nothing
	invariantAll       invariance = C.TDM_ALL
)

func setInvariance(how invariance) { C.tdm_row_invariance(C.int32_t(how)) }

// invarianceFor says which kernels the process is to use. Those of GPUs choose their ways by the size of the batch, and nothing here
// changes that.
func invarianceFor(o Options, devices []Device) (invariance, error) {
	for _, d := range devices {
		switch {
		case !d.GPU || o.GPULayers == 0:
		case o.Deterministic:
			return invariantNothing, fmt.Errorf("%w on %s (%s); with GPU_LAYERS=0 the CPU computes", ErrNotDeterministic, d.Name, d.Description)
		default:
			return invariantNothing, nil
		}
	}
	if o.Deterministic {
		return invariantAll, nil
	}
	return invariantAttention, nil
}

const (
	checkTokens = 48 // of the sequence that is computed in two ways
	checkBeside = 32 // of another one; together enough for the kernels of large batches
)

// checkInvariance computes a sequence in two ways: its last token alone after the others, and all of it beside another sequence. Where the
// logits differ some kernel of this model chooses its way by what else there is.
func (b *Base) checkInvariance() error {
	if min(b.limits.StepTokens, b.limits.SequenceMax) < checkTokens+checkBeside || b.limits.Sequences < 2 {
		return nil // whoever makes it that small computes alone
	}
	tokens := make([]batch.Token, checkTokens)
	for i := range tokens {
		tokens[i] = batch.Token((7 + 31*i) % b.vocab.size())
	}
	last := checkTokens - 1
	alone, err := b.logitsAfter(last,
		[]batch.Slice{{Seq: 0, Tokens: tokens[:last]}},
		[]batch.Slice{{Seq: 0, Start: last, Tokens: tokens[last:], Sampler: dryRun{}}})
	if err != nil {
		return err
	}
	beside, err := b.logitsAfter(last, []batch.Slice{
		{Seq: 1, Tokens: tokens, Sampler: dryRun{}},
		{Seq: 0, Tokens: tokens[1 : 1+checkBeside]},
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

// logitsAfter decodes the steps and copies the logits of the token at position last; what the cache holds is forgotten.
func (b *Base) logitsAfter(last int, steps ...[]batch.Slice) ([]float32, error) {
	defer C.llama_memory_clear(b.memory, false)
	for _, slices := range steps {
		if err := b.decode(slices); err != nil {
			return nil, fmt.Errorf("compute in two ways: %w", err)
		}
	}
	final := steps[len(steps)-1][0]
	logits, err := b.logits(last - final.Start)
	return slices.Clone(logits), err
}
