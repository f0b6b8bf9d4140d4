package trace

import (
	"slices"
	"testing"
	"time"

	"tandem/engine/link"
)

func TestSpanEvents(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*link.Attempt)
		want   []spanEvent
	}{
		"whole answer": {func(*link.Attempt) {}, []spanEvent{
			{"queued", arrived.Add(time.Second)}, {"scheduled", arrived.Add(2 * time.Second)}, {"first_token", arrived.Add(4 * time.Second)}, {"finished", arrived.Add(10 * time.Second)}}},
		"never rendered": {func(a *link.Attempt) {
			*a = link.Attempt{Arrived: arrived, Ended: arrived.Add(time.Second), Reason: "error"}
		}, []spanEvent{{"finished", arrived.Add(time.Second)}}},
		"cancelled in the queue": {func(a *link.Attempt) { a.Queue, a.Prefill, a.Decode, a.OutputTokens = 9*time.Second, 0, 0, 0 }, []spanEvent{
			{"queued", arrived.Add(time.Second)}, {"finished", arrived.Add(10 * time.Second)}}},
		"goes on and is lost before a token": {func(a *link.Attempt) {
			a.Prefill, a.Decode, a.Restart, a.ReplayedTokens = 0, 0, 3*time.Second, 3
		}, []spanEvent{{"queued", arrived.Add(time.Second)}, {"scheduled", arrived.Add(2 * time.Second)}, {"finished", arrived.Add(10 * time.Second)}}},
		"goes on": {func(a *link.Attempt) {
			a.Prefill, a.Restart, a.ReplayedTokens = 0, 3*time.Second, 2
		}, []spanEvent{{"queued", arrived.Add(time.Second)}, {"scheduled", arrived.Add(2 * time.Second)}, {"first_token", arrived.Add(5 * time.Second)}, {"finished", arrived.Add(10 * time.Second)}}},
		"clocks that disagree": {func(a *link.Attempt) { a.Queue = time.Hour }, []spanEvent{
			{"queued", arrived.Add(time.Second)}, {"scheduled", arrived.Add(10 * time.Second)}, {"first_token", arrived.Add(10 * time.Second)}, {"finished", arrived.Add(10 * time.Second)}}},
	} {
		a := testAttempt(test.change)
		if got := spanEvents(&a); !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// Whoever adds up the usage of a trace gets what the client got, also when an engine couldn't send its span.
func TestUsageIsThatOfTheLastAttempt(t *testing.T) {
	for reason, want := range map[string]int64{"movedAway": 0, "lost": 0, "length": 100, "deadline": 100} {
		a := testAttempt(func(a *link.Attempt) { a.Reason, a.ReplayedTokens, a.OutputTokens = reason, 50, 100 })
		got := int64(0)
		for _, attr := range attributes(&a) {
			if attr.Key == "gen_ai.usage.output_tokens" {
				got = attr.Value.AsInt64()
			}
		}
		if got != want {
			t.Errorf("%s: %d tokens, want %d", reason, got, want)
		}
	}
}
