package inflight

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tandem/proxy/api"
)

func withChoices(n int, inputs ...string) func(*Request) {
	return func(r *Request) {
		r.Infer.Choices = n
		for _, text := range inputs {
			r.Infer.Inputs = append(r.Infer.Inputs, api.Input{Text: text})
		}
	}
}

// takeAll takes everything that has come and returns the text of each choice, and the last piece.
func takeAll(a Answer, texts map[int]string) Piece {
	for {
		p := a.Take(nil)
		texts[p.Choice] += string(p.Text)
		if !p.More {
			return p
		}
	}
}

func TestChoicesAreRequestsOfTheirOwn(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(withChoices(3))
		if len(f.infers) != 3 {
			t.Fatalf("%d submissions", len(f.infers))
		}
		for i, s := range f.infers {
			if s.Sampling.Choice != uint32(i) || s.Sampling.Seed != f.infers[0].Sampling.Seed || s.Prompt != f.infers[0].Prompt {
				t.Errorf("choice %d: %+v", i, s)
			}
		}
		for _, i := range []int{1, 0, 2} {
			table.serve(f, f.infers[i], i+1)
		}
		<-a.Ready()
		texts := map[int]string{}
		p := takeAll(a, texts)
		if !p.Last || texts[0] != "a" || texts[1] != "ab" || texts[2] != "abc" {
			t.Errorf("last %v, texts %v", p.Last, texts)
		}
		if a.PromptTokens() != 3 {
			t.Errorf("%d prompt tokens: a prompt counts once", a.PromptTokens())
		}
		a.Settle(Delivered)
		labels := []string{"model=demo", "version=v1.0"}
		table.wantMetric(1, "successful_inferences_total", labels...)
		table.wantMetric(1, "llm_request_finish_total", "reason=stop")
		table.wantMetric(6, "tokens_generated_total", labels...)
		table.wantMetric(3, "llm_request_output_tokens", labels...) // a histogram's count: answers
		table.wantMetric(1, "llm_request_prompt_tokens", labels...)
	})
}

// The last of a list's texts begin minutes after the request was received, and nobody waits for their first tokens.
func TestChoicesCountOnceInTimeToFirstTokenAndCache(t *testing.T) {
	for name, change := range map[string]func(*Request){
		"texts":            withChoices(1, "one", "two", "three"),
		"streamed choices": func(r *Request) { withChoices(3)(r); r.Infer.Stream = true },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
				f := table.attach(LastExit{})
				a := table.admit(change)
				for i, s := range f.infers {
					time.Sleep(time.Second)
					table.serve(f, s, 3)
					a.Wrote(i, 1, time.Now())
					a.Wrote(i, 2, time.Now())
				}
				a.Settle(Delivered)
				table.wantMetric(1, "llm_time_to_first_token_seconds")
				table.wantMetric(1, "model_cache_misses_total")
				table.wantMetric(9, "token_generation_time_seconds")
				table.wantMetric(6, "llm_inter_token_latency_seconds")
			})
		})
	}
}

// Tokens that were generated count, whether their choice was taken or not, and whatever becomes of the others.
func TestOutputTokensOfAllChoices(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(withChoices(3))
		for i, tokens := range []int{4, 0, 2} {
			s := f.infers[i]
			table.sendAccepted(f, s)
			for at := range tokens {
				table.sendToken(f, s, at)
			}
		}
		failed := f.infers[1]
		table.Step(f, &Step{Done: []Summary{{ID: failed.ID, Attempt: failed.Attempt, Reason: FinishError, Failure: Failure{Code: string(api.TypeDecodeFailed)}}}})
		if p := takeAll(a, map[int]string{}); !p.Last || p.Err == nil {
			t.Errorf("piece %+v", p)
		}
		if n := a.OutputTokens(); n != 6 {
			t.Errorf("%d tokens, want all 6", n)
		}
		a.Cancel(api.Cancelled())
		if n := a.OutputTokens(); n != 6 {
			t.Errorf("%d tokens after all ended, want 6", n)
		}
		a.Settle(Failed)
	})
}

// Any of the choices may be the one whose prompt was computed.
func TestSharedPromptIsComputedOnce(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(withChoices(2, "one", "two"))
		for i, cached := range []int{2, 0, 1, 2} { // of 3 tokens
			s := f.infers[i]
			table.sendAccepted(f, s)
			table.sendToken(f, s, 0)
			table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishStop, PromptTokens: 3, CachedTokens: cached, OutputTokens: 1}}})
		}
		takeAll(a, map[int]string{})
		a.Settle(Delivered)
		table.wantMetric(1, "llm_prompt_tokens_total", "source=cache")
		table.wantMetric(5, "llm_prompt_tokens_total", "source=compute")
	})
}

