//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"tandem/engine/batch"
	"tandem/engine/grammar"
	"tandem/engine/models"
)

// Base is a loaded model with its context: what package models keeps and what package batch steps.
type Base struct {
	backend  *Backend
	spec     models.BaseSpec
	opts     Options
	model    *C.struct_llama_model
	vocab    *vocab
	template *C.tdm_template // nil: none, or switched off
	limits   batch.Limits
	facts    models.Facts
	layout   plan

	// Of the goroutine that steps.
	context  *C.struct_llama_context
	memory   C.llama_memory_t
	using    *Adapter
	drawTook time.Duration // of the last step
	threads  *threadChoice
	thread   *stepThread // nil: decodes are calls of the goroutine that steps
	step     stepArrays

	grammarOnce sync.Once // guards the next two
	grammars    *grammar.Vocabulary
	grammarErr  error

	mu       sync.Mutex // guards adapters and closed
	adapters map[*Adapter]struct{}
	closed   bool
}

// open does everything after the weights are there. The caller releases the base when it fails.
func (b *Base) open(ctx context.Context, progress func(models.Progress)) error {
	if err := checkModel(b.model); err != nil {
		return err
	}
	var err error
	if b.vocab, err = readVocab(b.model); err != nil {
		return err
	}
	if err := b.openTemplate(); err != nil {
		return err
	}
	if progress != nil {
		progress(models.Progress{Phase: "context", Ratio: 0})
	}
	b.adapters = make(map[*Adapter]struct{})
	if err := b.opts.OnDevice(ctx, b.openContext); err != nil {
		return err
	}
	b.describe()
	if progress != nil {
		progress(models.Progress{Phase: "context", Ratio: 1})
	}
	return nil
}

func (b *Base) openTemplate() error {
	if b.spec.Template == models.TemplateOff {
		return nil
	}
	why := newComplaint()
	defer why.free()
	var none C.bool
	b.template = C.tdm_template_new(b.model, &none, why.text, why.size)
	switch {
	case b.template != nil:
		return b.tryTemplate()
	case !bool(none):
		return badTemplate(why.err())
	case b.spec.Template == models.TemplateOn:
		return fmt.Errorf("chat template: %w", why.err())
	}
	b.opts.Logger.Info("model has no chat template; prompts are sent as they are", "model", b.spec.Name)
	return nil
}

// tryTemplate renders a small conversation, without and with a system text. A template may refuse one of them, which is then the request's
// fault; one that can do neither is broken.
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

// openContext makes the context and runs it once at its worst, so that pools grow now. Runs on the device's goroutine.
func (b *Base) openContext() error {
	var device C.tdm_device
	b.threads = newThreadChoice(threadsFor(b.opts.Threads, int64(C.llama_model_size(b.model))))
	C.tdm_model_device(b.model, &device)
	trained := int(C.llama_model_n_ctx_train(b.model))
	b.layout = planContext(b.spec, b.opts, trained, cellBytes(b.model), int64(device.free))
	if wanted := b.layout.context * b.layout.sequences; b.layout.cells < wanted {
		b.opts.Logger.Info("KV cache is smaller than all sequences at full length", "model", b.spec.Name, "cells", b.layout.cells, "wanted", wanted)
	}
	how := C.tdm_context{
		cells:       C.uint32_t(b.layout.cells),
		step_tokens: C.uint32_t(b.opts.StepTokens),
		ubatch:      microBatch,
		sequences:   C.uint32_t(b.layout.sequences),
		threads:     C.int32_t(b.threads.all),
	}
	why := newComplaint()
	defer why.free()
	if b.context = C.tdm_context_new(b.model, &how, why.text, why.size); b.context == nil {
		return fmt.Errorf("make a context of %d cells: %w", b.layout.cells, why.err())
	}
	if b.memory = C.llama_get_memory(b.context); b.memory == nil {
		return errors.New("the model keeps no KV cache, so it can't generate text")
	}
	b.setLimits()
	b.step = newStepArrays(b.limits.StepTokens)
	gpu := deviceOf(&device).GPU
	if b.threads.all > 1 && !gpu {
		var err error
		if b.thread, err = b.backend.stepThread(); err != nil {
			return err
		}
	}
	return b.dryRun(gpu)
}

// setLimits asks the library what it made of the wishes: it clamps n_batch and rounds the cells.
func (b *Base) setLimits() {
	cells := int(C.llama_n_ctx(b.context))
	longest := min(b.layout.context, cells, int(C.llama_n_ctx_seq(b.context)))
	recurrent := bool(C.llama_model_is_recurrent(b.model)) || bool(C.llama_model_is_hybrid(b.model))
	b.limits = batch.Limits{
		Cells:       cells,
		Sequences:   int(C.llama_n_seq_max(b.context)),
		SequenceMax: longest,
		StepTokens:  int(C.llama_n_batch(b.context)),
		Prefix:      !recurrent,
	}
}

