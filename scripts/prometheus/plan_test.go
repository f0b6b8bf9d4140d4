package prometheus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// scenario is one service, what goes wrong with it, and what that must raise.
type scenario struct {
	name     string // of the job, after llm-inference
	settings []string
	store    bool // has a store of the rate limits
	load     load // runs from the start
	// fault makes it go wrong; load it starts must end with ctx. nil: the settings do, or nothing does.
	fault func(ctx context.Context, s *service) error

	fires []string // alerts that must fire
	pends []string // that must become pending, and may fire: their "for" is longer than the test
	may   []string // that may become pending, and must not fire
	free  []string // that may fire or not
}

var words = []string{"What is the capital of France?", "Please tell me something about the sea.", "One two three four five six seven."}

func ordinary(n int) question {
	q := question{prompt: words[n%len(words)], version: []string{"v1.0", "v1.1"}[n%2], key: secret, stream: n%3 == 0}
	q.trace = fmt.Sprintf("00-%032x-%016x-01", n+1, n+1)
	return q
}

func only(version string) func(int) question {
	return func(n int) question {
		q := ordinary(n)
		q.version = version
		return q
	}
}

// steady is what a healthy service answers without effort: ten requests a second.
var steady = load{clients: 2, pause: 200 * time.Millisecond, ask: ordinary}

// burns are the alerts of an error budget: fast ones fire, slow ones have no time to.
func burns(name string) (fires, pends []string) {
	return []string{name + " 1h", name + " 6h"}, []string{name + " 1d", name + " 3d"}
}

func together(lists ...[]string) (all []string) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

var (
	errorsFire, errorsPend = burns("LLMAvailabilityBudgetBurn")
	p95Fire, p95Pend       = burns("LLMLatencyP95BudgetBurn")
	p99Fire, p99Pend       = burns("LLMLatencyP99BudgetBurn")
)

