package inflight

import (
	"strings"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/queue"
)

func TestVerdict(t *testing.T) {
	tests := []struct {
		name   string
		class  queue.Class
		credit credit
		want   queue.Verdict
	}{
		{"idle base", queue.Fresh, credit{sequences: 4}, queue.Dispatch},
		{"sequences taken, room to tokenise ahead", queue.Fresh, credit{sequences: 4, outstanding: 7}, queue.Dispatch},
		{"nothing ahead either", queue.Fresh, credit{sequences: 4, outstanding: 8}, queue.SkipBase},
		{"one sequence is kept free for another key", queue.Fresh, credit{sequences: 16, outstanding: 14, keptFree: 1}, queue.Dispatch},
		{"all but the one that is kept free are taken", queue.Fresh, credit{sequences: 16, outstanding: 15, keptFree: 1}, queue.SkipBase},
		{"base not loaded: first ones go and make it load", queue.Fresh, credit{outstanding: maxSentWhileUnloaded - 1}, queue.Dispatch},
		{"base not loaded: bounded", queue.Fresh, credit{outstanding: maxSentWhileUnloaded}, queue.SkipBase},
		{"new ones wait for replays of their base", queue.Fresh, credit{sequences: 4, replaysWaiting: true}, queue.SkipBase},
		{"a replay goes", queue.Replay, credit{sequences: 4, replaysWaiting: true}, queue.Dispatch},
		{"replays need credit too", queue.Replay, credit{sequences: 1, outstanding: 5}, queue.SkipBase},
		{"few replays are prefilled at a time", queue.Replay, credit{sequences: 32, replaysSent: maxReplaysSent}, queue.SkipBase},
		{"few bytes of replays at a time", queue.Replay, credit{sequences: 32, backlogBytes: maxBacklogBytes - 10, itemBytes: 11}, queue.SkipBase},
		{"one large replay goes by itself", queue.Replay, credit{sequences: 32, itemBytes: maxBacklogBytes + 1}, queue.Dispatch},
		{"new ones as well", queue.Fresh, credit{sequences: 32, backlogBytes: maxBacklogBytes - 10, itemBytes: 11}, queue.SkipBase},
		{"one large request goes by itself", queue.Fresh, credit{sequences: 32, itemBytes: maxBacklogBytes + 1}, queue.Dispatch},
		{"nothing goes beside a suspect", queue.Replay, credit{sequences: 4, suspectSent: true, awaitingFirstToken: 1}, queue.StopAll},
		{"a suspect waits for those without a token", queue.Suspect, credit{sequences: 4, awaitingFirstToken: 1, outstanding: 2}, queue.StopAll},
		{"a suspect goes beside streams", queue.Suspect, credit{sequences: 4, outstanding: 3}, queue.Dispatch},
		{"a suspect without a place lets nobody past", queue.Suspect, credit{sequences: 4, outstanding: 8}, queue.StopAll},
		{"a model that killed an engine goes last", queue.Replay, credit{suspectLoad: true, othersWaiting: true}, queue.SkipItem},
		{"when others have their tokens", queue.Fresh, credit{suspectLoad: true, othersAwaitFirstToken: true}, queue.StopAll},
		{"and no other load is under way", queue.Replay, credit{suspectLoad: true, othersAwaitFirstToken: true, otherLoading: true}, queue.SkipItem},
		{"a suspect waits for loads", queue.Suspect, credit{sequences: 4, otherLoading: true}, queue.SkipBase},
		{"no other load beside its", queue.Replay, credit{otherSuspectLoad: true}, queue.SkipBase},
		{"and then goes", queue.Replay, credit{suspectLoad: true}, queue.Dispatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.credit.verdict(tt.class); got != tt.want {
				t.Errorf("verdict %v, want %v", got, tt.want)
			}
		})
	}
}

// A connection is closed when too much waits to be written to it, so one client's choices mustn't fill it.
func TestLargeRequestsAreSentAsTheyAreRead(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attachEngine(&fakeEngine{isSlow: true}, LastExit{})
		table.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 64, FreeSequences: 64, Cells: 100, FreeCells: 100}}})
		const size, choices = 1 << 20, 32
		a := table.admit(func(r *Request) {
			r.Infer = &api.Request{Messages: []api.Message{{Role: "user", Content: strings.Repeat("a", size)}}, Choices: choices}
		})
		if n, most := len(f.infers), maxBacklogBytes/size; n == 0 || n > most {
			t.Errorf("%d requests of %d bytes are under way, at most %d should be", n, size, most)
		}
		for read := 0; read < choices; read++ {
			table.nextSubmission(f, read, time.Second)
			table.mu.Lock()
			f.backlog -= size
			table.mu.Unlock()
		}
		a.Cancel(api.Cancelled())
		a.Settle(ClientGone)
	})
}

// Requests that an engine has read and that wait for their model's load hold up no other model.
func TestLargeRequestsThatWaitForALoadHoldUpNoOtherModel(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		table.Catalog(f, catalogOf("a", "b", "c"))
		table.Stats(f, &Stats{Bases: []BaseStats{{Model: "c", Sequences: 4, FreeSequences: 4}}})
		var answers []Answer
		for _, model := range []string{"a", "b"} {
			for range maxSentWhileUnloaded {
				answers = append(answers, table.admit(func(r *Request) {
					r.Infer = &api.Request{Model: model, Prompt: strings.Repeat("a", maxPromptBytes)}
				}))
			}
		}
		answers = append(answers, table.admit(func(r *Request) { r.Infer.Model = "c" }))
		if f.last(t).Model != "c" {
			t.Errorf("%d requests were sent, none of them for the loaded model", len(f.infers))
		}
		for _, a := range answers {
			a.Settle(ClientGone)
		}
	})
}

func TestCreditFollowsTheStats(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		var answers []Answer
		for range 20 {
			answers = append(answers, table.admit(nil))
		}
		answers = append(answers, table.admit(func(r *Request) { r.Infer.Model = "big" }))
		if n := len(f.infers); n != maxSentWhileUnloaded+1 {
			t.Errorf("%d released for two bases that aren't loaded", n)
		}
		table.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 8, FreeSequences: 0, Decoding: 8, Cells: 100, FreeCells: 25}}})
		if n, want := len(f.infers), 8+lookAhead(8)+1; n != want {
			t.Errorf("%d released with 8 sequences, want %d", n, want)
		}
		table.wantMetric(8, "llm_requests_running")
		table.wantMetric(0.75, "llm_kv_cache_usage_ratio")
		table.serve(f, f.infers[0], 1)
		if n, want := len(f.infers), 8+lookAhead(8)+2; n != want {
			t.Errorf("%d released after one ended, want %d", n, want)
		}
		for _, a := range answers {
			a.Settle(ClientGone)
		}
	})
}