// dryRun decodes a pass of prompt tokens and one token of every sequence with output. A GPU gets a full pass, since its pools grow with
// what is computed. On a CPU all buffers are reserved with the context, and a full pass would be a third of the load: 0.4 s for 130 MB of
// weights on two cores, and more for a larger model.
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
	slices = slices[:0]
	for seq := range min(b.limits.Sequences, b.limits.StepTokens) {
		slices = append(slices, batch.Slice{Seq: seq, Tokens: prompt[:1], Sampler: dryRun{}})
	}
	if err := b.decode(slices); err != nil {
		return fmt.Errorf("dry run with %d sequences: %w", len(slices), err)
	}
	C.llama_memory_clear(b.memory, false)
	if b.opts.Deterministic {
		return b.checkInvariance()
	}
	return nil
}

// dryRun asks decode for an output and draws nothing.
type dryRun struct{ batch.Sampler }

func (b *Base) describe() {
	var device C.tdm_device
	C.tdm_model_device(b.model, &device)
	var weights, cache, compute C.uint64_t
	C.tdm_context_memory(b.context, &weights, &cache, &compute)
	d := deviceOf(&device)
	b.facts = models.Facts{
		Architecture:  meta(b.model, "general.architecture"),
		Quantization:  quantization(b.model),
		Parameters:    int64(C.llama_model_n_params(b.model)),
		ContextTokens: b.limits.SequenceMax,
		TrainContext:  int(C.llama_model_n_ctx_train(b.model)),
		Cells:         b.limits.Cells,
		Sequences:     b.limits.Sequences,
		WeightBytes:   max(int64(weights), int64(C.llama_model_size(b.model))),
		CacheBytes:    int64(cache + compute),
		Device:        d.Description,
		Backend:       d.Backend,
		ChatTemplate:  b.template != nil,
	}
}

// Facts of the loaded base.
func (b *Base) Facts() models.Facts { return b.facts }

// Limits of the context.
func (b *Base) Limits() batch.Limits { return b.limits }

// Piece is the text of a token, empty for a control token and for an id outside the vocabulary.
func (b *Base) Piece(t batch.Token) []byte { return b.vocab.piece(t) }

// IsEnd tells whether the token ends the answer.
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
	err := b.opts.OnDevice(context.Background(), func() error {
		b.release()
		return nil
	})
	if err != nil { // nobody steps any more, so this goroutine may do it
		b.release()
	}
	return nil
}

// release frees what there is, in the order that the library needs.
func (b *Base) release() {
	if b.context != nil {
		C.tdm_adapter_use(b.context, nil)
	}
	b.mu.Lock()
	for a := range b.adapters {
		C.llama_adapter_lora_free(a.handle)
		a.handle = nil
	}
	b.adapters = nil
	b.mu.Unlock()
	if b.context != nil {
		C.llama_free(b.context)
		b.context = nil
	}
	if b.grammars != nil {
		b.grammars.Close()
	}
	if b.template != nil {
		C.tdm_template_free(b.template)
		b.template = nil
	}
	if b.model != nil {
		C.llama_model_free(b.model)
		b.model = nil
	}
	b.step.free()
}

// stepArrays are the columns of a batch, in C memory so that no Go pointer is kept there.
type stepArrays struct {
	token, pos, seq []int32
	output          []int8
}

func newStepArrays(n int) stepArrays {
	column := func(size C.size_t) unsafe.Pointer { return C.calloc(C.size_t(n), size) }
	return stepArrays{
		token:  unsafe.Slice((*int32)(column(4)), n),
		pos:    unsafe.Slice((*int32)(column(4)), n),
		seq:    unsafe.Slice((*int32)(column(4)), n),
		output: unsafe.Slice((*int8)(column(1)), n),
	}
}

func (s *stepArrays) columns() (token, pos, seq *C.int32_t, output *C.int8_t) {
	return (*C.int32_t)(&s.token[0]), (*C.int32_t)(&s.pos[0]), (*C.int32_t)(&s.seq[0]), (*C.int8_t)(&s.output[0])
}

func (s *stepArrays) free() {
	if s.token == nil {
		return
	}
	for _, column := range [][]int32{s.token, s.pos, s.seq} {
		C.free(unsafe.Pointer(unsafe.SliceData(column)))
	}
	C.free(unsafe.Pointer(unsafe.SliceData(s.output)))
	*s = stepArrays{}
}
