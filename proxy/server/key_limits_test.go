package server

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/auth"
	"tandem/proxy/inflight"
	"tandem/proxy/limit"
	"tandem/scripts/await"
)

// startLimitedServer starts a server whose key testKey has the given limits.
func startLimitedServer(t *testing.T, table Requests, limits string) *testServer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.yaml")
	text := "keys: [{name: demo, sha256: " + sha256Hex(testKey) + ", " + limits + "}]"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := auth.Open(auth.Options{File: path, ParseRate: parseRate})
	if err != nil {
		t.Fatal(err)
	}
	return startTestServer(t, table, func(o *Options) { o.Keys, o.Limits = keys, limit.NewLocal(100, time.Now()) })
}

func TestConcurrencyLimit(t *testing.T) {
	table, answers := manualTable()
	ts := startLimitedServer(t, table, "concurrency: 2")
	replies := make(chan int, 4)
	ask := func(body string) { go func() { replies <- ts.postInfer(body).StatusCode }() }
	ask(inferBody)
	ask(streamed(inferBody))
	first, second := receiveWithin(t, "request", answers, waitLimit), receiveWithin(t, "request", answers, waitLimit)
	r := ts.postInfer(inferBody)
	if typ, _, _ := decodeError(t, r); r.StatusCode != 429 || typ != "rate_limited" || r.Header.Get("Retry-After") != "1" {
		t.Errorf("a third of two: status %d, %s, headers %v", r.StatusCode, typ, r.Header)
	}
	for _, a := range []*fakeAnswer{first, second} { // one whole, one as a stream
		a.addText("x")
		a.end(1)
		if got := receiveWithin(t, "reply", replies, waitLimit); got != 200 {
			t.Errorf("status %d", got)
		}
		receiveWithin(t, "settle", a.settled, waitLimit)
	}
	// Refusals give their place back, too, whatever they are for.
	table.admit = func(inflight.Request) (inflight.Answer, *api.Error) { return nil, api.QueueFull(1, time.Second) }
	for range 5 {
		if r := ts.postInfer(inferBody); r.StatusCode != 503 {
			t.Errorf("status %d, want 503 each time", r.StatusCode)
		}
	}
	await.Until(t, waitLimit, "all places are free", func() bool {
		ts.places.mu.Lock()
		defer ts.places.mu.Unlock()
		return len(ts.places.taken) == 0
	})
	ts.expectMetric(1, "llm_rate_limit_decisions_total", "scope", "concurrency", "decision", "denied")
}

// What is expected of a request is counted when it comes, and what it took in place of it when it ends.
func TestTokenLimit(t *testing.T) {
	table, answers := manualTable()
	ts := startLimitedServer(t, table, "tokens_per_minute: 10000")
	body := `{"prompt":"` + "0123456789" + `","max_new_tokens":6000}` // 10 tokens and 6000 new ones are expected
	done := make(chan reply, 1)
	ask := func() *fakeAnswer {
		go func() { done <- ts.postInfer(body) }()
		return receiveWithin(t, "request", answers, waitLimit)
	}
	remaining := func(r reply) int {
		n, err := strconv.Atoi(r.Header.Get("X-Ratelimit-Remaining-Tokens"))
		if err != nil || r.Header.Get("X-Ratelimit-Limit-Tokens") != "10000" || r.Header.Get("X-Ratelimit-Reset-Tokens") == "" {
			t.Errorf("headers %v", r.Header)
		}
		return n
	}
	a := ask()
	r := ts.postInfer(body) // beside the first there is no room for as much again
	wait, _ := strconv.Atoi(r.Header.Get("Retry-After"))
	if typ, _, _ := decodeError(t, r); r.StatusCode != 429 || typ != "rate_limited" || wait < 10 || wait > 13 {
		t.Errorf("status %d, %s, headers %v", r.StatusCode, typ, r.Header)
	}
	for range 90 {
		a.addText("x")
	}
	a.end(90)
	if n := remaining(receiveWithin(t, "reply", done, waitLimit)); n != 10_000-6010 {
		t.Errorf("%d tokens were left while the first one ran, want %d", n, 10_000-6010)
	}
	// It took 9 of the prompt and 90 new ones.
	a = ask()
	a.fail(api.NewError(api.TypeDecodeFailed, "no"), true)
	n := remaining(receiveWithin(t, "reply", done, waitLimit))
	if spent := 10_000 - 6010 - n; spent < 0 || spent > 99 {
		t.Errorf("%d tokens were left beside the second one: the first cost %d, want 99 or, as time passes, less", n, spent)
	}
	ts.expectMetric(2, "llm_rate_limit_decisions_total", "scope", "tokens", "decision", "allowed")
}

