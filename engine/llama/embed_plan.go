//go:build llama

package llama

import (
	"errors"
	"math"
	"time"
)

// passPart is what one pass computes of a job.
type passPart struct {
	job    *embedJob
	tokens int
}

// passLimits are what bounds a pass besides its budget.
type passLimits struct {
	sequences int  // that are free
	cells     int  // that are free; whole texts are counted from their begin to their end
	inParts   bool // a text may be computed in several passes
}

func (e *embedder) limits() passLimits {
	l := passLimits{sequences: len(e.freeSequences), cells: e.cells, inParts: e.memory != nil && e.causal}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, job := range e.jobs {
		if job.sequence >= 0 {
			l.cells -= len(job.tokens)
		}
	}
	return l
}

// passBudget is how many tokens a pass should hold, so that it takes limit at most; without one, or as long as nobody
// knows what a token takes, as many as a pass usually has. Never less than minEmbedTokens, so that texts get on.
func passBudget(limit, tokenTime time.Duration, stepTokens int) int {
	budget := min(stepTokens, embedStepTokens)
	switch {
	case limit <= 0:
		return budget
	case tokenTime <= 0:
		return min(budget, minEmbedTokens)
	}
	return min(budget, max(int(limit/tokenTime), minEmbedTokens))
}

// planPass decides which tokens the next pass holds: of the texts with one adapter, by arrival, beginning with the
// first text that can go on. While others wait that one gets half of the budget at most, so that a short text never
// waits for a long one. Where a text can't be computed in parts the pass holds whole ones, and one at least.
func planPass(jobs []*embedJob, budget int, l passLimits) []passPart {
	for i := range jobs {
		if parts := planFrom(jobs, i, budget, l); len(parts) > 0 {
			return parts
		}
	}
	return nil
}

// planFrom plans a pass with the adapter of the job at place first.
func planFrom(jobs []*embedJob, first, budget int, l passLimits) []passPart {
	able := ableJobs(jobs, jobs[first].adapter, l)
	wanted := 0
	for _, job := range able {
		wanted += job.tokensLeft()
	}
	var parts []passPart
	left := budget
	for i, job := range able {
		n := job.tokensLeft()
		switch {
		case !l.inParts && n > left && i > 0:
			continue
		case l.inParts && i == 0:
			n = min(n, max((budget+1)/2, budget-(wanted-n)))
		case l.inParts:
			n = min(n, left)
		}
		if n > 0 {
			parts = append(parts, passPart{job, n})
			left -= n
		}
	}
	return parts
}

// ableJobs lists the jobs with an adapter that could go on: those that have begun, and those for which there are a
// sequence and cells. Once one must wait for these, those that came later don't take them.
func ableJobs(jobs []*embedJob, adapter *Adapter, l passLimits) []*embedJob {
	var able []*embedJob
	for _, job := range jobs {
		if job.adapter != adapter {
			continue
		}
		if job.sequence < 0 {
			if l.sequences <= 0 || len(job.tokens) > l.cells {
				l.sequences = 0
				continue
			}
			l.sequences--
			l.cells -= len(job.tokens)
		}
		able = append(able, job)
	}
	return able
}

func (j *embedJob) tokensLeft() int { return len(j.tokens) - j.filled }

// pooledVector adds up the vectors of a text's tokens.
type pooledVector struct{ sum []float64 }

func (p *pooledVector) add(row []float32) {
	if p.sum == nil {
		p.sum = make([]float64, len(row))
	}
	for i, x := range row {
		p.sum[i] += float64(x)
	}
}

// errNotFinite is the error for numbers that are none.
var errNotFinite = errors.New("the model computes no finite numbers for this text")

// normalised is the sum with length 1. The number of tokens makes no difference then.
func (p *pooledVector) normalised() ([]float32, error) {
	squares := 0.0
	for _, x := range p.sum {
		squares += x * x
	}
	length := math.Sqrt(squares)
	if length == 0 {
		length = 1
	}
	out := make([]float32, len(p.sum))
	for i, x := range p.sum {
		out[i] = float32(x / length)
	}
	return finite(out)
}

func finite(v []float32) ([]float32, error) {
	for _, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return nil, errNotFinite
		}
	}
	return v, nil
}