func TestChoicesGoOnAtTheNextEngine(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(func(r *Request) { withChoices(2)(r); r.Infer.Stream = true })
		for _, s := range f.infers {
			table.sendAccepted(f, s)
		}
		table.sendToken(f, f.infers[1], 0)
		texts := map[int]string{}
		takeAll(a, texts)
		table.lose(f)
		g := table.attach(LastExit{})
		for _, s := range g.infers {
			table.serve(g, s, 2)
		}
		if p := takeAll(a, texts); !p.Last || texts[0] != "ab" || texts[1] != "ab" {
			t.Errorf("last %v, texts %v", p.Last, texts)
		}
		a.Settle(Delivered)
	})
}

// A list of many texts doesn't fill the queue: as one is done, the next takes its place.
func TestInputsAreAdmittedAsOthersEnd(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		var inputs []string
		for i := range 2*windowOfChoices + 3 {
			inputs = append(inputs, fmt.Sprintf("text %d", i))
		}
		a := table.admit(withChoices(1, inputs...))
		texts := map[int]string{}
		for served := 0; served < len(inputs); served++ {
			synctest.Wait()
			if n := len(table.entries); n > windowOfChoices {
				t.Fatalf("%d choices in the table", n)
			}
			s := table.nextSubmission(f, served, time.Second)
			if s.Prompt != inputs[served] || !s.Raw || s.Sampling.Choice != 0 {
				t.Fatalf("submission %d: %+v", served, s)
			}
			table.serve(f, s, 1)
		}
		if p := takeAll(a, texts); !p.Last || len(texts) != len(inputs) {
			t.Errorf("last %v, %d texts", p.Last, len(texts))
		}
		a.Settle(Delivered)
	})
}

// A list that is half done when its engine leaves is finished by the next one, however late that comes.
func TestInputsThatCameWhileTheEngineLeftWaitForTheNext(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		inputs := make([]string, windowOfChoices+3)
		for i := range inputs {
			inputs[i] = fmt.Sprintf("text %d", i)
		}
		a := table.admit(withChoices(1, inputs...))
		table.Draining(f, time.Minute, false)
		time.Sleep(time.Second)
		const before = 3
		for i := range before {
			table.serve(f, f.infers[i], 1)
		}
		table.lose(f)
		time.Sleep(time.Minute)
		f = table.attach(LastExit{})
		for i := range len(inputs) - before {
			table.serve(f, table.nextSubmission(f, i, time.Second), 1)
		}
		texts := map[int]string{}
		if p := takeAll(a, texts); p.Err != nil || !p.Last || len(texts) != len(inputs) {
			t.Errorf("error %v, last %v, %d texts", p.Err, p.Last, len(texts))
		}
		a.Settle(Delivered)
	})
}

func TestOneFailedChoiceFailsTheRequest(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(withChoices(2))
		table.sendAccepted(f, f.infers[0])
		table.sendAccepted(f, f.infers[1])
		table.Step(f, &Step{Done: []Summary{{ID: f.infers[1].ID, Reason: FinishError, Failure: Failure{Code: "decode_failed", Text: "no"}}}})
		if p := takeAll(a, map[int]string{}); !p.Last || p.Err == nil || p.Err.Type != api.TypeDecodeFailed {
			t.Errorf("piece %+v", p)
		}
		a.Settle(Failed)
		if len(f.cancels) != 1 || f.cancels[0] != f.infers[0].ID {
			t.Errorf("cancelled %v", f.cancels)
		}
		table.wantMetric(1, "failed_inferences_total")
	})
}

// The request counts with its first choice, which may be complete when another one fails.
func TestFailureOfALaterChoiceIsCountedAsWhatItIs(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(withChoices(2))
		table.serve(f, f.infers[0], 1)
		table.sendAccepted(f, f.infers[1])
		table.Step(f, &Step{Done: []Summary{{ID: f.infers[1].ID, Reason: FinishError, Failure: Failure{Code: "decode_failed", Text: "no"}}}})
		p := takeAll(a, map[int]string{})
		a.Cancel(p.Err)
		a.Settle(Failed)
		table.wantMetric(1, "failed_inferences_total")
		table.wantMetric(1, "failed_inferences_total", "error_type=decode_failed")
	})
}

func TestCancelEndsAllChoices(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(withChoices(2, "a", "b"))
		a.Cancel(api.Cancelled())
		if len(f.cancels) != 4 {
			t.Errorf("%d cancels", len(f.cancels))
		}
		a.Settle(ClientGone)
		table.wantMetric(1, "llm_requests_cancelled_total")
	})
}

