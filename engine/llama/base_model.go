//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tandem/engine/batch"
	"tandem/engine/grammar"
	"tandem/engine/models"
)

// Base is a loaded model with its context: the models.Base of the cache and the batch.Runner of the executor.
type Base struct {
	backend  *Backend
	spec     models.BaseSpec
	opts     Options
	model    *C.struct_llama_model
	vocab    *vocab
	template *C.tdm_template // nil: none, or switched off
	form     *answerForm     // nil: there is no template, or its form isn't known
	limits   batch.Limits
	facts    models.Facts
	size     contextSize
	// Set before the first context is made; trained as well, since the library changes its number with one.
	attention attention
	trained   int           // tokens
	placement []deviceShare // by the device's number; memory of the context only once there is one
	// The layers that keep cells, and the number of the device of each.
	layers       []cacheLayer
	layerDevices []int
	missed       string // what of the memory is missing, as a part of size.limit
	ends         textEnds
	embed        *embedder
	// generates is false for an encoder: context and memory are nil then, and the embedder has the only context.
	generates      bool
	rerankTemplate string // of a reranker; empty: none

	// Used only on the goroutine that steps.
	context       *C.struct_llama_context
	memory        C.llama_memory_t
	activeAdapter *Adapter
	slots         *adapterSlots // nil: a step has one adapter
	turnsReason   string        // why there are no slots
	drawTime      time.Duration // in the last step
	candidates    deviceSampling
	sampling      models.Sampling
	computedKinds map[stepKind]bool
	measuredSteps []batch.MeasuredStep // of the warm-up
	threadChoice  *threadChoice
	thread        *stepThread // nil: the goroutine that steps calls decode itself
	batch         batchArrays
	places        []int        // of each slice of the last step: where its first token is in the batch
	gaps          []gapToken   // of the last step
	order         []int        // scratch of batchOrder
	rows          []streamRows // scratch of findGaps

	grammarOnce  sync.Once // guards the next two
	grammarVocab *grammar.Vocabulary
	grammarErr   error

	mu           sync.Mutex // guards adapters, adapterBytes and closed
	adapters     map[*Adapter]struct{}
	adapterBytes []int64 // of all adapters, by the device's number
	closed       bool
	// What lies on each device, with adapters; nil: what facts has, there were none.
	currentMemory atomic.Pointer[[]models.DeviceMemory]
}

// finishLoad does everything after the weights are loaded. When it fails the caller must release the base.
func (b *Base) finishLoad(ctx context.Context, progress func(models.Progress)) error {
	if err := checkModel(b.model); err != nil {
		return err
	}
	var err error
	if b.layers, b.layerDevices, err = cacheLayers(b.model); err != nil {
		return err
	}
	file := readRope(b.model)
	b.trained = file.trained
	if b.attention, err = chooseAttention(b.spec.Attention, b.layers, file, b.opts.Deterministic); err != nil {
		return err
	}
	b.readPlacement()
	b.holdsMemory()
	if b.vocab, err = readVocab(b.model); err != nil {
		return err
	}
	b.ends = readTextEnds(b.vocab.handle)
	if b.embed, err = newEmbedder(b); err != nil {
		return err
	}
	b.rerankTemplate = rerankTemplate(b.model)
	if err := b.openTemplate(); err != nil {
		return err
	}
	if err := b.planContext(ctx, progress); err != nil {
		return err
	}
	if progress != nil {
		progress(models.Progress{Phase: "context", Ratio: 0})
	}
	b.adapters = make(map[*Adapter]struct{})
	if err := b.opts.OnDevice(ctx, b.openContext); err != nil {
		return err
	}
	if err := b.warmUp(ctx, progress); err != nil {
		return err
	}
	b.readFacts()
	if progress != nil {
		progress(models.Progress{Phase: "context", Ratio: 1})
	}
	return nil
}

func (b *Base) openTemplate() error {
	if b.spec.Template == models.TemplateOff {
		return nil
	}
	errBuf := newErrorBuffer()
	defer errBuf.free()
	var none C.bool
	b.template = C.tdm_template_new(b.model, &none, errBuf.text, errBuf.size)
	switch {
	case b.template != nil:
		if err := b.tryTemplate(); err != nil {
			return err
		}
		b.openForm()
		return nil
	case !bool(none):
		return badTemplate(errBuf.err())
	case b.spec.Template == models.TemplateOn:
		return fmt.Errorf("chat template: %w", errBuf.err())
	}
	b.opts.Logger.Info("model has no chat template; prompts are sent as they are", "model", b.spec.Name)
	return nil
}

