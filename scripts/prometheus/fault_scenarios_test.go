package prometheus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// scenario is one service, what goes wrong with it, and which alerts that must raise.
type scenario struct {
	name     string // of the job, after llm-inference
	settings []string
	store    bool // counts its rate limits in a store
	load     load // from the start
	// fault makes the service go wrong; clients that it starts must end with ctx. nil: the settings do that, or nothing
	// does.
	fault func(ctx context.Context, s *scrapedService) error

	mustFire []string // alerts that must fire
	mustPend []string // that must become pending and may fire: their "for" is longer than the test
	mayPend  []string // that may become pending but must not fire
	mayFire  []string // that may fire or not
}

var prompts = []string{"What is the capital of France?", "Please tell me something about the sea.", "One two three four five six seven."}

func ordinaryQuestion(n int) question {
	q := question{prompt: prompts[n%len(prompts)], version: []string{"v1.0", "v1.1"}[n%2], key: apiKey, stream: n%3 == 0}
	q.trace = fmt.Sprintf("00-%032x-%016x-01", n+1, n+1)
	return q
}

func questionsFor(version string) func(int) question {
	return func(n int) question {
		q := ordinaryQuestion(n)
		q.version = version
		return q
	}
}

// steadyLoad is ten requests a second, which a healthy service answers without effort.
var steadyLoad = load{clients: 2, pause: 200 * time.Millisecond, ask: ordinaryQuestion}

// burnRateAlerts are the alerts of an error budget: those of short windows fire, those of long windows have no time to.
func burnRateAlerts(name string) (fires, pends []string) {
	return []string{name + " 1h", name + " 6h"}, []string{name + " 1d", name + " 3d"}
}

var (
	errorsFire, errorsPend = burnRateAlerts("LLMAvailabilityBudgetBurn")
	p95Fire, p95Pend       = burnRateAlerts("LLMLatencyP95BudgetBurn")
	p99Fire, p99Pend       = burnRateAlerts("LLMLatencyP99BudgetBurn")
)

