//go:build llama

package llama

import (
	"testing"
	"time"
)

// stepCost is how long a step takes with this many threads.
type stepCost func(tokens, threads int) time.Duration

var (
	quiet     stepCost = func(tokens, threads int) time.Duration { return time.Duration(tokens*1000/threads) + 50 }
	contended stepCost = func(tokens, threads int) time.Duration {
		if threads > 1 {
			return time.Duration(tokens * 12_000)
		}
		return time.Duration(tokens * 1300)
	}
	// Waking the second thread costs more time than it saves.
	costlyWait stepCost = func(tokens, threads int) time.Duration {
		return time.Duration(tokens*1000/threads) + time.Duration(threads-1)*2000
	}
)

// simulate runs steps and returns which share of the last half used all threads, and how much more time they took than
// with the better number of threads.
func (c *threadChoice) simulate(cost stepCost, tokens, steps int) (allShare, overhead float64) {
	var took, best time.Duration
	all := 0
	for i := range steps {
		threads := c.pick(tokens)
		d := cost(tokens, threads)
		c.record(tokens, threads, d)
		if i >= steps/2 {
			took += d
			best += min(cost(tokens, 1), cost(tokens, c.all))
			if threads > 1 {
				all++
			}
		}
	}
	return float64(all) / float64(steps-steps/2), float64(took)/float64(best) - 1
}

func TestThreadsFollowTheMachine(t *testing.T) {
	for name, c := range map[string]struct {
		cost    stepCost
		tokens  int
		wantAll bool
	}{
		"quiet, one token":                      {quiet, 1, true},
		"quiet, many":                           {quiet, 32, true},
		"quiet, a prompt":                       {quiet, 512, true},
		"beside a busy process, one token":      {contended, 1, false},
		"beside a busy process, eight":          {contended, 8, false},
		"waiting costs more, one token":         {costlyWait, 1, false},
		"waiting costs more, many tokens don't": {costlyWait, 32, true},
	} {
		t.Run(name, func(t *testing.T) {
			share, overhead := newThreadChoice(2).simulate(c.cost, c.tokens, 4000)
			if (share > 0.5) != c.wantAll {
				t.Errorf("%.0f %% of the steps used all threads", 100*share)
			}
			if overhead > 0.05 {
				t.Errorf("steps took %.1f %% more than the best choice", 100*overhead)
			}
		})
	}
}

func TestThreadsAdaptWhenTheMachineChanges(t *testing.T) {
	for _, tokens := range []int{1, 8, 64, 512} {
		c := newThreadChoice(2)
		c.simulate(quiet, tokens, 2000)
		if share, _ := c.simulate(contended, tokens, 100); share > 0.1 {
			t.Errorf("%d tokens: %.0f %% of the steps still use all threads 50 steps after a neighbour came", tokens, 100*share)
		}
		if share, _ := c.simulate(quiet, tokens, 20_000); share < 0.9 {
			t.Errorf("%d tokens: only %.0f %% of the steps use all threads long after it left", tokens, 100*share)
		}
	}
}

// A single slow step, as when the machine was held up, changes the choice for a few steps only.
func TestAHiccupDoesNotChangeTheChoiceForLong(t *testing.T) {
	for _, tokens := range []int{1, 8, 64} {
		c := newThreadChoice(2)
		c.simulate(quiet, tokens, 2000)
		c.record(tokens, c.pick(tokens), 20*quiet(tokens, 2))
		single := 0
		for range 30 {
			threads := c.pick(tokens)
			c.record(tokens, threads, quiet(tokens, threads))
			if threads == 1 {
				single++
			}
		}
		if single > 5 {
			t.Errorf("%d tokens: %d of the 30 steps after a hiccup used one thread", tokens, single)
		}
	}
}

func TestOneThreadHasNoChoice(t *testing.T) {
	c := newThreadChoice(1)
	for range 100 {
		if n := c.pick(1); n != 1 {
			t.Fatalf("%d threads of one", n)
		}
		c.record(1, 1, time.Millisecond)
	}
}
