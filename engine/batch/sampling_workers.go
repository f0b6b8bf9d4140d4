package batch

import (
	"sync"
	"time"
)

// job is work on a sampler that may take longer than a step: building it (sampler is nil), and getting a grammar ready
// for the next draw.
type job struct {
	base      *base
	maxTokens int // how many more tokens the answer may have

	// Set by the worker.
	sampler Sampler
	forced  []Token
	err     error
	took    time.Duration
}

// samplingWorkers run jobs beside the steps. A sequence has at most one job, and the queue has room for one of each
// request, so it never blocks the executor.
type samplingWorkers struct {
	queue chan *sequence
	done  func(*sequence)
	wg    sync.WaitGroup
}

func startSamplingWorkers(n, queue int, done func(*sequence)) *samplingWorkers {
	w := &samplingWorkers{queue: make(chan *sequence, queue), done: done}
	for range n {
		w.wg.Go(w.run)
	}
	return w
}

func (w *samplingWorkers) run() {
	for q := range w.queue {
		start := time.Now()
		q.job.forced, q.job.err = nil, nil
		q.runJob()
		q.job.took = time.Since(start)
		w.done(q)
	}
}

// runJob is what a worker does for a sequence.
func (q *sequence) runJob() {
	j, sampler := &q.job, q.sampler
	if sampler == nil {
		if j.sampler, j.err = j.base.runner.NewSampler(q.req.Sampling, q.req.Prompt, q.req.Generated); j.err != nil {
			return
		}
		sampler = j.sampler
	}
	if sampler.Constrained() {
		j.forced, j.err = sampler.Advance(j.maxTokens)
	}
}

// stop ends the workers and waits for them; nothing may be queued any more.
func (w *samplingWorkers) stop() {
	close(w.queue)
	w.wg.Wait()
}
