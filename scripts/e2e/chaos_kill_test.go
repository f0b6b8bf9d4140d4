package e2e

import (
	"cmp"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
	"time"
)

// killScheduler kills engines at random moments: just after their start, some time after answers went on, or when only
// the end of an answer is missing.
type killScheduler struct {
	chaos                 *chaosTest
	random                *rand.Rand
	lastPID               int // process id that was killed last
	eventsAtLastKill      int64
	mode                  killMode
	killAt                time.Time
	consecutiveEarlyKills int // of engines that had just started
	kills                 int
}

type killMode uint8

const (
	killModeUndecided killMode = iota
	killAtRandom
	killAfterStart
	killBeforeAnswerEnds
)

// target returns the process id of an engine that may be killed now: one that wasn't killed yet, while there are
// requests. Otherwise it returns 0.
func (k *killScheduler) target() int {
	if pid := k.chaos.server.enginePID(); pid != k.lastPID && k.chaos.inFlight.Load() > 0 {
		return pid
	}
	return 0
}

// tick is called every few milliseconds and kills when it is time.
func (k *killScheduler) tick(now time.Time) {
	pid := k.target()
	if pid == 0 {
		return
	}
	if k.mode == killModeUndecided {
		k.chooseMode(now)
	}
	// answers go on
	if k.mode == killAtRandom && k.killAt.IsZero() && k.chaos.eventCount.Load() >= k.eventsAtLastKill+20 {
		k.killAt = now.Add(time.Duration(k.random.IntN(600)) * time.Millisecond)
	}
	if !k.killAt.IsZero() && now.After(k.killAt) {
		k.kill(pid)
	}
}

func (k *killScheduler) chooseMode(now time.Time) {
	switch n := k.random.IntN(6); {
	case n == 0 && k.consecutiveEarlyKills < 2:
		k.mode = killAfterStart
		k.consecutiveEarlyKills++
		// ms: before its hello, or while it loads the model and computes prompts
		within := []int{20, 200}[k.random.IntN(2)]
		k.killAt = now.Add(time.Duration(k.random.IntN(within)) * time.Millisecond)
		return
	case n < 4:
		k.mode = killBeforeAnswerEnds
	default:
		k.mode = killAtRandom
	}
	k.consecutiveEarlyKills = 0
}

// answerAlmostDone is called when some client has the whole text of an answer but not its last event.
func (k *killScheduler) answerAlmostDone() {
	if k.mode != killBeforeAnswerEnds || k.chaos.eventCount.Load() < k.eventsAtLastKill+20 {
		return
	}
	if pid := k.target(); pid != 0 {
		k.kill(pid)
	}
}

func (k *killScheduler) kill(pid int) {
	if syscall.Kill(pid, syscall.SIGKILL) == nil {
		k.kills++
	}
	k.lastPID, k.mode, k.killAt, k.eventsAtLastKill = pid, killModeUndecided, time.Time{}, k.chaos.eventCount.Load()
}

// runWithKills kills engines while clients ask, until there were enough requests and enough kills.
func (c *chaosTest) runWithKills(limit time.Duration) (kills int, usage []resourceUsage) {
	finish := c.startClients()
	defer finish()
	k := &killScheduler{chaos: c, random: rand.New(rand.NewPCG(7, 7))}
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(5 * time.Millisecond) // for kills at random times
	defer tick.Stop()
	var sampled time.Time
	for k.kills < c.minKills || int(c.requestCount.Load()) < c.minRequests {
		var now time.Time
		select {
		case <-c.almostDone:
			if k.kills < c.minKills {
				k.answerAlmostDone()
			}
			continue
		case now = <-tick.C:
		}
		if now.After(deadline) {
			c.fail("after %v only %d of %d kills and %d of %d requests", limit, k.kills, c.minKills, c.requestCount.Load(), c.minRequests)
			break
		}
		if k.kills < c.minKills {
			k.tick(now)
		}
		if now.Sub(sampled) > time.Second {
			sampled = now
			usage = append(usage, c.server.resourceUsage())
		}
	}
	return k.kills, usage
}

// TestNoRequestIsLostWhenTheEngineIsKilled kills the engine with SIGKILL at random moments under load. CHAOS_KILLS,
// CHAOS_REQUESTS and CHAOS_CLIENTS make it longer; scripts/chaos.sh sets them.
func TestNoRequestIsLostWhenTheEngineIsKilled(t *testing.T) {
	t.Parallel()
	long, delay := os.Getenv("CHAOS_KILLS") != "", "STEP_DELAY=5ms"
	if long {
		delay = "STEP_DELAY=10ms" // answers last a second or more
	}
	s := startDebugServer(t, delay, "REQUEST_TIMEOUT=600s", "REPLAY="+cmp.Or(os.Getenv("CHAOS_REPLAY"), "prefill"))
	s.client.Timeout = 10 * time.Minute
	c := newChaosTest(s)
	c.long, c.minRequests = long, envNumber("CHAOS_REQUESTS", 60)
	c.minKills, c.clientCount = envNumber("CHAOS_KILLS", 5), envNumber("CHAOS_CLIENTS", 24)
	c.requests = s.recordGoldenRequests()
	if c.long {
		c.runWithoutKills()
	}
	before := s.scrape()
	c.requestCount.Store(0)
	start := time.Now()
	kills, usage := c.runWithKills(time.Duration(60+4*c.minKills+c.minRequests) * time.Second)
	explained := c.checkChangedAnswers()
	for i, f := range c.failures {
		if i < 20 {
			t.Error(f)
		}
	}
	scraped := s.waitIdle()
	checkInvariants(t, scraped)
	t.Logf("%d requests of %d clients in %v, %d kills, %d answers that differ or failed, %d more that differ where the margin is below the bound",
		c.requestCount.Load(), c.clientCount, time.Since(start).Round(time.Second), kills, len(c.failures), explained)
	c.checkCounters(scraped, before.sum("successful_inferences_total"))
	c.checkMarginShift()
	c.checkGrowth(usage)
	c.checkCoverage(scraped, kills)
}
