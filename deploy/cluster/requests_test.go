package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// storyRequest has a long answer that depends only on the model, and capitalRequest a short one.
const (
	storyRequest   = `{"prompt":"Tell me a story.","max_new_tokens":120,"base_model":"demo","adapter_version":"v1.0"}`
	capitalRequest = `{"prompt":"What is the capital of France?","base_model":"demo","adapter_version":"v1.0"}`
	requestTimeout = 3 * time.Minute
)

// newClient makes a client with connections of its own.
func newClient(keepAlive bool) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: !keepAlive}, Timeout: requestTimeout}
}

// post sends a request once: net/http would send it again on some connections that were closed.
func post(ctx context.Context, client *http.Client, url, key, body string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/infer", io.NopCloser(strings.NewReader(body)))
	if err != nil {
		return nil, err
	}
	request.ContentLength = int64(len(body))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-API-Key", key)
	return client.Do(request)
}

// ask returns the answer to a request. A status other than 200 is an error that names it and the type of the error.
func ask(ctx context.Context, client *http.Client, url, key, body string) (string, error) {
	response, err := post(ctx, client, url, key, body)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	var answer struct {
		Result string
		Error  struct{ Type, Message string }
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return "", fmt.Errorf("status %d: %s: %w", response.StatusCode, raw, err)
	}
	if response.StatusCode != http.StatusOK {
		return "", refusal{response.StatusCode, answer.Error.Type, answer.Error.Message}
	}
	return answer.Result, nil
}

// mustAsk asks on a connection of its own.
func (d *deployment) mustAsk(t *testing.T, body string) string {
	t.Helper()
	answer, err := ask(t.Context(), newClient(false), d.url, apiKey, body)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// refusal is an answer that isn't one.
type refusal struct {
	status        int
	kind, message string
}

func (r refusal) Error() string { return fmt.Sprintf("%d %s: %s", r.status, r.kind, r.message) }

// stream asks for server-sent events from the pod or Service at a URL, and calls underWay once after so many pieces.
// The pieces must make the result.
func stream(ctx context.Context, url, body string, pieces int, underWay func()) (string, error) {
	body = strings.TrimSuffix(body, "}") + `,"stream":true}`
	response, err := post(ctx, newClient(false), url, apiKey, body)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		raw, err := io.ReadAll(response.Body)
		return "", fmt.Errorf("status %d: %s, %v", response.StatusCode, raw, err)
	}
	var text strings.Builder
	name, seen := "", 0
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case field == "event":
			name = value
		case field == "data" && name != "":
			return text.String(), fmt.Errorf("event %s: %s", name, value)
		case field == "data":
			var event struct{ Text, Result *string }
			if err := json.Unmarshal([]byte(value), &event); err != nil {
				return text.String(), fmt.Errorf("event %q: %w", value, err)
			}
			if event.Result != nil && *event.Result != text.String() {
				return text.String(), fmt.Errorf("the pieces make %q, the result is %q", text.String(), *event.Result)
			} else if event.Result != nil {
				return text.String(), nil
			}
			if event.Text != nil {
				text.WriteString(*event.Text)
			}
			if seen++; seen == pieces {
				underWay()
			}
		}
	}
	return text.String(), fmt.Errorf("the stream ended after %q: %v", text.String(), lines.Err())
}

// load is clients of a Service, each of which asks the same again and again.
type load struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	outcomes []outcome
}

type outcome struct {
	kind        string // "answered", or what went wrong
	keepAlive   bool
	began, took time.Duration // since the load's begin
}

const answered = "answered"

// startLoad starts clients of a request, of which some keep their connection and others take a new one each time. It
// ends with the test, at the latest.
func (d *deployment) startLoad(t *testing.T, body string, keepAlive, newConnections int) *load {
	t.Helper()
	want := d.mustAsk(t, body)
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop}
	began := time.Now()
	for i := range keepAlive + newConnections {
		l.done.Go(func() { l.client(ctx, d.url, body, want, i < keepAlive, began) })
	}
	t.Cleanup(func() { l.end() })
	return l
}

func (l *load) client(ctx context.Context, url, body, want string, keepAlive bool, began time.Time) {
	client := newClient(keepAlive)
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		o := outcome{keepAlive: keepAlive, began: time.Since(began)}
		answer, err := ask(context.Background(), client, url, apiKey, body) // what has begun is waited for
		switch {
		case err != nil:
			o.kind = kindOf(err)
		case answer != want:
			o.kind = fmt.Sprintf("another answer: %q", answer)
		default:
			o.kind = answered
		}
		o.took = time.Since(began) - o.began
		l.mu.Lock()
		l.outcomes = append(l.outcomes, o)
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// kindOf is what errors of one cause have in common.
func kindOf(err error) string {
	var refused refusal
	var timeout net.Error
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("%d %s", refused.status, refused.kind)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH):
		return "connection refused" // a Service without pods answers in either way
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection cut"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	}
	return err.Error()
}

// end waits for the requests under way and returns what became of all.
func (l *load) end() summary {
	l.stop()
	l.done.Wait()
	s := summary{failed: map[string]int{}, first: time.Duration(math.MaxInt64)}
	for _, o := range l.outcomes {
		s.longest = max(s.longest, o.took)
		if o.kind == answered {
			s.answered++
			continue
		}
		s.failed[o.kind]++
		s.first = min(s.first, o.began)
		s.last = max(s.last, o.began+o.took)
	}
	return s
}

type summary struct {
	answered    int
	failed      map[string]int
	longest     time.Duration
	first, last time.Duration // the first failed request's begin and the last one's end
}

// failing is how long requests failed.
func (s summary) failing() time.Duration { return max(0, s.last-s.first) }

func (s summary) failures() (n int) {
	for _, count := range s.failed {
		n += count
	}
	return n
}

func (s summary) String() string {
	text := fmt.Sprintf("%d of %d failed", s.failures(), s.answered+s.failures())
	for _, kind := range slices.Sorted(maps.Keys(s.failed)) {
		text += fmt.Sprintf(", %d %s", s.failed[kind], kind)
	}
	if s.failures() > 0 {
		text += fmt.Sprintf(" within %.1f s", s.failing().Seconds())
	}
	return text + fmt.Sprintf("; the longest took %.1f s", s.longest.Seconds())
}
