//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim_embed.h"
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
	"tandem/engine/models"
)

const (
	embedSequences  = 32       // texts that are computed together at most
	embedStepTokens = 512      // tokens of one pass at most; a text of an encoder may be longer
	minEmbedTokens  = 32       // tokens of one pass at least, however little time it should take
	outputBytes     = 64 << 20 // of what one pass gives for a decoder, logits of each token included
	maxEmbedJobs    = 4096     // texts that wait
)

// embedder computes the embeddings of a base, in a context of its own on the same weights: the one that generates gives
// no vectors. That context is made when the first text comes. Texts wait in a queue; while there are any, a goroutine
// computes them, pass by pass, each in a turn between two steps.
type embedder struct {
	base    *Base
	pooling models.Pooling // never auto
	causal  bool           // texts may be computed in parts
	size    int            // numbers of a token's vector
	scores  bool           // the context classifies

	mu      sync.Mutex
	jobs    []*embedJob // guarded by mu; in order of arrival, those in computation included
	running bool        // guarded by mu; the goroutine is there
	closed  bool        // guarded by mu
	work    sync.WaitGroup
	ctx     context.Context // of the goroutine
	cancel  context.CancelFunc

	// Used only on the goroutine that steps.
	context       *C.struct_llama_context
	memory        C.llama_memory_t // nil: an encoder, which keeps nothing between passes
	sequences     int
	stepTokens    int // of one pass at most
	cells         int
	activeAdapter *Adapter
	batch         batchArrays
	freeSequences []int
	tokenTime     time.Duration // measured; 0: not yet
	computedKinds map[stepKind]bool

	untried []warmUpStep // of the context of a decoder; used only on the goroutine
}

// embedJob is one text.
type embedJob struct {
	ctx     context.Context
	adapter *Adapter
	tokens  []batch.Token
	done    chan embedResult // has room for one

	// Used only on the goroutine that steps.
	sequence int // -1: it waits
	filled   int // tokens that were computed
	pooled   pooledVector
}

type embedResult struct {
	vector []float32
	err    error
}

// newEmbedder finds out what the model can do; the context comes later.
func newEmbedder(b *Base) (*embedder, error) {
	var facts C.tdm_embedding
	if !bool(C.tdm_embedding_facts(b.model, &facts)) {
		return nil, errors.New("the library doesn't say what the model can embed")
	}
	pooling, err := choosePooling(b.spec.Pooling, int(facts.pooling), bool(facts.classifier))
	if err != nil {
		return nil, err
	}
	e := &embedder{base: b, pooling: pooling, causal: bool(facts.causal), size: int(facts.size), scores: pooling == models.PoolingRank}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e, nil
}

// choosePooling is what model.yaml says, else what the file says (numbers of llama_pooling_type), else the mean.
func choosePooling(wanted models.Pooling, ofFile int, classifier bool) (models.Pooling, error) {
	switch {
	case wanted == models.PoolingRank && !classifier:
		return 0, errors.New("pooling is rank in model.yaml, but the model has no classifier")
	case wanted != models.PoolingAuto:
		return wanted, nil
	case ofFile == C.LLAMA_POOLING_TYPE_RANK && classifier:
		return models.PoolingRank, nil
	case ofFile == C.LLAMA_POOLING_TYPE_CLS:
		return models.PoolingCLS, nil
	case ofFile == C.LLAMA_POOLING_TYPE_LAST:
		return models.PoolingLast, nil
	}
	return models.PoolingMean, nil
}

// Embed computes an embedding or a score.
func (b *Base) Embed(ctx context.Context, task models.Task, adapter models.Adapter, tokens []batch.Token) ([]float32, error) {
	job, err := b.newEmbedJob(ctx, task, adapter, tokens)
	if err != nil {
		return nil, fmt.Errorf("embed with %s: %w", b.spec.Name, err)
	}
	if err := b.embed.add(job); err != nil {
		return nil, fmt.Errorf("embed with %s: %w", b.spec.Name, err)
	}
	select {
	case r := <-job.done:
		return r.vector, r.err
	case <-ctx.Done(): // the next turn drops it
		return nil, context.Cause(ctx)
	}
}

func (b *Base) newEmbedJob(ctx context.Context, task models.Task, adapter models.Adapter, tokens []batch.Token) (*embedJob, error) {
	if (task == models.TaskScore) != b.embed.scores {
		return nil, models.ErrNoTask
	}
	switch {
	case len(tokens) == 0:
		return nil, errors.New("a text without tokens")
	case len(tokens) > b.limits.SequenceMax:
		return nil, fmt.Errorf("%d tokens: %w", len(tokens), models.ErrPromptTooLong)
	}
	if err := b.checkTokens(tokens); err != nil {
		return nil, err
	}
	job := &embedJob{ctx: ctx, tokens: tokens, done: make(chan embedResult, 1), sequence: -1}
	if adapter != nil {
		a, ok := adapter.(*Adapter)
		if !ok || a.base != b {
			return nil, fmt.Errorf("adapter %q isn't loaded on this base", adapter.Name())
		}
		job.adapter = a
	}
	return job, nil
}

