package e2e

import (
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
	"testing"
	"time"
)

// chaosTest is a run of many clients against a server whose engines are disturbed. Each answer is compared with the
// undisturbed one, which was recorded before.
type chaosTest struct {
	server   *testServer
	requests []*goldenRequest
	long     bool // as make chaos runs it; what has to be covered is asserted then

	minRequests, minKills, clientCount int

	requestCount atomic.Int64
	inFlight     atomic.Int64
	eventCount   atomic.Int64  // of all streams; shows that answers go on
	almostDone   chan struct{} // holds one: some stream has its text and lacks its last event

	mu               sync.Mutex
	failures         []string
	changedAnswers   []changedAnswer
	unchangedAnswers map[string]*goldenRequest // by request id
	streams          map[string]streamRecord   // by request id
}

// streamRecord is what was measured of one stream.
type streamRecord struct {
	request    *goldenRequest
	longestGap time.Duration // between two events
}

func newChaosTest(s *testServer) *chaosTest {
	return &chaosTest{
		server: s, almostDone: make(chan struct{}, 1), streams: make(map[string]streamRecord),
		unchangedAnswers: make(map[string]*goldenRequest),
	}
}

// envNumber returns the number in an environment variable, or otherwise where there is none.
func envNumber(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

func (c *chaosTest) fail(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures = append(c.failures, fmt.Sprintf(format, args...))
}

func (c *chaosTest) reportFailures() {
	c.server.t.Helper()
	for _, f := range c.failures {
		c.server.t.Error(f)
	}
}

// sendOne sends one request, streamed or not, and compares its answer with the undisturbed one.
func (c *chaosTest) sendOne(index int, streamed bool) {
	g := c.requests[index]
	id := fmt.Sprintf("chaos-%d-%d", index, c.requestCount.Add(1))
	body := maps.Clone(g.body)
	if streamed {
		body["stream"] = true
	}
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	if streamed {
		c.sendStream(g, id, string(raw))
		return
	}
	a, err := c.server.infer(c.server.t.Context(), string(raw), "X-Request-Id", id)
	switch {
	case err != nil:
		c.fail("%s %s: %v", g.name, id, err)
	case a.Status != 200:
		c.fail("%s %s: %d %s", g.name, id, a.Status, a.Body)
	case a.Result != g.answer || a.Metadata.Tokens != g.tokens:
		c.recordChanged(changedAnswer{g, id, a.Result, a.Metadata.Tokens})
	default:
		c.recordUnchanged(g, id)
	}
}

func (c *chaosTest) sendStream(g *goldenRequest, id, body string) {
	var text strings.Builder
	var last answer
	var before time.Time
	var gap time.Duration
	_, err := c.server.stream(c.server.t.Context(), body, func(e event) bool {
		c.eventCount.Add(1)
		now := time.Now()
		if !before.IsZero() {
			gap = max(gap, now.Sub(before))
		}
		before = now
		if e.name != "" {
			c.fail("%s %s: event %s: %s", g.name, id, e.name, e.data)
		}
		last = answer{}
		if json.Unmarshal([]byte(e.data), &last) != nil {
			c.fail("%s %s: event %q", g.name, id, e.data)
		}
		piece := textOf(e)
		if text.WriteString(piece); piece != "" && text.String() == g.answer {
			select {
			case c.almostDone <- struct{}{}:
			default:
			}
		}
		return true
	}, "X-Request-Id", id)
	if err != nil {
		c.fail("%s %s, streamed: %v", g.name, id, err)
		return
	}
	if text.String() != last.Result {
		c.fail("%s %s: streamed %q, last event %q", g.name, id, text.String(), last.Result)
	}
	if last.Result != g.answer || last.Metadata.Tokens != g.tokens {
		c.recordChanged(changedAnswer{g, id, last.Result, last.Metadata.Tokens})
	} else {
		c.recordUnchanged(g, id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streams[id] = streamRecord{g, gap}
}

// startClients starts the clients; finish lets each of them end its request and waits for that.
func (c *chaosTest) startClients() (finish func()) {
	noMore, wait := c.startStoppableClients()
	return func() { noMore(); wait() }
}

// startStoppableClients starts the clients. After noMore none of them sends another request, and inFlight holds those
// that were sent or are about to be; wait waits for their answers.
func (c *chaosTest) startStoppableClients() (noMore, wait func()) {
	enough := make(chan struct{})
	var clients sync.WaitGroup
	for i := range c.clientCount {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 99))
			for c.sendOneUnless(enough, random.IntN(len(c.requests)), random.IntN(2) == 0) {
			}
		})
	}
	return func() { close(enough) }, clients.Wait
}

// sendOneUnless sends a request and returns true, unless there were enough. It is in flight before it looks: who has
// seen that there were enough knows of all that are sent.
func (c *chaosTest) sendOneUnless(enough <-chan struct{}, index int, streamed bool) bool {
	c.inFlight.Add(1)
	defer c.inFlight.Add(-1)
	select {
	case <-enough:
		return false
	default:
	}
	c.sendOne(index, streamed)
	return true
}

// startDebugServer is startServer with a proxy that logs at level debug: every replay and every close call.
func startDebugServer(t *testing.T, settings ...string) *testServer {
	t.Helper()
	s := newServer(t, settings...)
	s.proxy = startProcess(t, "proxy", binaries.proxy, append(slices.Clone(s.env), "LOG_LEVEL=debug"), "serve")
	s.startEngine()
	s.waitReady(failureLimit)
	return s
}

// runWithoutKills runs the same load without kills: an answer that differs here differs for another reason.
func (c *chaosTest) runWithoutKills() {
	finish := c.startClients()
	c.server.waitFor(10*time.Minute, "an undisturbed load", func() bool { return int(c.requestCount.Load()) >= c.minRequests/5 })
	finish()
	c.checkChangedAnswers()
	c.server.t.Logf("%d requests without kills, %d answers that differ or failed", c.requestCount.Load(), len(c.failures))
}

// checkCounters compares the metrics with what the clients saw; others is how many answers other clients got.
func (c *chaosTest) checkCounters(scraped metrics, others float64) {
	t := c.server.t
	t.Helper()
	if n := scraped.sum("llm_requests_quarantined_total"); n != 0 {
		t.Errorf("%v innocent requests were quarantined", n)
	}
	if got, want := scraped.sum("successful_inferences_total")-others, float64(c.requestCount.Load()); got != want {
		t.Errorf("%v successes counted, %v answers", got, want)
	}
	if n := scraped.sum("failed_inferences_total"); n != 0 {
		t.Errorf("%v inferences failed", n)
	}
}