// A request with several choices is taken in with all of its window, or not at all.
func TestChoicesThatDontFitAreRefusedTogether(t *testing.T) {
	inBubble(t, Options{QueueCapacity: 4}, func(t *testing.T, table *tableTest) {
		waiting := table.admit(nil) // there is no engine
		if _, err := table.Admit(t.Context(), newRequest(withChoices(4))); err == nil || err.Type != api.TypeQueueFull {
			t.Errorf("error %v", err)
		}
		if n := len(table.entries); n != 1 {
			t.Errorf("%d entries are left", n)
		}
		table.wantMetric(0, "llm_requests_rejected_total") // the server counts refusals
		waiting.Cancel(api.Cancelled())
		waiting.Settle(ClientGone)
	})
}

func TestLogprobsComeWithTheirTokens(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(func(r *Request) { r.Infer.Logprobs, r.Infer.TopLogprobs, r.Infer.PromptLogprobs = true, 1, true })
		s := f.last(t)
		if !s.Sampling.Logprobs || s.Sampling.TopLogprobs != 1 || !s.PromptLogprobs {
			t.Errorf("submission %+v", s)
		}
		table.sendAccepted(f, s)
		bytes := []byte("x") // the frame's, which is overwritten
		part := func(from, n int) {
			p := PromptPart{ID: s.ID, Attempt: s.Attempt, From: from}
			for i := range n {
				p.Tokens = append(p.Tokens, api.TokenLogprob{Token: int32(from + i), Bytes: bytes, Logprob: -1})
			}
			table.Step(f, &Step{Prompts: []PromptPart{p}})
		}
		part(0, 2)
		part(1, 3) // the first of them has come before
		part(9, 1) // can't be
		token := letterToken(s, 0)
		token.Logprob, token.Piece, token.Top = -0.5, bytes, []api.TopLogprob{{Token: 7, Bytes: bytes, Logprob: -0.5}}
		table.Step(f, &Step{Tokens: []Token{token}})
		bytes[0] = '#'
		table.sendStop(f, s, 1)
		p := a.Take(nil)
		if len(p.Logprobs) != 1 || string(p.Logprobs[0].Bytes) != "x" || string(p.Logprobs[0].Top[0].Bytes) != "x" || math.Abs(float64(p.Logprobs[0].Logprob)+0.5) > 1e-6 {
			t.Errorf("logprobs %+v", p.Logprobs)
		}
		var ids []string
		for _, l := range p.Result.PromptLogprobs {
			ids = append(ids, fmt.Sprint(l.Token, string(l.Bytes)))
		}
		if got := strings.Join(ids, " "); got != "0 x 1 x 2 x 3 x" && got != "0x 1x 2x 3x" {
			t.Errorf("prompt %q", got)
		}
		a.Settle(Delivered)
	})
}

// Requests of others that fill the queue don't end one that is half done.
func TestChoicesWaitForRoomInTheQueue(t *testing.T) {
	inBubble(t, Options{QueueCapacity: 2}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(withChoices(1, "one", "two", "three", "four"))
		if len(f.infers) != 2 {
			t.Fatalf("%d submissions", len(f.infers))
		}
		var others []Answer
		for range maxSentWhileUnloaded { // those that the engine may still have, and two in the queue
			others = append(others, table.admit(withPrompt("other")))
		}
		for served := 0; served < len(f.infers); served++ {
			table.serve(f, f.infers[served], 1)
			if len(others) == 16 {
				continue
			}
			// Another one takes each place that it leaves.
			if other, err := table.Admit(t.Context(), newRequest(withPrompt("other"))); err == nil {
				others = append(others, other)
			}
		}
		if p := takeAll(a, map[int]string{}); p.Err != nil || !p.Last {
			t.Errorf("ended with %v, last %v", p.Err, p.Last)
		}
		for _, other := range append(others, a) {
			other.Settle(Delivered)
		}
	})
}

// What only a replay needs isn't kept for the choices that are done.
func TestChoicesThatAreDoneMakeRoomInTheJournal(t *testing.T) {
	inBubble(t, Options{JournalMaxBytes: 1 << 20}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		a := table.admit(func(r *Request) {
			r.Infer = &api.Request{Task: api.TaskEmbed, Inputs: make([]api.Input, 2*windowOfChoices)}
		})
		for served := 0; served < len(f.infers); served++ {
			s := f.infers[served]
			table.sendAccepted(f, s)
			table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishStop, PromptTokens: 3, Embedding: []float32{1}}}})
		}
		if p := takeAll(a, map[int]string{}); p.Err != nil || !p.Last {
			t.Errorf("ended with %v, last %v", p.Err, p.Last)
		}
		if n := a.PromptTokens(); n != 3*2*windowOfChoices {
			t.Errorf("%d prompt tokens", n)
		}
		a.Settle(Delivered)
	})
}

