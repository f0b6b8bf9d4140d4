//go:build llama

package llama

import (
	"testing"
	"time"
)

// machine prices a step: how long it takes with so many threads.
type machine func(tokens, threads int) time.Duration

var (
	quiet     machine = func(tokens, threads int) time.Duration { return time.Duration(tokens*1000/threads) + 50 }
	contended machine = func(tokens, threads int) time.Duration {
		if threads > 1 {
			return time.Duration(tokens * 12_000)
		}
		return time.Duration(tokens * 1300)
	}
	costlyWait machine = func(tokens, threads int) time.Duration { // waking the second thread costs more than it computes
		return time.Duration(tokens*1000/threads) + time.Duration(threads-1)*2000
	}
)

// drive runs steps and returns how many of the last half used all threads and the mean cost against the better number.
func (c *threadChoice) drive(m machine, tokens, steps int) (allShare, overhead float64) {
	var took, best time.Duration
	all := 0
	for i := range steps {
		threads := c.pick(tokens)
		d := m(tokens, threads)
		c.took(tokens, threads, d)
		if i >= steps/2 {
			took += d
			best += min(m(tokens, 1), m(tokens, c.all))
			if threads > 1 {
				all++
			}
		}
	}
	return float64(all) / float64(steps-steps/2), float64(took)/float64(best) - 1
}

func TestThreadsFollowTheMachine(t *testing.T) {
	for name, c := range map[string]struct {
		m       machine
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
			share, overhead := newThreadChoice(2).drive(c.m, c.tokens, 4000)
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
		c.drive(quiet, tokens, 2000)
		if share, _ := c.drive(contended, tokens, 100); share > 0.1 {
			t.Errorf("%d tokens: %.0f %% of the steps still use all threads 50 steps after a neighbour came", tokens, 100*share)
		}
		if share, _ := c.drive(quiet, tokens, 20_000); share < 0.9 {
			t.Errorf("%d tokens: only %.0f %% of the steps use all threads long after it left", tokens, 100*share)
		}
	}
}

func TestOneThreadHasNoChoice(t *testing.T) {
	c := newThreadChoice(1)
	for range 100 {
		if n := c.pick(1); n != 1 {
			t.Fatalf("%d threads of one", n)
		}
		c.took(1, 1, time.Millisecond)
	}
}
