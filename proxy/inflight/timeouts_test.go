package inflight

import (
	"testing"
	"time"

	"tandem/proxy/api"
)

func TestNewRequestsWaitForAnEngine(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		a := table.admit(nil)
		if a.Model() != "" {
			t.Errorf("model %q before any engine was seen", a.Model())
		}
		err := table.wantErrorAfter(a, 10*time.Second, api.TypeEngineUnavailable)
		if err == nil || err.RetryAfterSeconds() < 1 {
			t.Errorf("no Retry-After: %v", err)
		}
		table.wantMetric(1, "llm_requests_rejected_total", "reason=engine_unavailable")

		late := table.admit(nil)
		time.Sleep(9 * time.Second)
		f := table.attach(LastExit{})
		if late.Model() != "demo" || late.Version() != "v1.0" {
			t.Errorf("resolved to %s@%s", late.Model(), late.Version())
		}
		table.serve(f, f.last(t), 1)
		table.wantAnswer(late, "a", "", true)
		late.Settle(Delivered)
	})
}

// A pod whose engine's container is gone may be without an engine for minutes, while the kubelet waits to start it
// again. What was taken in before waits for that, queued or not; what comes meanwhile waits for EngineWait.
func TestQueuedRequestsOutliveAnEngine(t *testing.T) {
	inBubble(t, Options{ReplayWait: 10 * time.Minute}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		var answers []Answer
		for range maxSentWhileUnloaded {
			answers = append(answers, table.admit(nil))
		}
		answers = append(answers, table.admit(nil)) // no credit left
		time.Sleep(time.Minute)
		table.lose(f)
		time.Sleep(time.Minute)
		table.wantErrorAfter(table.admit(nil), 10*time.Second, api.TypeEngineUnavailable)
		time.Sleep(2 * time.Minute)
		f = table.attach(LastExit{})
		for i := range answers {
			table.serve(f, table.nextSubmission(f, i, time.Second), 1)
		}
		for _, a := range answers {
			table.wantAnswer(a, "a", "", true)
			a.Settle(Delivered)
		}
	})
}

func TestQueuedRequestsWaitForReplayWaitAtMost(t *testing.T) {
	inBubble(t, Options{ReplayWait: 30 * time.Second}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		for range maxSentWhileUnloaded {
			defer table.admit(nil).Settle(ClientGone)
		}
		a := table.admit(nil) // no credit left
		time.Sleep(time.Minute)
		table.lose(f)
		table.wantErrorAfter(a, 30*time.Second, api.TypeEngineUnavailable)
	})
}

// An engine that leaves on purpose may have no successor: what came since it began to go waits for EngineWait.
func TestEngineWaitStartsWhenTheEngineHasLeft(t *testing.T) {
	inBubble(t, Options{ReplayWait: 10 * time.Minute}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		table.Draining(f, time.Minute, false)
		time.Sleep(time.Second)
		a := table.admit(nil)
		time.Sleep(time.Minute)
		table.lose(f)
		table.wantErrorAfter(a, 10*time.Second, api.TypeEngineUnavailable)
	})
}

func TestDeadlines(t *testing.T) {
	inBubble(t, Options{EngineWait: time.Hour}, func(t *testing.T, table *tableTest) {
		short := func(r *Request) { r.Timeout = 2 * time.Second }
		table.wantErrorAfter(table.admit(short), 2*time.Second, api.TypeQueueTimeout)
		f := table.attach(LastExit{})
		a := table.admit(short)
		table.sendAccepted(f, f.last(t))
		table.wantErrorAfter(a, 2*time.Second, api.TypeDeadlineExceeded)
		if len(f.cancels) != 1 {
			t.Error("the engine still works on a request whose time is over")
		}
		table.wantMetric(1, "llm_requests_rejected_total", "reason=deadline")
		table.wantMetric(1, "failed_inferences_total", "error_type=deadline_exceeded")
		table.wantMetric(1, "failed_inferences_total")

		a = table.admit(short)
		table.sendAccepted(f, f.last(t))
		table.lose(f)
		table.wantErrorAfter(a, 2*time.Second, api.TypeDeadlineExceeded)
	})
}

func TestReplayWaitEnds(t *testing.T) {
	inBubble(t, Options{ReplayWait: 30 * time.Second}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		table.sendAccepted(f, f.last(t))
		table.lose(f)
		table.wantErrorAfter(a, 30*time.Second, api.TypeEngineCrashed)
		table.wantMetric(1, "failed_inferences_total", "error_type=engine_crashed")
	})
}

func TestModelLoadWaitEnds(t *testing.T) {
	inBubble(t, Options{ModelLoadWait: time.Minute}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		table.Event(f, ModelEvent{Kind: EventLoading, Model: "demo", Version: "v1.0"})
		if s := table.Status(); len(s.Loading) != 1 || s.Loading[0] != "demo@v1.0" {
			t.Errorf("loading %v", s.Loading)
		}
		a := table.admit(nil)
		table.wantErrorAfter(a, time.Minute, api.TypeModelLoadFailed)
		table.wantMetric(1, "llm_requests_rejected_total", "reason=model_load_failed")
	})
}
