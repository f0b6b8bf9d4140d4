package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// chaos is a run of many clients against an engine that keeps dying.
type chaos struct {
	s     *stack
	plans []*chaosPlan
	long  bool // as make chaos runs it: what must be covered is asserted

	requests, kills, clients int

	asked    atomic.Int64
	inFlight atomic.Int64
	events   atomic.Int64  // of streams, a sign that answers go on
	ripe     chan struct{} // a place for one: a stream only lacks its end

	mu      sync.Mutex
	faults  []string
	changed []changedAnswer
	equal   map[string]*chaosPlan // answers that are the undisturbed one, by request id
	streams map[string]stream     // by request id
}

// stream is what was seen of one.
type stream struct {
	plan *chaosPlan
	gap  time.Duration // the longest one between two events
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

func (c *chaos) fault(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

// once asks one request, streamed or not, and compares what came with the undisturbed answer.
func (c *chaos) once(plan int, streamed bool) {
	c.inFlight.Add(1)
	defer c.inFlight.Add(-1)
	p := c.plans[plan]
	id := fmt.Sprintf("chaos-%d-%d", plan, c.asked.Add(1))
	body := maps.Clone(p.body)
	if streamed {
		body["stream"] = true
	}
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	if streamed {
		c.streamed(p, id, string(raw))
		return
	}
	a, err := c.s.infer(c.s.t.Context(), string(raw), "X-Request-Id", id)
	switch {
	case err != nil:
		c.fault("%s %s: %v", p.name, id, err)
	case a.Status != 200:
		c.fault("%s %s: %d %s", p.name, id, a.Status, a.Body)
	case a.Result != p.answer || a.Metadata.Tokens != p.tokens:
		c.differs(changedAnswer{p, id, a.Result, a.Metadata.Tokens})
	default:
		c.same(p, id)
	}
}

func (c *chaos) streamed(p *chaosPlan, id, body string) {
	var text strings.Builder
	var last answer
	var before time.Time
	var gap time.Duration
	_, err := c.s.stream(c.s.t.Context(), body, func(e event) bool {
		c.events.Add(1)
		now := time.Now()
		if !before.IsZero() {
			gap = max(gap, now.Sub(before))
		}
		before = now
		if e.name != "" {
			c.fault("%s %s: event %s: %s", p.name, id, e.name, e.data)
		}
		last = answer{}
		if json.Unmarshal([]byte(e.data), &last) != nil {
			c.fault("%s %s: event %q", p.name, id, e.data)
		}
		piece := pieceOf(e)
		if text.WriteString(piece); piece != "" && text.String() == p.answer {
			select {
			case c.ripe <- struct{}{}:
			default:
			}
		}
		return true
	}, "X-Request-Id", id)
	if err != nil {
		c.fault("%s %s, streamed: %v", p.name, id, err)
		return
	}
	if text.String() != last.Result {
		c.fault("%s %s: streamed %q, last event %q", p.name, id, text.String(), last.Result)
	}
	if last.Result != p.answer || last.Metadata.Tokens != p.tokens {
		c.differs(changedAnswer{p, id, last.Result, last.Metadata.Tokens})
	} else {
		c.same(p, id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams[id] = stream{p, gap}
}

// keepAsking starts the clients; the function it returns lets them finish what they have in hand.
func (c *chaos) keepAsking() (finish func()) {
	enough := make(chan struct{})
	var clients sync.WaitGroup
	for i := range c.clients {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 99))
			for {
				select {
				case <-enough:
					return
				default:
				}
				c.once(random.IntN(len(c.plans)), random.IntN(2) == 0)
			}
		})
	}
	return func() { close(enough); clients.Wait() }
}

// killer kills engines at random moments: just after their start, some time after answers went on, or when the end of an answer is due.
type killer struct {
	c      *chaos
	random *rand.Rand
	last   int   // pid killed last
	events int64 // at that time
	mode   killMode
	due    time.Time
	early  int // kills in a row of engines that had hardly started
	kills  int
}

type killMode uint8

const (
	undecided killMode = iota
	atRandom
	atStart
	atTheEnd // of some answer
)

// victim is the engine that may be killed now: one that wasn't yet, while there is work.
func (k *killer) victim() int {
	if pid := k.c.s.servingPID(); pid != k.last && k.c.inFlight.Load() > 0 {
		return pid
	}
	return 0
}

// step is called again and again; it kills when the moment has come.
func (k *killer) step(now time.Time) {
	pid := k.victim()
	if pid == 0 {
		return
	}
	if k.mode == undecided {
		k.choose(now)
	}
	if k.mode == atRandom && k.due.IsZero() && k.c.events.Load() >= k.events+20 { // answers go on
		k.due = now.Add(time.Duration(k.random.IntN(600)) * time.Millisecond)
	}
	if !k.due.IsZero() && now.After(k.due) {
		k.kill(pid)
	}
}

func (k *killer) choose(now time.Time) {
	switch n := k.random.IntN(6); {
	case n == 0 && k.early < 2:
		k.mode = atStart
		k.early++
		within := []int{20, 200}[k.random.IntN(2)] // before its hello; or while it loads and takes prompts in
		k.due = now.Add(time.Duration(k.random.IntN(within)) * time.Millisecond)
		return
	case n < 4:
		k.mode = atTheEnd
	default:
		k.mode = atRandom
	}
	k.early = 0
}

