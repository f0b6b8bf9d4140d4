package inflight

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/metrics"
)

// tableTest is a request table with helpers that play the engine's and the client's part.
type tableTest struct {
	*Table
	t        *testing.T
	instance uint64
}

// inBubble runs a test with a request table in a synctest bubble, so with fake time. Afterwards nothing may be left in
// the table.
func inBubble(t *testing.T, o Options, test func(t *testing.T, table *tableTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		table := newTableTest(t, o)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); table.Run(ctx) }()
		defer func() { // for tests that end early with t.Fatal
			cancel()
			table.mu.Lock()
			table.unsettled = 0
			table.mu.Unlock()
			<-ended
		}()
		test(t, table)
		cancel()
		<-ended
		if len(table.entries) != 0 || table.journal.ReservedBytes() != 0 || table.queue.Len() != 0 {
			t.Errorf("left over: %d entries, %d journal bytes, %d queued", len(table.entries), table.journal.ReservedBytes(), table.queue.Len())
		}
		for _, e := range table.engines {
			if e.requests != 0 || e.awaitingFirstToken != 0 || e.suspect != nil {
				t.Errorf("counts of an engine: %d there, %d without token", e.requests, e.awaitingFirstToken)
			}
			for name, base := range e.bases {
				if base.outstanding != 0 || base.replays != 0 {
					t.Errorf("counts of base %s: %+v", name, base)
				}
			}
		}
	})
}

// newTableTest makes a request table; options that are zero get defaults.
func newTableTest(t *testing.T, o Options) *tableTest {
	o.Log = slog.New(slog.DiscardHandler)
	o.Metrics = metrics.New(metrics.Options{Log: o.Log})
	if o.DefaultModel == "" {
		o.DefaultModel = "demo"
	}
	setDefault(&o.QueueCapacity, 256)
	setDefault(&o.QueueMaxBytes, 64<<20)
	setDefault(&o.JournalMaxBytes, 256<<20)
	setDefault(&o.EngineWait, 10*time.Second)
	setDefault(&o.ModelLoadWait, 10*time.Minute)
	setDefault(&o.ReplayWait, 10*time.Minute)
	setDefault(&o.QuarantineTTL, 10*time.Minute)
	return &tableTest{Table: New(o), t: t}
}

func setDefault[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}

// attach brings up an engine that reports how the one before it ended.
func (table *tableTest) attach(exit LastExit) *fakeEngine {
	return table.attachEngine(&fakeEngine{}, exit)
}

// attachEngine is attach for an engine that is to do something from its first moment on.
func (table *tableTest) attachEngine(f *fakeEngine, exit LastExit) *fakeEngine {
	table.instance++
	table.Attached(f, Hello{Instance: table.instance, Device: "cpu", LastExit: exit})
	table.Catalog(f, demoCatalog())
	return f
}

func (table *tableTest) lose(f *fakeEngine) { table.Lost(f, Loss{Reason: "eof"}) }

func newRequest(change func(*Request)) Request {
	r := Request{ID: "r1", Timeout: 5 * time.Minute, Infer: &api.Request{Prompt: "What is the capital of France?"}}
	if change != nil {
		change(&r)
	}
	return r
}

func withPrompt(text string) func(*Request) {
	return func(r *Request) { r.Infer = &api.Request{Prompt: text} }
}

// withVersion asks for a version of the default model.
func withVersion(v string) func(*Request) { return func(r *Request) { r.Infer.Version = v } }

func withPromptAndVersion(text, version string) func(*Request) {
	return func(r *Request) { r.Infer = &api.Request{Prompt: text, Version: version} }
}

func (table *tableTest) admit(change func(*Request)) Answer {
	table.t.Helper()
	a, err := table.Admit(table.t.Context(), newRequest(change))
	if err != nil {
		table.t.Fatalf("Admit: %v", err)
	}
	return a
}

// sendAccepted accepts a submission as an engine would.
func (table *tableTest) sendAccepted(f *fakeEngine, s *Submission) {
	table.Accepted(f, s.ID, s.Attempt, &Accepted{
		Model: s.Model, Version: s.Version, Revision: []byte("rev1"), MaxNewTokens: 100, Lookup: LookupMiss,
		Rendered: Rendered{PromptTokens: []int32{1, 2, 3}, Grammar: "root", Stops: []string{"\n"}, Triggers: []Trigger{{Kind: 2, Value: "<call>"}}},
		Sampling: Sampling{Seed: s.Sampling.Seed},
	})
}

// sendToken sends the token with that index.
func (table *tableTest) sendToken(f *fakeEngine, s *Submission, index int) {
	table.Step(f, &Step{Tokens: []Token{letterToken(s, index)}})
}

