package inflight

import (
	"slices"
	"testing"
	"time"

	"tandem/proxy/api"
)

// busy lets an engine with two sequences answer so many requests, one each second, while others wait. They have as many
// prompt tokens as sendAccepted says, and two new ones.
func (table *tableTest) busy(f *fakeEngine, answers int) (waiting []Answer) {
	table.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 2, FreeSequences: 2, Cells: 100, FreeCells: 100}}})
	for range 12 {
		waiting = append(waiting, table.admit(withTokens(2)))
	}
	for i := range answers {
		time.Sleep(time.Second) // fake time
		s := f.infers[i]
		table.sendAccepted(f, s)
		table.sendToken(f, s, 0)
		table.sendToken(f, s, 1)
		table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishLength, PromptTokens: 3, OutputTokens: 2}}})
		waiting[0].Settle(Delivered)
		waiting = append(waiting[1:], table.admit(withTokens(2)))
	}
	return waiting
}

func withTokens(n int) func(*Request) {
	return func(r *Request) {
		r.Infer.PromptTokens, r.Infer.Prompt, r.Infer.MaxNewTokens = make([]int32, 3), "", &n
	}
}

func within(timeout time.Duration) func(*Request) {
	return func(r *Request) { withTokens(2)(r); r.Timeout = timeout }
}

// Some twelve requests are ahead, at most one a second is answered.
func TestRefusalByTime(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(table *tableTest, f *fakeEngine)
		change  func(*Request)
		refused bool
	}{
		{"too little time", nil, within(2 * time.Second), true},
		{"enough time", nil, within(5 * time.Minute), false},
		{"no limit", nil, within(0), false},
		{"others of the request were taken in", nil, func(r *Request) { withTokens(2)(r); r.Infer.Choices = 3 }, false},
		{"all of the request or nothing", nil, func(r *Request) { within(2 * time.Second)(r); r.Infer.Choices = 3 }, true},
		{"no engine, and much is ahead", func(table *tableTest, f *fakeEngine) { table.lose(f) }, within(2 * time.Second), true},
		{"another model, of which nothing is known", nil, func(r *Request) { within(2 * time.Second)(r); r.Infer.Model = "big" }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
				f := table.attach(LastExit{})
				waiting := table.busy(f, 12)
				if tt.prepare != nil {
					tt.prepare(table, f)
				}
				a, err := table.Admit(t.Context(), newRequest(tt.change))
				if refused := err != nil && err.Type == api.TypeQueueFull && err.RetryAfter >= time.Second; refused != tt.refused || err != nil && !refused {
					t.Errorf("refused %v, want %v; error %v", refused, tt.refused, err)
				}
				if a != nil {
					waiting = append(waiting, a)
				}
				for _, w := range waiting {
					w.Settle(ClientGone)
				}
				table.wantMetric(map[bool]float64{true: 1}[tt.refused], "llm_admission_refusals_total", "reason=deadline")
			})
		})
	}
}

// Each of those who are refused is told a time of its own, whatever the reason; other keys don't wait for them.
func TestRefusedCrowdIsToldDifferentTimes(t *testing.T) {
	tests := []struct {
		name   string
		places int
		change func(*Request)
	}{
		{"no time", 100, within(5 * time.Second)},
		{"no place", 12, within(0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, Options{QueueCapacity: tt.places}, func(t *testing.T, table *tableTest) {
				waiting := table.busy(table.attach(LastExit{}), 12)
				for table.queue.Len() < 12 {
					waiting = append(waiting, table.admit(within(0)))
				}
				refuse := func(key string) time.Duration {
					_, err := table.Admit(t.Context(), newRequest(func(r *Request) { tt.change(r); r.Key = key }))
					if err == nil || err.Type != api.TypeQueueFull {
						t.Fatalf("want a refusal, got %v", err)
					}
					return err.RetryAfter
				}
				first := refuse("")
				for i := range 20 { // a request is a second's work, and 0.9 of the speed are promised
					if got, want := refuse(""), first+time.Duration(i+1)*time.Second*10/9; (got - want).Abs() > 2*time.Second {
						t.Errorf("number %d: told %v, want %v", i+1, got, want)
					}
				}
				if other := refuse("other"); other > first {
					t.Errorf("another key is told %v, the first one of many was told %v", other, first)
				}
				for _, w := range waiting {
					w.Settle(ClientGone)
				}
			})
		})
	}
}