// ripe is called when all text of some answer has come and its end hasn't.
func (k *killer) ripe() {
	if k.mode != atTheEnd || k.c.events.Load() < k.events+20 {
		return
	}
	if pid := k.victim(); pid != 0 {
		k.kill(pid)
	}
}

func (k *killer) kill(pid int) {
	if syscall.Kill(pid, syscall.SIGKILL) == nil {
		k.kills++
	}
	k.last, k.mode, k.due, k.events = pid, undecided, time.Time{}, k.c.events.Load()
}

// run keeps clients busy while the killer is at work; it ends when enough was asked and enough was killed.
func (c *chaos) run(limit time.Duration) (kills int, sizes []size) {
	finish := c.keepAsking()
	defer finish()
	k := &killer{c: c, random: rand.New(rand.NewPCG(7, 7))}
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(5 * time.Millisecond) // the load has no moment of its own to wait for
	defer tick.Stop()
	var sampled time.Time
	for k.kills < c.kills || int(c.asked.Load()) < c.requests {
		var now time.Time
		select {
		case <-c.ripe:
			if k.kills < c.kills {
				k.ripe()
			}
			continue
		case now = <-tick.C:
		}
		if now.After(deadline) {
			c.fault("after %v only %d of %d kills and %d of %d requests", limit, k.kills, c.kills, c.asked.Load(), c.requests)
			break
		}
		if k.kills < c.kills {
			k.step(now)
		}
		if now.Sub(sampled) > time.Second {
			sampled = now
			sizes = append(sizes, c.s.size())
		}
	}
	return k.kills, sizes
}

// TestNoRequestIsLostWhenTheEngineIsKilled kills the engine with SIGKILL at random moments under load. CHAOS_KILLS, CHAOS_REQUESTS and
// CHAOS_CLIENTS make it longer; scripts/chaos.sh sets them.
func TestNoRequestIsLostWhenTheEngineIsKilled(t *testing.T) {
	t.Parallel()
	long, delay := os.Getenv("CHAOS_KILLS") != "", "STEP_DELAY=5ms"
	if long {
		delay = "STEP_DELAY=10ms" // answers last a second or more
	}
	s := newTalkative(t, delay, "REQUEST_TIMEOUT=600s", "REPLAY="+cmp.Or(os.Getenv("CHAOS_REPLAY"), "prefill"))
	s.clients.Timeout = 10 * time.Minute
	c := &chaos{s: s, ripe: make(chan struct{}, 1), streams: make(map[string]stream), long: long,
		requests: number("CHAOS_REQUESTS", 60), kills: number("CHAOS_KILLS", 5), clients: number("CHAOS_CLIENTS", 24)}
	c.plans = s.learn()
	if c.long {
		c.calm()
	}
	before := s.scrape()
	c.asked.Store(0)
	began := time.Now()
	kills, sizes := c.run(time.Duration(60+4*c.kills+c.requests) * time.Second)
	within := c.judge()
	for i, f := range c.faults {
		if i < 20 {
			t.Error(f)
		}
	}
	p := s.waitIdle()
	checkInvariants(t, p)
	t.Logf("%d requests of %d clients in %v, %d kills, %d answers that differ or failed, %d more that differ where the margin is below the bound",
		c.asked.Load(), c.clients, time.Since(began).Round(time.Second), kills, len(c.faults), within)
	c.checkCounters(p, before.sum("successful_inferences_total"))
	c.noise()
	c.checkGrowth(sizes)
	c.checkCoverage(p, kills)
}

// newTalkative is newStack with a proxy that logs every replay.
func newTalkative(t *testing.T, settings ...string) *stack {
	t.Helper()
	s := prepareStack(t, settings...)
	s.proxy = start(t, "proxy", programs.proxy, append(slices.Clone(s.env), "LOG_LEVEL=debug"), "serve")
	s.startEngine()
	s.waitReady(60 * time.Second)
	return s
}

// calm is the same load without kills: what differs here differs for another reason.
func (c *chaos) calm() {
	finish := c.keepAsking()
	c.s.waitFor(10*time.Minute, "an undisturbed load", func() bool { return int(c.asked.Load()) >= c.requests/5 })
	finish()
	c.judge()
	c.s.t.Logf("%d requests without kills, %d answers that differ or failed", c.asked.Load(), len(c.faults))
}

// checkCounters compares the page with what clients saw; other answers were given besides.
func (c *chaos) checkCounters(p page, others float64) {
	t := c.s.t
	t.Helper()
	if n := p.sum("llm_requests_quarantined_total"); n != 0 {
		t.Errorf("%v innocent requests were quarantined", n)
	}
	if got, want := p.sum("successful_inferences_total")-others, float64(c.asked.Load()); got != want {
		t.Errorf("%v successes counted, %v answers", got, want)
	}
	if n := p.sum("failed_inferences_total"); n != 0 {
		t.Errorf("%v inferences failed", n)
	}
}