var scenarios = []scenario{
	{name: "", load: steadyLoad},
	{name: "-slow", settings: []string{"MOCK_TOKEN_DELAY=300ms", "STEP_TARGET=1s"},
		fault: func(ctx context.Context, s *scrapedService) error {
			s.startClients(ctx, load{clients: 32, pause: 100 * time.Millisecond, ask: ordinaryQuestion})
			return nil
		},
		mustFire: slices.Concat([]string{"HighResponseTime", "LLMMeanResponseTimeHigh", "LLMInterTokenLatencyHigh", "LLMTimeToFirstTokenHigh"}, p95Fire, p99Fire),
		// a request that waits for a load counts as a miss
		mustPend: slices.Concat(p95Pend, p99Pend), mayPend: []string{"LLMModelCacheHitRateLow"}},
	{name: "-down", settings: []string{"ENGINE_WAIT=20ms"}, load: steadyLoad,
		fault:    func(_ context.Context, s *scrapedService) error { stop(s.t, s.engine); return nil },
		mustFire: slices.Concat([]string{"LLMEngineDown", "HighErrorRate", "LLMRejectionRateHigh"}, errorsFire),
		mustPend: errorsPend},
	{name: "-queue", settings: []string{"MOCK_TOKEN_DELAY=40ms", "PARALLEL=1", "QUEUE_CAPACITY=8"},
		fault: func(ctx context.Context, s *scrapedService) error {
			s.startClients(ctx, load{clients: 24, pause: 250 * time.Millisecond, ask: questionsFor("v1.0")})
			return nil
		},
		mustFire: slices.Concat([]string{"LLMQueueSaturated", "LLMRejectionRateHigh", "HighErrorRate", "LLMThroughputBelowCapacity",
			"LLMTokenThroughputBelowCapacity", "HighResponseTime", "LLMMeanResponseTimeHigh", "LLMTimeToFirstTokenHigh"}, errorsFire, p95Fire, p99Fire),
		// 40 of 100 ms, on a busy machine more
		mustPend: slices.Concat(errorsPend, p95Pend, p99Pend), mayPend: []string{"LLMInterTokenLatencyHigh"}},
	{name: "-load", settings: []string{"MOCK_FAIL_LOAD=demo@v2.0"}, load: steadyLoad,
		fault: func(ctx context.Context, s *scrapedService) error {
			q := ordinaryQuestion(0)
			q.version = "v2.0"
			if got := s.ask(ctx, q); got != "404 Not Found" { // model_broken
				return fmt.Errorf("a model that can't be loaded was answered with %s", got)
			}
			return nil
		},
		mustFire: []string{"ModelLoadingFailures"}},
	{name: "-crash", load: steadyLoad, fault: crashEngine, mustFire: []string{"LLMEngineRestarting"}, mayPend: []string{"LLMEngineDown"}},
	{name: "-poison", settings: []string{"MOCK_ABORT_MARKER=poison"}, load: steadyLoad,
		fault: func(ctx context.Context, s *scrapedService) error {
			if got := s.ask(ctx, question{prompt: "say please to the poison", version: "v1.0", key: apiKey}); got != "422 Unprocessable Entity" {
				return fmt.Errorf("a request that kills engines was answered with %s", got)
			}
			return nil
		},
		mustFire: []string{"LLMRequestsQuarantined"}, mayPend: []string{"LLMEngineDown"},
		// three crashes raise it; how many it takes to find the request depends on the others that were running
		mayFire: []string{"LLMEngineRestarting"}},
	{name: "-keys", load: steadyLoad,
		fault: func(ctx context.Context, s *scrapedService) error {
			s.startClients(ctx, load{clients: 2, pause: 300 * time.Millisecond, ask: func(n int) question {
				q := ordinaryQuestion(n)
				q.key = "no such key"
				return q
			}})
			return nil
		},
		mustFire: []string{"LLMAuthFailuresHigh"}},
	{name: "-reload", load: steadyLoad,
		fault: func(_ context.Context, s *scrapedService) error {
			return os.WriteFile(s.keyFile(), []byte("keys: [this is no key file\n"), 0o644)
		},
		mustFire: []string{"LLMKeyReloadFailing"}},
	{name: "-store", store: true, settings: []string{"RATE_LIMIT=1000/second"}, load: steadyLoad,
		fault:    func(_ context.Context, s *scrapedService) error { s.store.Close(); return nil },
		mustFire: []string{"LLMRateLimitStoreDown"}},
	{name: "-cache", settings: []string{"CACHE_SIZE=1"},
		fault: func(ctx context.Context, s *scrapedService) error {
			s.startClients(ctx, load{clients: 1, pause: 100 * time.Millisecond, ask: ordinaryQuestion})
			return nil
		},
		mustFire: []string{"LLMModelCacheHitRateLow"}},
	{name: "-memory", settings: []string{"MOCK_MEMORY_USED=0.97"}, load: steadyLoad, mustFire: []string{"LLMMemoryHigh", "LLMMemoryCritical"}},
	// no answer is in time
	{name: "-failing", settings: []string{"MOCK_TOKEN_DELAY=300ms", "STEP_TARGET=1s", "REQUEST_TIMEOUT=200ms"}, load: steadyLoad,
		mustFire: slices.Concat([]string{"LLMModelFailing", "HighErrorRate"}, errorsFire), mustPend: errorsPend,
		mayFire: slices.Concat([]string{"LLMThroughputBelowCapacity", "LLMTokenThroughputBelowCapacity", "LLMRejectionRateHigh", "LLMModelCacheHitRateLow", "LLMInterTokenLatencyHigh", "LLMTimeToFirstTokenHigh", "LLMMeanResponseTimeHigh", "HighResponseTime"},
			p95Fire, p95Pend, p99Fire, p99Pend)},
	{name: "-stale", settings: []string{"ENGINE_STALL_TIMEOUT=10m"}, fault: freezeEngine, mustFire: []string{"LLMEngineMetricsStale"}},
	{name: "-cells", settings: []string{"CONTEXT=128", "PARALLEL=1", "MOCK_TOKEN_DELAY=4800ms", "STEP_TARGET=10s"},
		fault: func(ctx context.Context, s *scrapedService) error {
			s.startClients(ctx, load{clients: 1, ask: longQuestion})
			return nil
		},
		mustFire: []string{"LLMKVCacheNearlyFull"},
		mayFire: slices.Concat([]string{"HighResponseTime", "LLMMeanResponseTimeHigh", "LLMInterTokenLatencyHigh", "LLMTimeToFirstTokenHigh", "LLMThroughputBelowCapacity",
			// its tokens are slow, so that the cells stay full
			"LLMTokenThroughputBelowCapacity"}, p95Fire, p95Pend, p99Fire, p99Pend)},
	{name: "-gone", load: steadyLoad,
		fault:    func(_ context.Context, s *scrapedService) error { stop(s.t, s.proxy); return nil },
		mustFire: []string{"LLMTargetDown"}},
}

// longQuestion fills all but six of 128 KV cells.
func longQuestion(n int) question {
	q := ordinaryQuestion(n)
	q.prompt = "one" + strings.Repeat(" one", 121)
	return q
}

// freezeEngine stops the engine process for as long as the alert needs: it stays connected and sends nothing.
func freezeEngine(ctx context.Context, s *scrapedService) error {
	pid := s.engine.ChildPID()
	if pid == 0 {
		return errors.New("no engine process")
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	s.clients.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(freezeDuration):
		}
		_ = syscall.Kill(pid, syscall.SIGCONT) // or it couldn't end
	})
	return nil
}

// crashEngine kills the engine four times, each time when it serves again.
func crashEngine(ctx context.Context, s *scrapedService) error {
	for range 4 {
		if err := s.killEngine(ctx); err != nil {
			return err
		}
		if err := eventually(20*time.Second, 50*time.Millisecond, func() error {
			if got := s.ask(ctx, ordinaryQuestion(1)); got != "200 OK" {
				return fmt.Errorf("%s after the engine was killed", got)
			}
			return s.ready()
		}); err != nil {
			return err
		}
	}
	return nil
}