// add puts a job into the queue and starts the goroutine, if there is none.
func (e *embedder) add(job *embedJob) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return models.ErrClosed
	case len(e.jobs) >= maxEmbedJobs:
		return models.ErrEmbeddingsFull
	}
	e.jobs = append(e.jobs, job)
	if !e.running {
		e.running = true
		e.work.Go(e.run)
	}
	return nil
}

// run takes turns until no job is left.
func (e *embedder) run() {
	for {
		e.mu.Lock()
		if len(e.jobs) == 0 || e.closed {
			e.running = false
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		if err := e.takeTurn(); err != nil {
			e.failAll(err)
		}
	}
}

// takeTurn opens the context and tries it in calls, which may take long, and computes one pass in a turn.
func (e *embedder) takeTurn() error {
	if err := e.base.opts.OnDevice(e.ctx, e.open); err != nil {
		return err
	}
	for len(e.untried) > 0 {
		step := e.untried[0]
		e.untried = e.untried[1:]
		if err := e.base.opts.OnDevice(e.ctx, step.compute); err != nil {
			return fmt.Errorf("try %s: %w", step.name, err)
		}
	}
	return e.base.opts.OnTurn(e.ctx, func(t batch.Turn) error {
		e.pass(t)
		return nil
	})
}

// failAll ends every job with an error of the context or of the executor, which are nobody's fault.
func (e *embedder) failAll(err error) {
	e.mu.Lock()
	jobs := e.jobs
	e.jobs = nil
	e.mu.Unlock()
	for _, job := range jobs {
		job.done <- embedResult{err: err}
	}
}

// pass computes the next tokens. Called on the goroutine that steps.
func (e *embedder) pass(t batch.Turn) {
	jobs := e.waitingJobs()
	if len(jobs) == 0 {
		return
	}
	parts := planPass(jobs, passBudget(t.Limit, e.tokenTime, e.stepTokens), e.limits())
	e.takeSequences(parts)
	n := 0
	for _, p := range parts {
		n += p.tokens
	}
	kind := newStepKind(n, parts[0].job.adapter != nil)
	gpu := e.base.onAccelerator()
	newKind := gpu && !e.computedKinds[kind]
	if expected := time.Duration(n) * e.tokenTime; newKind || !gpu && e.tokenTime == 0 {
		t.ExpectFirst(expected)
	} else {
		t.Expect(expected)
	}
	began := time.Now()
	if err := e.compute(parts); err != nil {
		for _, p := range parts {
			e.end(p.job, embedResult{err: err})
		}
		return
	}
	took := time.Since(began)
	if !newKind {
		e.tokenTime = smoothed(e.tokenTime, took/time.Duration(n))
	}
	at, done := 0, 0
	for _, p := range parts {
		if e.takeVectors(p, at) {
			done++
		}
		at += p.tokens
	}
	t.Computed(e.base.spec.Key, took, n, len(parts), done)
}

// smoothed is the new estimate of a token's time.
func smoothed(before, now time.Duration) time.Duration {
	if before == 0 {
		return now
	}
	return (3*before + now) / 4
}

// waitingJobs drops the jobs that nobody waits for and returns the others.
func (e *embedder) waitingJobs() []*embedJob {
	e.mu.Lock()
	defer e.mu.Unlock()
	kept := e.jobs[:0]
	for _, job := range e.jobs {
		if job.ctx.Err() == nil {
			kept = append(kept, job)
			continue
		}
		e.forget(job)
	}
	clear(e.jobs[len(kept):])
	e.jobs = kept
	return append([]*embedJob(nil), kept...)
}

// end answers a job and takes it out of the queue.
func (e *embedder) end(job *embedJob, r embedResult) {
	e.forget(job)
	e.mu.Lock()
	for i := range e.jobs {
		if e.jobs[i] == job {
			e.jobs = append(e.jobs[:i], e.jobs[i+1:]...)
			break
		}
	}
	e.mu.Unlock()
	job.done <- r
}

// forget frees a job's sequence and its cells.
func (e *embedder) forget(job *embedJob) {
	if job.sequence < 0 {
		return
	}
	if e.memory != nil {
		C.llama_memory_seq_rm(e.memory, C.llama_seq_id(job.sequence), -1, -1)
	}
	e.freeSequences = append(e.freeSequences, job.sequence)
	job.sequence = -1
}

// takeSequences gives sequences to the jobs that begin now.
func (e *embedder) takeSequences(parts []passPart) {
	for _, p := range parts {
		if p.job.sequence < 0 {
			last := len(e.freeSequences) - 1
			p.job.sequence = e.freeSequences[last]
			e.freeSequences = e.freeSequences[:last]
		}
	}
}

// compute runs the parts of a pass, all with one adapter, and waits for the vectors.
func (e *embedder) compute(parts []passPart) error {
	if err := e.useAdapter(parts[0].job.adapter); err != nil {
		return err
	}
	n := 0
	for _, p := range parts {
		for k := range p.tokens {
			at := p.job.filled + k
			e.batch.token[n], e.batch.pos[n], e.batch.seq[n], e.batch.output[n] = p.job.tokens[at], int32(at), int32(p.job.sequence), 1
			n++
		}
	}
	threads := C.int32_t(e.base.threadChoice.all)
	C.llama_set_n_threads(e.context, threads, threads)
	var rc C.int32_t
	if thread := e.base.thread; thread != nil {
		rc = thread.decode(e.context, n, &e.batch)
	} else {
		token, pos, seq, output := e.batch.columns()
		rc = C.tdm_decode(e.context, C.int32_t(n), token, pos, seq, output)
	}
	if rc == C.TDM_NO_MEMORY {
		return fmt.Errorf("%w: %w", models.ErrEmbeddingMemory, &noMemoryError{fmt.Sprintf("compute %d tokens", n)})
	}
	if rc != 0 {
		err := fmt.Errorf("compute %d tokens for embeddings: llama.cpp gives %d", n, int(rc))
		e.base.backend.noteFailure(rc, err)
		return err
	}
	e.noteComputed(newStepKind(n, parts[0].job.adapter != nil))
	return nil
}

// noteComputed notes that the kernels of a pass are there.
func (e *embedder) noteComputed(kind stepKind) {
	if e.computedKinds == nil {
		e.computedKinds = make(map[stepKind]bool)
	}
	e.computedKinds[kind] = true
}

func (e *embedder) useAdapter(a *Adapter) error {
	if a == e.activeAdapter {
		return nil
	}
	var handle *C.struct_llama_adapter_lora
	if a != nil {
		if a.handle == nil {
			return fmt.Errorf("adapter %s is closed", a.name)
		}
		handle = a.handle
	}
	if rc := C.tdm_adapter_use(e.context, handle); rc != 0 {
		return fmt.Errorf("switch adapter for embeddings: llama.cpp gives %d", int(rc))
	}
	e.activeAdapter = a
	return nil
}

// takeVectors adds what a pass gave for a part, which is at place at of the batch. It ends the job with its last one,
// and reports whether it did.
func (e *embedder) takeVectors(p passPart, at int) bool {
	job := p.job
	for k := range p.tokens {
		if e.scores {
			break
		}
		first, last := job.filled+k == 0, job.filled+k == len(job.tokens)-1
		if e.pooling == models.PoolingCLS && !first || e.pooling == models.PoolingLast && !last {
			continue
		}
		row := C.llama_get_embeddings_ith(e.context, C.int32_t(at+k))
		if row == nil {
			e.end(job, embedResult{err: fmt.Errorf("no vector at place %d of the pass", at+k)})
			return true
		}
		job.pooled.add(unsafe.Slice((*float32)(row), e.size))
	}
	job.filled += p.tokens
	if job.filled < len(job.tokens) {
		return false
	}
	vector, err := e.result(job)
	e.end(job, embedResult{vector, err})
	return true
}

// result is the vector of a text, of length 1, or its score.
func (e *embedder) result(job *embedJob) ([]float32, error) {
	if !e.scores {
		return job.pooled.normalised()
	}
	row := C.llama_get_embeddings_seq(e.context, C.llama_seq_id(job.sequence))
	if row == nil {
		return nil, errors.New("no score for the text")
	}
	return finite([]float32{float32(*row)})
}

// close ends the goroutine and waits for it. No lease is left, so nobody waits for a job.
func (e *embedder) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.work.Wait()
	e.failAll(models.ErrClosed)
}

// release frees the context. Called on the goroutine that steps, or when nobody steps any more.
func (e *embedder) release() {
	if e.context == nil {
		return
	}
	C.tdm_adapter_use(e.context, nil)
	C.tdm_context_free(e.context)
	e.context, e.memory, e.activeAdapter = nil, nil, nil
	e.batch.free()
}

// dropAdapter makes the context forget an adapter that is about to be freed.
func (e *embedder) dropAdapter() {
	if e.context != nil {
		C.tdm_adapter_use(e.context, nil)
		e.activeAdapter = nil
	}
}
