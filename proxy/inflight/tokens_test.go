package inflight

import (
	"strings"
	"testing"

	"tandem/proxy/api"
)

func TestLateFramesAreDropped(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		s := f.last(t)
		a.Cancel(api.Cancelled())
		a.Cancel(api.Cancelled())
		if len(f.cancels) != 1 || f.cancels[0] != s.ID {
			t.Errorf("cancelled %v", f.cancels)
		}
		table.sendAccepted(f, s)
		table.sendToken(f, s, 0)
		table.wantAnswer(a, "", api.TypeCancelled, true)
		a.Settle(ClientGone)
		table.wantMetric(2, "llm_frames_dropped_total", "reason=unknown_request")
		table.wantMetric(0, "tokens_generated_total")
		table.wantMetric(1, "llm_requests_cancelled_total", "stage=prefill")
		if f.hangup != "" {
			t.Errorf("late frames are no protocol violation: %s", f.hangup)
		}
		table.lose(f)
		table.sendToken(f, s, 1)
		table.wantMetric(1, "llm_frames_dropped_total", "reason=stale_connection")
	})
}

// An engine holds text back until it knows what it is, of a tool call that never becomes one until the answer's end.
func TestTokenMayReleaseTheTextOfManyTokens(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		s := f.last(t)
		table.sendAccepted(f, s)
		text := strings.Repeat("x", maxTokenText+1)
		table.Step(f, &Step{Tokens: []Token{{ID: s.ID, Attempt: s.Attempt, Token: 10}, {ID: s.ID, Attempt: s.Attempt, Index: 1, Token: 11, Text: []byte(text), TextEnd: len(text)}}})
		table.sendStop(f, s, 2)
		if f.hangup != "" {
			t.Errorf("the connection ends: %s", f.hangup)
		}
		table.wantAnswer(a, text, "", true)
		a.Settle(Delivered)
	})
}

func TestProtocolViolationEndsTheConnection(t *testing.T) {
	tests := []struct {
		name    string
		violate func(table *tableTest, f *fakeEngine, s *Submission)
	}{
		{"token before accepted", func(table *tableTest, f *fakeEngine, s *Submission) { table.sendToken(f, s, 0) }},
		{"accepted twice", func(table *tableTest, f *fakeEngine, s *Submission) {
			table.sendAccepted(f, s)
			table.sendAccepted(f, s)
		}},
		{"token left out", func(table *tableTest, f *fakeEngine, s *Submission) {
			table.sendAccepted(f, s)
			table.sendToken(f, s, 1)
		}},
		{"token repeated", func(table *tableTest, f *fakeEngine, s *Submission) {
			table.sendAccepted(f, s)
			table.sendToken(f, s, 0)
			table.sendToken(f, s, 0)
		}},
		{"text left out", func(table *tableTest, f *fakeEngine, s *Submission) {
			table.sendAccepted(f, s)
			tok := letterToken(s, 0)
			tok.TextEnd = 5
			table.Step(f, &Step{Tokens: []Token{tok}})
		}},
		{"more text than tokens have", func(table *tableTest, f *fakeEngine, s *Submission) {
			table.sendAccepted(f, s)
			tok := letterToken(s, 0)
			tok.Text = make([]byte, maxTokenText+1)
			tok.TextEnd = len(tok.Text)
			table.Step(f, &Step{Tokens: []Token{tok}})
		}},
		{"more tokens than allowed", func(table *tableTest, f *fakeEngine, s *Submission) {
			table.sendAccepted(f, s)
			for i := range 101 {
				table.sendToken(f, s, i)
			}
		}},
		{"end with a token missing", func(table *tableTest, f *fakeEngine, s *Submission) {
			table.sendAccepted(f, s)
			table.sendStop(f, s, 1)
		}},
		{"end before accepted", func(table *tableTest, f *fakeEngine, s *Submission) { table.sendStop(f, s, 0) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
				f := table.attach(LastExit{})
				a := table.admit(nil)
				s := f.last(t)
				tt.violate(table, f, s)
				if f.hangup == "" {
					t.Fatal("the connection goes on")
				}
				table.sendStop(f, s, 1) // ignored from here on
				table.lose(f)
				tokens := min(len(a.Take(nil).Text)+2, 100)
				g := table.attach(LastExit{})
				table.serve(g, g.last(t), tokens)
				if p := a.Take(nil); !p.Done || p.Err != nil || p.Result.OutputTokens != tokens {
					t.Errorf("the request didn't survive: %+v", p)
				}
				a.Settle(Delivered)
			})
		})
	}
}

func TestRepeatedProtocolViolationEndsOnlyTheRequest(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		bad, good := table.admit(withPrompt("bad")), table.admit(withPrompt("good"))
		var f *fakeEngine
		for i := range maxProtocolViolations {
			f = table.attach(LastExit{})
			table.sendAccepted(f, f.byPrompt("bad"))
			table.sendAccepted(f, f.byPrompt("good"))
			table.sendToken(f, f.byPrompt("bad"), 7)
			if hung := f.hangup != ""; hung != (i < maxProtocolViolations-1) {
				t.Fatalf("violation %d: hung up %v", i, hung)
			}
			if f.hangup != "" {
				table.lose(f)
			}
		}
		table.wantAnswer(bad, "", api.TypeInternal, true)
		table.sendToken(f, f.byPrompt("good"), 0)
		table.sendStop(f, f.byPrompt("good"), 1)
		table.wantAnswer(good, "a", "", true)
		bad.Settle(Failed)
		good.Settle(Delivered)
		table.wantMetric(1, "failed_inferences_total", "error_type=internal")
	})
}

func TestTextIsNotRepeated(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(nil)
		s := f.last(t)
		table.sendAccepted(f, s)
		table.sendToken(f, s, 0)
		tok := letterToken(s, 1)
		tok.Text, tok.TextEnd = []byte("ab"), 2 // holds text of the token before it
		table.Step(f, &Step{Tokens: []Token{tok}})
		table.wantAnswer(a, "ab", "", false)
		table.sendStop(f, s, 2)
		a.Settle(Delivered)
	})
}