// A request that takes more than was expected is counted while it runs.
func TestTokensBeyondTheExpectedCountWhileTheyCome(t *testing.T) {
	table, answers := manualTable()
	ts := startLimitedServer(t, expectTokens{table, 1}, "tokens_per_minute: 1000")
	done := make(chan reply, 1)
	go func() { done <- ts.postInfer(streamed(inferBody)) }()
	a := receiveWithin(t, "request", answers, waitLimit)
	for range 900 {
		a.addText("x")
	}
	receiveWithin(t, "write", a.written, waitLimit)
	await.Until(t, waitLimit, "the tokens to be counted", func() bool {
		d := ts.opts.Limits.AllowN("tokens:demo", limit.Rate{Requests: 1000, Unit: tokenUnit}, 0, time.Now())
		return d.Remaining < 200
	})
	a.end(900)
	if r := receiveWithin(t, "reply", done, waitLimit); r.StatusCode != 200 {
		t.Errorf("status %d", r.StatusCode)
	}
}

// The tokens of a prompt count as soon as an engine has taken it: the answer's don't hide in what was expected of it.
func TestPromptCountsBesideTheTokensOfItsAnswer(t *testing.T) {
	table, answers := manualTable()
	longPrompt := &fakeTable{current: readyStatus(), admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
		a, err := table.admit(r)
		return promptOf{a.(*fakeAnswer), 500}, err
	}}
	ts := startLimitedServer(t, expectTokens{longPrompt, 510}, "tokens_per_minute: 2000")
	done := make(chan reply, 1)
	go func() { done <- ts.postInfer(streamed(inferBody)) }()
	a := receiveWithin(t, "request", answers, waitLimit)
	for range 500 {
		a.addText("x")
	}
	receiveWithin(t, "write", a.written, waitLimit)
	await.Until(t, waitLimit, "the tokens to be counted", func() bool {
		d := ts.opts.Limits.AllowN("tokens:demo", limit.Rate{Requests: 2000, Unit: tokenUnit}, 0, time.Now())
		return d.Remaining < 1200 // 2000 - 500 - 500, and what time gives back
	})
	a.end(500)
	if r := receiveWithin(t, "reply", done, waitLimit); r.StatusCode != 200 {
		t.Errorf("status %d", r.StatusCode)
	}
}

// The tokens of choices that nobody takes any more count like the others: when another one fails, and when the client
// leaves.
func TestTokensOfChoicesThatAreNotTakenCount(t *testing.T) {
	tests := map[string]func(*testing.T, *fakeAnswer, net.Conn){
		"one fails": func(t *testing.T, a *fakeAnswer, _ net.Conn) {
			a.fail(api.NewError(api.TypeDecodeFailed, "no"), true)
			a.expectOutcome(t, inflight.Failed)
		},
		"the client leaves": func(t *testing.T, a *fakeAnswer, c net.Conn) {
			_ = c.Close()
			a.expectOutcome(t, inflight.ClientGone)
		},
	}
	for name, end := range tests {
		t.Run(name, func(t *testing.T) {
			table, answers := manualTable()
			ts := startLimitedServer(t, expectTokens{table, 100}, "tokens_per_minute: 10000")
			c, _ := ts.dial()
			ts.send(c, rawInfer(inferBody, "HTTP/1.1"))
			a := receiveWithin(t, "request", answers, waitLimit)
			a.mu.Lock()
			a.generated = 4 * 2000
			a.mu.Unlock()
			end(t, a, c)
			await.Until(t, waitLimit, "the tokens to be counted", func() bool {
				d := ts.opts.Limits.AllowN("tokens:demo", limit.Rate{Requests: 10_000, Unit: tokenUnit}, 0, time.Now())
				return d.Remaining < 5000 // 10,000 - 8000, and what time gives back
			})
		})
	}
}

// promptOf is an answer to a prompt of so many tokens.
type promptOf struct {
	*fakeAnswer
	tokens int
}

func (a promptOf) PromptTokens() int { return a.tokens }

// expectTokens is a request table that expects answers of so many tokens, their prompts included.
type expectTokens struct {
	*fakeTable
	tokens int
}

func (e expectTokens) ExpectedTokens(*api.Request) int { return e.tokens }
