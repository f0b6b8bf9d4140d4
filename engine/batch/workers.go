package batch

import (
	"sync"
	"time"
)

// job is work on a sampler that may take longer than a step: building it (sampler is nil) or drawing with it.
type job struct {
	base  *base
	index int

	// Set by the worker.
	sampler Sampler
	draw    Draw
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
		j := &q.job
		if q.sampler == nil {
			j.sampler, j.err = j.base.runner.NewSampler(q.req.Sampling, q.req.Prompt, q.req.Generated)
		} else {
			j.draw, j.err = q.sampler.Draw(j.index)
		}
		j.took = time.Since(start)
		w.done(q)
	}
}

// stop waits for the workers; nothing may be queued any more.
func (w *workers) stop() {
	close(w.queue)
	w.wg.Wait()
}