var scenarios = []scenario{
	{name: "", load: steady},
	{name: "-slow", settings: []string{"MOCK_TOKEN_DELAY=300ms", "STEP_TARGET=1s"},
		fault: func(ctx context.Context, s *service) error {
			s.load(ctx, load{clients: 32, pause: 100 * time.Millisecond, ask: ordinary})
			return nil
		},
		fires: together([]string{"HighResponseTime", "LLMMeanResponseTimeHigh", "LLMInterTokenLatencyHigh", "LLMTimeToFirstTokenHigh"}, p95Fire, p99Fire),
		pends: together(p95Pend, p99Pend), may: []string{"LLMModelCacheHitRateLow"}}, // who joins a load counts as a miss
	{name: "-down", settings: []string{"ENGINE_WAIT=20ms"}, load: steady,
		fault: func(_ context.Context, s *service) error { s.engine.stop(s.t); return nil },
		fires: together([]string{"LLMEngineDown", "HighErrorRate", "LLMRejectionRateHigh"}, errorsFire),
		pends: errorsPend},
	{name: "-queue", settings: []string{"MOCK_TOKEN_DELAY=40ms", "PARALLEL=1", "QUEUE_CAPACITY=8"},
		fault: func(ctx context.Context, s *service) error {
			s.load(ctx, load{clients: 24, pause: 250 * time.Millisecond, ask: only("v1.0")})
			return nil
		},
		fires: together([]string{"LLMQueueSaturated", "LLMRejectionRateHigh", "HighErrorRate", "LLMThroughputBelowCapacity",
			"LLMTokenThroughputBelowCapacity", "HighResponseTime", "LLMMeanResponseTimeHigh", "LLMTimeToFirstTokenHigh"}, errorsFire, p95Fire, p99Fire),
		pends: together(errorsPend, p95Pend, p99Pend), may: []string{"LLMInterTokenLatencyHigh"}}, // 40 of 100 ms, on a busy machine more
	{name: "-load", settings: []string{"MOCK_FAIL_LOAD=demo@v2.0"}, load: steady,
		fault: func(ctx context.Context, s *service) error {
			q := ordinary(0)
			q.version = "v2.0"
			if got := s.ask(ctx, q); got != "503 Service Unavailable" {
				return fmt.Errorf("a model that can't be loaded was answered with %s", got)
			}
			return nil
		},
		fires: []string{"ModelLoadingFailures"}},
	{name: "-crash", load: steady, fault: crash, fires: []string{"LLMEngineRestarting"}, may: []string{"LLMEngineDown"}},
	{name: "-poison", settings: []string{"MOCK_ABORT_MARKER=poison"}, load: steady,
		fault: func(ctx context.Context, s *service) error {
			if got := s.ask(ctx, question{prompt: "say please to the poison", version: "v1.0", key: secret}); got != "422 Unprocessable Entity" {
				return fmt.Errorf("a request that kills engines was answered with %s", got)
			}
			return nil
		},
		fires: []string{"LLMRequestsQuarantined"}, may: []string{"LLMEngineDown"},
		free: []string{"LLMEngineRestarting"}}, // three deaths raise it; how many it takes to tell the culprit depends on who was near
	{name: "-keys", load: steady,
		fault: func(ctx context.Context, s *service) error {
			s.load(ctx, load{clients: 2, pause: 300 * time.Millisecond, ask: func(n int) question {
				q := ordinary(n)
				q.key = "no such key"
				return q
			}})
			return nil
		},
		fires: []string{"LLMAuthFailuresHigh"}},
	{name: "-reload", load: steady,
		fault: func(_ context.Context, s *service) error {
			return os.WriteFile(s.keyFile(), []byte("keys: [this is no key file\n"), 0o644)
		},
		fires: []string{"LLMKeyReloadFailing"}},
	{name: "-store", store: true, settings: []string{"RATE_LIMIT=1000/second"}, load: steady,
		fault: func(_ context.Context, s *service) error { s.store.Close(); return nil },
		fires: []string{"LLMRateLimitStoreDown"}},
	{name: "-cache", settings: []string{"CACHE_SIZE=1"},
		fault: func(ctx context.Context, s *service) error {
			s.load(ctx, load{clients: 1, pause: 100 * time.Millisecond, ask: ordinary})
			return nil
		},
		fires: []string{"LLMModelCacheHitRateLow"}},
	{name: "-memory", settings: []string{"MOCK_MEMORY_USED=0.97"}, load: steady, fires: []string{"LLMMemoryHigh", "LLMMemoryCritical"}},
	{name: "-failing", settings: []string{"MOCK_TOKEN_DELAY=300ms", "STEP_TARGET=1s", "REQUEST_TIMEOUT=200ms"}, load: steady, // nothing is answered in time
		fires: together([]string{"LLMModelFailing", "HighErrorRate"}, errorsFire), pends: errorsPend,
		free: together([]string{"LLMThroughputBelowCapacity", "LLMTokenThroughputBelowCapacity", "LLMRejectionRateHigh", "LLMModelCacheHitRateLow", "LLMInterTokenLatencyHigh", "LLMTimeToFirstTokenHigh", "LLMMeanResponseTimeHigh", "HighResponseTime"},
			p95Fire, p95Pend, p99Fire, p99Pend)},
	{name: "-stale", settings: []string{"ENGINE_STALL_TIMEOUT=10m"}, fault: freeze, fires: []string{"LLMEngineMetricsStale"}},
	{name: "-cells", settings: []string{"CONTEXT=128", "PARALLEL=1", "MOCK_TOKEN_DELAY=4800ms", "STEP_TARGET=10s"},
		fault: func(ctx context.Context, s *service) error {
			s.load(ctx, load{clients: 1, ask: long})
			return nil
		},
		fires: []string{"LLMKVCacheNearlyFull"},
		free: together([]string{"HighResponseTime", "LLMMeanResponseTimeHigh", "LLMInterTokenLatencyHigh", "LLMTimeToFirstTokenHigh", "LLMThroughputBelowCapacity",
			"LLMTokenThroughputBelowCapacity"}, p95Fire, p95Pend, p99Fire, p99Pend)}, // its tokens are slow, so that the cells stay full
	{name: "-gone", load: steady,
		fault: func(_ context.Context, s *service) error { s.proxy.stop(s.t); return nil },
		fires: []string{"LLMTargetDown"}},
}

// long fills all but six of 128 cells.
func long(n int) question {
	q := ordinary(n)
	q.prompt = "one" + strings.Repeat(" one", 121)
	return q
}

// freeze stops the engine process for as long as it takes to notice: connected, and not a word from it.
func freeze(ctx context.Context, s *service) error {
	pid := s.engine.child()
	if pid == 0 {
		return errors.New("no engine process")
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	s.clients.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(frozenTime):
		}
		_ = syscall.Kill(pid, syscall.SIGCONT) // or it couldn't end
	})
	return nil
}

// crash kills the engine four times, each time once it serves again.
func crash(ctx context.Context, s *service) error {
	for range 4 {
		if err := s.killEngine(ctx); err != nil {
			return err
		}
		if err := eventually(ctx, 20*time.Second, 50*time.Millisecond, func() error {
			if got := s.ask(ctx, ordinary(1)); got != "200 OK" {
				return fmt.Errorf("%s after the engine was killed", got)
			}
			return s.ready()
		}); err != nil {
			return err
		}
	}
	return nil
}