// tryTemplate renders a small conversation, without and with a system text. A template may refuse one of them: requests
// of that form are then refused, too. One that can render neither is broken.
func (b *Base) tryTemplate() error {
	system, user := models.Message{Role: "system", Content: "Answer briefly."}, models.Message{Role: "user", Content: "Hello"}
	_, err := b.applyTemplate([]models.Message{user})
	if err == nil {
		return nil
	}
	if _, other := b.applyTemplate([]models.Message{system, user}); other == nil {
		return nil
	}
	return badTemplate(err)
}

func badTemplate(err error) error {
	return fmt.Errorf("the model's chat template is broken (template: off in model.yaml serves the model without it): %w", err)
}

func (b *Base) readFacts() {
	var weights, cache, compute int64
	for _, share := range b.placement {
		weights, cache, compute = weights+share.weights, cache+share.cache, compute+share.compute
	}
	d := b.backend.firstDevice()
	b.facts = models.Facts{
		Architecture:  meta(b.model, "general.architecture"),
		Quantization:  quantization(b.model),
		Parameters:    int64(C.llama_model_n_params(b.model)),
		ContextTokens: b.limits.SequenceMax,
		TrainContext:  b.trained,
		Cells:         b.limits.Cells,
		Sequences:     b.limits.Sequences,
		WeightBytes:   max(weights, int64(C.llama_model_size(b.model))),
		CacheBytes:    cache + compute,
		KV:            b.kvCache(cache),
		Memory:        memoryFacts(b.placement, nil),
		CellsLimit:    b.size.limit,
		Sampling:      b.sampling,
		Device:        d.Description,
		Backend:       d.Backend,
		EmbeddingSize: b.embed.size,
		Abilities: models.Abilities{
			ChatTemplate: b.template != nil,
			EncoderOnly:  !b.generates,
			Embeddings:   !b.embed.scores,
			Scores:       b.embed.scores,
		},
	}
	if b.form != nil {
		b.facts.Tools, b.facts.Reasoning = b.form.tools, b.form.reasoning
	}
}

// Facts of the loaded base. Safe from any goroutine.
func (b *Base) Facts() models.Facts {
	facts := b.facts
	if memory := b.currentMemory.Load(); memory != nil {
		facts.Memory = *memory
	}
	return facts
}

// Limits of the context.
func (b *Base) Limits() batch.Limits { return b.limits }

// Piece is the text of a token, empty for a control token and for an id outside the vocabulary.
func (b *Base) Piece(t batch.Token) []byte { return b.vocab.piece(t) }

// TokenText is the token's own bytes, with the name of a control token.
func (b *Base) TokenText(t batch.Token) []byte {
	if piece := b.vocab.piece(t); len(piece) > 0 || !b.vocab.valid(t) {
		return piece
	}
	return []byte(C.GoString(C.llama_vocab_get_text(b.vocab.handle, C.llama_token(t))))
}

// IsEnd reports whether the token ends the answer.
func (b *Base) IsEnd(t batch.Token) bool { return b.vocab.isEnd(t) }

// Close frees context, adapters and weights between two steps. No other method may be called afterwards.
func (b *Base) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	b.embed.close()
	err := b.opts.OnDevice(context.Background(), func() error {
		b.release()
		return nil
	})
	if err != nil { // nobody steps any more, so this goroutine may do it
		b.release()
	}
	return nil
}

// release frees everything that there is, in the order that the library needs.
func (b *Base) release() {
	b.freesMemory()
	if b.context != nil {
		C.tdm_adapter_use(b.context, nil)
	}
	if b.embed != nil {
		b.embed.dropAdapter()
	}
	b.mu.Lock()
	for a := range b.adapters {
		C.tdm_adapter_free(a.handle)
		a.handle = nil
	}
	b.adapters = nil
	b.mu.Unlock()
	if b.embed != nil {
		b.embed.release()
	}
	if b.context != nil {
		C.tdm_context_free(b.context)
		b.context = nil
	}
	b.candidates.close()
	if b.grammarVocab != nil {
		b.grammarVocab.Close()
	}
	if b.form != nil {
		b.form.close()
		b.form = nil
	}
	if b.template != nil {
		C.tdm_template_free(b.template)
		b.template = nil
	}
	if b.model != nil {
		C.tdm_model_free(b.model)
		b.model = nil
	}
	b.batch.free()
}
