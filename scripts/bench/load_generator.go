package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// target is a server and how to send requests to it.
type target struct {
	name   string
	url    string
	header http.Header
	body   func(i int) []byte
	tokens func(reply []byte) (int, error) // tokens returns how many tokens an unstreamed reply has
}

// tandemTarget is our own server.
func tandemTarget(url, model string, maxTokens int, prompt func(int) string, extra string) target {
	return target{
		name: "tandem", url: url + "/infer",
		header: http.Header{"Content-Type": {"application/json"}, "X-Api-Key": {"bench-key"}},
		body: func(i int) []byte {
			return fmt.Appendf(nil, `{"base_model":%q,"adapter_version":"base","prompt":%q,"max_new_tokens":%d%s}`, model, prompt(i), maxTokens, extra)
		},
		tokens: func(reply []byte) (int, error) {
			var a struct {
				Metadata struct {
					Tokens int `json:"tokens_generated"`
				} `json:"metadata"`
			}
			err := json.Unmarshal(reply, &a)
			return a.Metadata.Tokens, err
		},
	}
}

// llamaServerTarget is llama.cpp's own server.
func llamaServerTarget(url string, maxTokens int, prompt func(int) string, extra string) target {
	return target{
		name: "llama-server", url: url + "/completion",
		header: http.Header{"Content-Type": {"application/json"}},
		body: func(i int) []byte {
			return fmt.Appendf(nil, `{"prompt":%q,"n_predict":%d,"cache_prompt":false%s}`, prompt(i), maxTokens, extra)
		},
		tokens: func(reply []byte) (int, error) {
			var a struct {
				Tokens int `json:"tokens_predicted"`
			}
			err := json.Unmarshal(reply, &a)
			return a.Tokens, err
		},
	}
}

// loadResult is what one round of load did.
type loadResult struct {
	requests, tokens, events int
	elapsed                  time.Duration
}

func (r loadResult) tokensPerSecond() float64 { return float64(r.tokens) / r.elapsed.Seconds() }

// runLoad sends the requests with the numbers first, first+1 … from a number of clients and waits for all replies.
func runLoad(t target, clients, first, requests int) (loadResult, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: clients}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Minute}
	var next, tokens, events atomic.Int64
	var mu sync.Mutex
	var failure error
	r := loadResult{requests: requests}
	var group sync.WaitGroup
	began := time.Now()
	for range clients {
		group.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= requests {
					return
				}
				n, e, err := sendRequest(client, t, first+i)
				mu.Lock()
				failure = firstError(failure, err)
				mu.Unlock()
				tokens.Add(int64(n))
				events.Add(int64(e))
			}
		})
	}
	group.Wait()
	r.elapsed = time.Since(began)
	r.tokens, r.events = int(tokens.Load()), int(events.Load())
	return r, failure
}

func newRequest(t target, i int) (*http.Request, error) {
	req, err := http.NewRequest(http.MethodPost, t.url, bytes.NewReader(t.body(i)))
	if err == nil {
		req.Header = t.header
	}
	return req, err
}

func isStream(resp *http.Response) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
}

func sendRequest(client *http.Client, t target, i int) (tokens, events int, err error) {
	req, err := newRequest(t, i)
	if err != nil {
		return 0, 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		return 0, 0, fmt.Errorf("%s: status %d: %s", t.name, resp.StatusCode, body)
	}
	if isStream(resp) {
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if bytes.HasPrefix(lines.Bytes(), []byte("data: ")) {
				events++
			}
		}
		return 0, events, lines.Err()
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, 0, err
	}
	tokens, err = t.tokens(body)
	return tokens, 0, err
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