// An engine with other files renders a request anew that has no token, and its prompt has other log-probabilities.
func TestLogprobsOfAPromptAreThoseOfOneEngine(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, table *tableTest) {
		first := table.attach(LastExit{})
		a := table.admit(func(r *Request) { r.Infer.PromptLogprobs = true })
		score := func(f *fakeEngine, tokens ...int32) {
			s := f.last(t)
			table.sendAccepted(f, s)
			p := PromptPart{ID: s.ID, Attempt: s.Attempt}
			for _, id := range tokens {
				p.Tokens = append(p.Tokens, api.TokenLogprob{Token: id})
			}
			table.Step(f, &Step{Prompts: []PromptPart{p}})
		}
		score(first, 1, 2)
		table.lose(first)
		second := table.attach(LastExit{})
		score(second, 7, 8, 9)
		table.sendStop(second, second.last(t), 0)
		if got := a.Take(nil).Result.PromptLogprobs; len(got) != 3 || got[0].Token != 7 || got[1].Token != 8 {
			t.Errorf("got %+v", got)
		}
		a.Settle(Delivered)
	})
}

// A request whose choices don't fit the journal together is answered by few at a time.
func TestChoicesComeAsTheJournalHasRoom(t *testing.T) {
	inBubble(t, Options{JournalMaxBytes: 1 << 20}, func(t *testing.T, table *tableTest) {
		f := table.attach(LastExit{})
		const choices = 4
		a := table.admit(func(r *Request) {
			withChoices(choices)(r)
			r.Infer.FitContext, r.Infer.Logprobs, r.Infer.TopLogprobs = true, true, 20 // half a MiB each
		})
		for i := range choices {
			table.serve(f, table.nextSubmission(f, i, time.Second), 1)
		}
		if p := takeAll(a, map[int]string{}); p.Err != nil || !p.Last {
			t.Errorf("ended with %v, last %v", p.Err, p.Last)
		}
		a.Settle(Delivered)
	})
}

// Requests of others that fill the journal don't end a list that is half done: it goes on when they are gone, or ends
// with its time.
func TestChoicesWaitForRoomInTheJournal(t *testing.T) {
	for name, want := range map[string]api.Type{"the others end": "", "they stay": api.TypeDeadlineExceeded} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{JournalMaxBytes: 100 << 10}, func(t *testing.T, table *tableTest) {
				f := table.attach(LastExit{})
				table.Stats(f, &Stats{Bases: []BaseStats{{Model: "demo", Sequences: 64}}})
				large := api.Input{Text: strings.Repeat("a", 4<<10)} // 40 KiB of the journal, the small ones have 20
				a := table.admit(func(r *Request) {
					r.Timeout = time.Minute
					r.Infer = &api.Request{Task: api.TaskEmbed, Inputs: []api.Input{{Text: "a"}, {Text: "b"}, {Text: "c"}, large}}
				})
				var others []Answer
				for _, text := range []string{"a", "b", "c"} {
					for {
						other, err := table.Admit(t.Context(), newRequest(withPrompt("other")))
						if err != nil {
							break
						}
						others = append(others, other)
					}
					table.serveEmbedding(f, f.byPrompt(text))
				}
				time.Sleep(time.Second + time.Millisecond) // between two ticks of the table
				if want == "" {
					for _, other := range others {
						other.Settle(ClientGone)
					}
					others = nil
					table.serveEmbedding(f, table.nextSubmission(f, len(f.infers), time.Second))
				} else {
					time.Sleep(time.Minute)
				}
				p := takeAll(a, map[int]string{})
				if !p.Last || want == "" && p.Err != nil || want != "" && (p.Err == nil || p.Err.Type != want) {
					t.Errorf("ended with %v, last %v; want %q", p.Err, p.Last, want)
				}
				for _, each := range append(others, a) {
					each.Settle(ClientGone)
				}
			})
		})
	}
}

// serveEmbedding answers a submission with an embedding.
func (table *tableTest) serveEmbedding(f *fakeEngine, s *Submission) {
	table.sendAccepted(f, s)
	table.Step(f, &Step{Done: []Summary{{ID: s.ID, Attempt: s.Attempt, Reason: FinishStop, PromptTokens: 3, Embedding: []float32{1}}}})
}
