package inflight

import (
	"testing"

	"tandem/proxy/queue"
)

func TestVerdict(t *testing.T) {
	tests := []struct {
		name   string
		class  queue.Class
		credit credit
		want   queue.Verdict
	}{
		{"idle base", queue.Fresh, credit{sequences: 4}, queue.Go},
		{"sequences taken, room to tokenise ahead", queue.Fresh, credit{sequences: 4, outstanding: 7}, queue.Go},
		{"nothing ahead either", queue.Fresh, credit{sequences: 4, outstanding: 8}, queue.Skip},
		{"base not loaded: first ones go and make it load", queue.Fresh, credit{outstanding: unloadedAhead - 1}, queue.Go},
		{"base not loaded: bounded", queue.Fresh, credit{outstanding: unloadedAhead}, queue.Skip},
		{"new ones wait for replays of their base", queue.Fresh, credit{sequences: 4, replaysWait: true}, queue.Skip},
		{"a replay goes", queue.Replay, credit{sequences: 4, replaysWait: true}, queue.Go},
		{"replays need credit too", queue.Replay, credit{sequences: 1, outstanding: 5}, queue.Skip},
		{"few replays are prefilled at a time", queue.Replay, credit{sequences: 32, replaysOut: replaysAhead}, queue.Skip},
		{"few bytes of replays at a time", queue.Replay, credit{sequences: 32, replayBytes: replayMaxBytes - 10, itemBytes: 11}, queue.Skip},
		{"one large replay goes by itself", queue.Replay, credit{sequences: 32, itemBytes: replayMaxBytes + 1}, queue.Go},
		{"nothing goes beside a suspect", queue.Replay, credit{sequences: 4, suspectOut: true, tokenless: 1}, queue.Hold},
		{"a suspect waits for those without a token", queue.Suspect, credit{sequences: 4, tokenless: 1, outstanding: 2}, queue.Hold},
		{"a suspect goes beside streams", queue.Suspect, credit{sequences: 4, outstanding: 3}, queue.Go},
		{"a suspect without a place lets nobody past", queue.Suspect, credit{sequences: 4, outstanding: 8}, queue.Hold},
		{"a model that killed an engine goes last", queue.Replay, credit{shy: true, othersWait: true}, queue.Pass},
		{"when others have their tokens", queue.Fresh, credit{shy: true, othersThere: true}, queue.Hold},
		{"and no other load is under way", queue.Replay, credit{shy: true, othersThere: true, loading: true}, queue.Pass},
		{"a suspect waits for loads", queue.Suspect, credit{sequences: 4, loading: true}, queue.Skip},
		{"no other load beside its", queue.Replay, credit{apart: true}, queue.Skip},
		{"and then goes", queue.Replay, credit{shy: true}, queue.Go},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.credit.verdict(tt.class); got != tt.want {
				t.Errorf("verdict %v, want %v", got, tt.want)
			}
		})
	}
}