// A request with many choices is taken in with the first ones; the others aren't refused when others have come before
// them.
func TestFurtherChoicesAreNotRefusedByTime(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		waiting := table.busy(f, 12)
		many := table.admit(func(r *Request) {
			withTokens(2)(r)
			r.Timeout, r.Infer.Choices = 2*time.Minute, windowOfChoices+8
		})
		for range 60 { // a minute's work
			waiting = append(waiting, table.admit(within(0)))
		}
		next := 12
		serve := func(each time.Duration, until func(en *entry) bool) {
			for next < len(f.infers) {
				s := f.infers[next]
				next++
				if en := table.entries[s.ID]; en != nil {
					time.Sleep(each) // fake time
					table.serve(f, s, 2)
					if until(en) {
						return
					}
				}
			}
		}
		serve(time.Second, func(en *entry) bool { return en.req.Infer.Choices > 1 }) // the first one
		time.Sleep(85 * time.Second)                                                 // in which nothing is answered
		serve(0, func(*entry) bool { return false })
		for p := many.Take(nil); p.Done || p.More; p = many.Take(nil) {
			if p.Err != nil {
				t.Fatalf("choice %d: %v", p.Choice, p.Err)
			}
		}
		many.Settle(ClientGone)
		for _, w := range waiting {
			w.Settle(ClientGone)
		}
	})
}

// An engine with a free sequence is used, however little time a request has: what it holds up is nobody.
func TestFreeEngineRefusesNothing(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		for _, w := range table.busy(f, 12) {
			w.Settle(ClientGone)
		}
		for range 2 {
			table.admit(within(time.Millisecond)).Settle(ClientGone)
		}
	})
}

// Requests that an engine had taken before it died are never refused, whatever their time.
func TestReplaysAreNotRefusedByTime(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		waiting := table.busy(f, 12)
		at := f.last(t)
		table.sendAccepted(f, at)
		table.sendToken(f, at, 0)
		table.lose(f)
		time.Sleep(overdueCheckInterval) // fake time
		f = table.attach(LastExit{})
		if !slices.ContainsFunc(f.infers, func(s *Submission) bool { return len(s.Generated) == 1 }) {
			t.Error("it wasn't sent again")
		}
		table.wantMetric(0, "llm_admission_refusals_total")
		for _, w := range waiting {
			w.Settle(ClientGone)
		}
	})
}

// What was let in while nothing was known, and has no time left, is told so as soon as that is known.
func TestOverdueRequestsAreToldSoon(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		table.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 2}}})
		var early []Answer
		for range 60 {
			early = append(early, table.admit(within(30*time.Second)))
		}
		waiting := table.busy(f, 12)
		refused := 0
		for _, a := range early {
			if p := a.Take(nil); p.Err != nil && p.Err.Type == api.TypeQueueFull {
				refused++
			}
			a.Settle(ClientGone)
		}
		if refused < 20 || refused > 45 {
			t.Errorf("%d of 60 were told, of which about 30 can be answered in time", refused)
		}
		for _, w := range waiting {
			w.Settle(ClientGone)
		}
	})
}

// An engine notes between two steps that a request's time is over, usually before the table does.
func TestAnswersThatAnEngineEndsForTheirTimeAreLearntFrom(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		answer := func(tokens int, end Finish) {
			a := table.admit(func(r *Request) { r.Infer.MaxNewTokens = new(100) })
			s := f.last(t)
			table.sendAccepted(f, s)
			for i := range tokens {
				table.Step(f, &Step{Tokens: []Token{{ID: s.ID, Index: i, Text: []byte("a"), TextEnd: i + 1}}})
			}
			table.Step(f, &Step{Done: []Summary{{ID: s.ID, Reason: end, PromptTokens: 3, OutputTokens: tokens}}})
			a.Settle(Failed)
		}
		for range 8 {
			answer(10, FinishStop)
		}
		before := table.work["demo"].NewTokens(100)
		answer(60, FinishDeadline)
		if after := table.work["demo"].NewTokens(100); after <= before {
			t.Errorf("%.0f new tokens are expected after one with 60 had no more time, %.0f before", after, before)
		}
	})
}
