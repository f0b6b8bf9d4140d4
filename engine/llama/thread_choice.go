//go:build llama

package llama

import (
	"math/bits"
	"time"
)

const (
	sizeClasses        = 7 // 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64 and more tokens
	trialClasses       = 4 // larger steps last long; one on a single thread is tried only when something is wrong
	firstTrialInterval = 8 // steps before the other number of threads is tried
	maxTrialInterval   = 4096
	// After an unusually slow step the trial comes sooner: it may have been a hiccup.
	hiccupTrialInterval = 2
	newestWeight        = 0.25 // weight of the newest step
	// A step is unusually slow at this multiple of the usual time: another process uses the processors.
	slowFactor          = 3
	clearlyBetter       = 1.2
	trialIntervalGrowth = 2
)

// threadChoice decides, for each step, between one thread and all of them by how long steps of that size took lately.
// Threads that wait for each other spin: on a quiet machine all of them are faster, beside another busy process they
// are slower than one by a factor of ten and more. So it tries the other number now and then, less often the worse it
// was, and at once when a step is unusually slow.
type threadChoice struct {
	all     int
	classes [sizeClasses]classChoice
}

// classChoice is what is known of steps of one size class.
type classChoice struct {
	cost          [2]float64 // ns a token with one thread, with all; 0: not tried
	steps         int        // since the last trial
	trialInterval int        // steps until the next trial
	wasSlow       bool       // the last step was unusually slow; the other number is tried next, whatever the size
}

const (
	oneThread  = 0
	allThreads = 1
)

func newThreadChoice(all int) *threadChoice {
	c := &threadChoice{all: all}
	for i := range c.classes {
		c.classes[i].trialInterval = firstTrialInterval
	}
	return c
}

func classOf(tokens int) int { return min(bits.Len(uint(tokens))-1, sizeClasses-1) }

// pick returns how many threads the next step of this many tokens gets.
func (c *threadChoice) pick(tokens int) int {
	if c.all <= 1 || tokens < 1 {
		return max(c.all, 1)
	}
	class := classOf(tokens)
	k := &c.classes[class]
	use := k.best()
	k.steps++
	if k.wasSlow || k.steps > k.trialInterval && (class < trialClasses || k.cost[oneThread] > 0) {
		use = 1 - use
		k.steps, k.wasSlow = 0, false
	}
	if use == oneThread {
		return 1
	}
	return c.all
}

// afterTrial sets when the next trial comes.
func (k *classChoice) afterTrial(used int) {
	better := k.best() == used
	switch {
	case better && k.trialInterval == hiccupTrialInterval && used == oneThread: // all threads again in two steps
	case !better && k.cost[used] > clearlyBetter*k.cost[1-used]:
		k.trialInterval = min(k.trialInterval*trialIntervalGrowth, maxTrialInterval)
	default:
		k.trialInterval = firstTrialInterval * trialIntervalGrowth
	}
}

// best is the choice that took less time; all threads while one alone wasn't tried.
func (k *classChoice) best() int {
	if k.cost[oneThread] > 0 && (k.cost[allThreads] == 0 || k.cost[oneThread] < k.cost[allThreads]) {
		return oneThread
	}
	return allThreads
}

// record records how long a step took with the threads that pick returned.
func (c *threadChoice) record(tokens, threads int, d time.Duration) {
	if c.all <= 1 || tokens < 1 {
		return
	}
	k := &c.classes[classOf(tokens)]
	used := allThreads
	if threads == 1 {
		used = oneThread
	}
	before, ns := k.best(), float64(d)/float64(tokens)
	old := k.cost[used]
	if old == 0 || used != before { // a trial: old costs say nothing now
		k.cost[used] = ns
	} else {
		k.cost[used] += newestWeight * (ns - old)
	}
	switch {
	case used == before && old > 0 && ns > slowFactor*old:
		// Costs from quieter times say nothing now.
		k.cost[used], k.wasSlow, k.trialInterval = ns, true, hiccupTrialInterval
		k.cost[1-used] = 0
	case used != before: // a trial
		k.afterTrial(used)
	}
}
