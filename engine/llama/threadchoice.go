//go:build llama

package llama

import (
	"math/bits"
	"time"
)

const (
	sizeClasses    = 7 // 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64 and more tokens
	trialClasses   = 4 // larger steps last long; one on a single thread is tried only when something is wrong
	firstTrial     = 8 // steps before the other number of threads is tried
	mostSteps      = 4096
	choiceSmooth   = 0.25 // weight of the newest step
	strangeFactor  = 3    // a step this much slower than usual: somebody else wants the processors
	clearlyBetter  = 1.2
	patienceGrowth = 2
)

// threadChoice decides, for each step, between one thread and all of them by what steps of that size took lately. Threads that wait for
// each other spin: on a quiet machine all of them are faster, beside another busy process they are slower than one by a factor of ten
// and more. So it tries the other number now and then, less often the worse it was, and at once when a step is strangely slow.
type threadChoice struct {
	all     int
	classes [sizeClasses]classChoice
}

// classChoice is what is known of steps of one size.
type classChoice struct {
	cost     [2]float64 // ns a token with one thread, with all; 0: not tried
	steps    int        // since the last trial
	patience int        // steps until the next trial
	strange  bool       // the last step was; the other number is tried next, whatever the size
}

const (
	withOne = 0
	withAll = 1
)

func newThreadChoice(all int) *threadChoice {
	c := &threadChoice{all: all}
	for i := range c.classes {
		c.classes[i].patience = firstTrial
	}
	return c
}

func classOf(tokens int) int { return min(bits.Len(uint(tokens))-1, sizeClasses-1) }

// pick says how many threads the next step of so many tokens gets.
func (c *threadChoice) pick(tokens int) int {
	if c.all <= 1 || tokens < 1 {
		return max(c.all, 1)
	}
	class := classOf(tokens)
	k := &c.classes[class]
	use := k.best()
	k.steps++
	if k.strange || k.steps > k.patience && (class < trialClasses || k.cost[withOne] > 0) {
		use = 1 - use
		k.steps, k.strange = 0, false
	}
	if use == withOne {
		return 1
	}
	return c.all
}

// best is what took less; all threads while one alone wasn't tried.
func (k *classChoice) best() int {
	if k.cost[withOne] > 0 && (k.cost[withAll] == 0 || k.cost[withOne] < k.cost[withAll]) {
		return withOne
	}
	return withAll
}

// took takes in what a step took with the threads that pick gave.
func (c *threadChoice) took(tokens, threads int, d time.Duration) {
	if c.all <= 1 || tokens < 1 {
		return
	}
	k := &c.classes[classOf(tokens)]
	used := withAll
	if threads == 1 {
		used = withOne
	}
	before, ns := k.best(), float64(d)/float64(tokens)
	old := k.cost[used]
	if old == 0 || used != before { // a trial: what it took long ago says nothing now
		k.cost[used] = ns
	} else {
		k.cost[used] += choiceSmooth * (ns - old)
	}
	switch {
	case used == before && old > 0 && ns > strangeFactor*old:
		k.cost[used], k.strange, k.patience = ns, true, firstTrial // what steps took in quieter times says nothing now
		k.cost[1-used] = 0
	case used != before: // a trial
		if k.best() == before && k.cost[used] > clearlyBetter*k.cost[before] {
			k.patience = min(k.patience*patienceGrowth, mostSteps)
		} else {
			k.patience = firstTrial * patienceGrowth
		}
	}
}
