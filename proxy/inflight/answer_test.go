package inflight

import (
	"reflect"
	"testing"
	"time"

	"tandem/proxy/api"
)

func TestAnswerInOnePiece(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(func(r *Request) { r.Key, r.Weight = "alice", 2 })
		s := f.last(t)
		if s.Model != "demo" || s.Version != "v1.0" || s.Sampling.Seed > api.MaxSeed || s.Timeout != 5*time.Minute || s.Owner == 0 || s.OwnerWeight != 2 {
			t.Errorf("submitted %+v", s)
		}
		table.serve(f, s, 3)
		<-a.Ready()
		p := table.wantAnswer(a, "abc", "", true)
		want := Result{FinishReason: "stop", PromptTokens: 3, OutputTokens: 3, Seed: s.Sampling.Seed, GenerationTime: 3 * time.Millisecond,
			Prefill: time.Millisecond, Decode: 2 * time.Millisecond}
		if p.Result == nil || !reflect.DeepEqual(*p.Result, want) || p.Tokens != 3 || p.Took != 3*time.Millisecond || !p.Accepted {
			t.Errorf("result %+v, want %+v", p.Result, want)
		}
		a.Settle(Delivered)
		a.Settle(Failed) // a second one counts nothing
		labels := []string{"model=demo", "version=v1.0"}
		table.wantMetric(3, "tokens_generated_total", labels...)
		table.wantMetric(3, "token_generation_time_seconds", labels...)
		table.wantMetric(1, "successful_inferences_total", labels...)
		table.wantMetric(1, "llm_request_finish_total", "reason=stop")
		table.wantMetric(1, "model_cache_misses_total", labels...)
		table.wantMetric(1, "llm_time_to_first_token_seconds", labels...)
		table.wantMetric(2, "llm_inter_token_latency_seconds", labels...)
		table.wantMetric(0, "failed_inferences_total")
	})
}

func TestStreamIsTimedWhenWritten(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(func(r *Request) { r.Infer.Stream = true })
		s := f.last(t)
		table.sendAccepted(f, s)
		table.sendToken(f, s, 0)
		table.wantAnswer(a, "a", "", false)
		table.wantMetric(0, "llm_time_to_first_token_seconds")
		a.Wrote(0, 1, time.Now())
		table.sendToken(f, s, 1)
		table.sendToken(f, s, 2)
		if p := table.wantAnswer(a, "bc", "", false); p.Tokens != 2 {
			t.Errorf("%d tokens", p.Tokens)
		}
		a.Wrote(0, 2, time.Now())
		table.wantMetric(1, "llm_time_to_first_token_seconds")
		table.wantMetric(2, "llm_inter_token_latency_seconds")
		table.sendStop(f, s, 3)
		table.wantAnswer(a, "", "", true)
		a.Settle(Delivered)
	})
}

// A request's goroutine is woken when it can write something, not for every token that comes.
func TestReadyOnlyWhenThereIsSomethingToWrite(t *testing.T) {
	ready := func(a Answer) bool {
		select {
		case <-a.Ready():
			return true
		default:
			return false
		}
	}
	for name, streams := range map[string]bool{"in one piece": false, "streamed": true} {
		inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
			f := table.attach(LastExit{})
			a := table.admit(func(r *Request) { r.Infer.Stream = streams })
			s := f.last(t)
			table.sendAccepted(f, s)
			for i := range 3 {
				table.sendToken(f, s, i)
				if ready(a) != streams {
					t.Errorf("%s: ready after token %d: %v", name, i, !streams)
				}
			}
			table.lose(f)
			f = table.attach(LastExit{})
			s = f.last(t)
			table.sendAccepted(f, s)
			table.sendToken(f, s, 3)
			if ready(a) != streams {
				t.Errorf("%s: ready with the first token of another engine: %v", name, !streams)
			}
			table.sendStop(f, s, 4)
			if !ready(a) {
				t.Errorf("%s: not ready at its end", name)
			}
			table.wantAnswer(a, "abcd", "", true)
			a.Settle(Delivered)
		})
	}
}
