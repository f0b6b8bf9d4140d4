package batch

import (
	"sync"
	"time"
)

// job is work on a sampler that may take longer than a step: building it (sampler is nil), and getting a grammar ready for the next draw.
type job struct {
	base *base
	room int // how many more tokens the answer may have

	// Set by the worker.
	sampler Sampler
	forced  []Token
	err     error
	took    time.Duration
}

// workers run jobs beside the steps. A sequence has at most one job, so the queue holds as many as there may be requests and never
// blocks the executor.
type workers struct {
	queue chan *sequence
	done  func(*sequence)
	wg    sync.WaitGroup
}

func startWorkers(n, queue int, done func(*sequence)) *workers {
	w := &workers{queue: make(chan *sequence, queue), done: done}
	for range n {
		w.wg.Go(w.run)
	}
	return w
}

func (w *workers) run() {
	for q := range w.queue {
		start := time.Now()
		q.job.forced, q.job.err = nil, nil
		q.work()
		q.job.took = time.Since(start)
		w.done(q)
	}
}

// work is what a worker does for a sequence.
func (q *sequence) work() {
	j, sampler := &q.job, q.sampler
	if sampler == nil {
		if j.sampler, j.err = j.base.runner.NewSampler(q.req.Sampling, q.req.Prompt, q.req.Generated); j.err != nil {
			return
		}
		sampler = j.sampler
	}
	if sampler.Constrained() {
		j.forced, j.err = sampler.Advance(j.room)
	}
}

// stop waits for the workers; nothing may be queued any more.
func (w *workers) stop() {
	close(w.queue)
	w.wg.Wait()
}