func (table *tableTest) sendStop(f *fakeEngine, s *Submission, tokens int) {
	table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishStop, PromptTokens: 3, OutputTokens: tokens}}})
}

// serve answers a submission with so many tokens in all, from the first missing one.
func (table *tableTest) serve(f *fakeEngine, s *Submission, tokens int) {
	table.sendAccepted(f, s)
	for i := len(s.Generated); i < tokens; i++ {
		table.sendToken(f, s, i)
	}
	table.sendStop(f, s, tokens)
}

// reportLoad reports that the engine loads a version of the demo model and, with ends, that the load succeeded.
func (table *tableTest) reportLoad(f *fakeEngine, version string, ends bool) {
	table.Event(f, ModelEvent{Kind: EventLoading, Model: "demo", Version: version})
	if ends {
		table.Event(f, ModelEvent{Kind: EventLoaded, Model: "demo", Version: version})
	}
}

// refuseForMemory answers a submission as an engine does that has no memory for the model.
func (table *tableTest) refuseForMemory(f *fakeEngine, s *Submission) {
	table.Event(f, ModelEvent{Kind: EventLoadFailed, Model: s.Model, Version: s.Version, Reason: "out_of_memory"})
	table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishError,
		Failure: Failure{Code: "out_of_memory", Text: "demo@v1.0 can't be loaded: out_of_memory", Retryable: true}}}})
}

// sentCount returns how many submissions the engine got. It locks, since the table's own goroutine may send some.
func (table *tableTest) sentCount(f *fakeEngine) int {
	table.mu.Lock()
	defer table.mu.Unlock()
	return len(f.infers)
}

// nextSubmission waits until the engine has more than n submissions and returns the one after the first n.
func (table *tableTest) nextSubmission(f *fakeEngine, n int, most time.Duration) *Submission {
	table.t.Helper()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) { // fake time
		synctest.Wait()
		if table.sentCount(f) > n {
			return f.infers[n]
		}
		if time.Since(start) > most {
			table.t.Fatalf("nothing was sent within %v", most)
		}
	}
}

// wantAnswer takes what has come of an answer and checks its text, its error type ("" for none) and whether it is
// complete.
func (table *tableTest) wantAnswer(a Answer, text string, err api.Type, isDone bool) Piece {
	table.t.Helper()
	p := a.Take(nil)
	got := api.Type("")
	if p.Err != nil {
		got = p.Err.Type
	}
	if string(p.Text) != text || got != err || p.Done != isDone {
		table.t.Errorf("took %q, error %q, done %v; want %q, %q, %v", p.Text, got, p.Done, text, err, isDone)
	}
	return p
}

// wantErrorAfter waits for the answer's end and checks when it came, in fake time, and with which error.
func (table *tableTest) wantErrorAfter(a Answer, want time.Duration, err api.Type) *api.Error {
	table.t.Helper()
	start := time.Now()
	<-a.Ready()
	if got := time.Since(start); got < want || got > want+2*tickInterval {
		table.t.Errorf("ended after %v, want %v", got, want)
	}
	p := table.wantAnswer(a, "", err, true)
	a.Settle(Failed)
	return p.Err
}

// metric returns a metric's value: the sum over its series that have all the labels (name=value), of a histogram the
// count.
func (table *tableTest) metric(name string, labels ...string) float64 {
	table.t.Helper()
	families, err := table.metrics.Gather()
	if err != nil {
		table.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.Metric {
			for _, want := range labels {
				found := false
				for _, l := range m.Label {
					found = found || l.GetName()+"="+l.GetValue() == want
				}
				if !found {
					continue series
				}
			}
			switch {
			case m.Counter != nil:
				sum += m.Counter.GetValue()
			case m.Gauge != nil:
				sum += m.Gauge.GetValue()
			case m.Histogram != nil:
				sum += float64(m.Histogram.GetSampleCount())
			}
		}
	}
	return sum
}

// histogramSum is the sum of what a histogram without labels has observed.
func (table *tableTest) histogramSum(name string) float64 {
	table.t.Helper()
	families, err := table.metrics.Gather()
	if err != nil {
		table.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.Metric[0].Histogram.GetSampleSum()
		}
	}
	return 0
}

func (table *tableTest) wantMetric(want float64, name string, labels ...string) {
	table.t.Helper()
	if got := table.metric(name, labels...); got != want {
		table.t.Errorf("%s{%s} is %v, want %v", name, strings.Join(labels, ","), got, want)
	}
}

// seriesCount returns how many series of a metric a model has.
func (table *tableTest) seriesCount(name, model string) int {
	families, err := table.metrics.Gather()
	if err != nil {
		table.t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, s := range f.GetMetric() {
			for _, l := range s.GetLabel() {
				if l.GetName() == "model" && l.GetValue() == model {
					n++
				}
			}
		}
	}
	return n
}
