package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// infer posts a body and decodes what comes back.
func (s *stack) infer(ctx context.Context, body string, headers ...string) (*answer, error) {
	r, err := s.request(ctx, body, headers...)
	if err != nil {
		return nil, err
	}
	resp, err := s.clients.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a := &answer{Status: resp.StatusCode, Header: resp.Header, Body: string(raw)}
	if err := json.Unmarshal(raw, a); err != nil {
		return a, fmt.Errorf("%w: %s", errNotJSON, raw)
	}
	return a, nil
}

func (s *stack) mustInfer(body string, headers ...string) *answer {
	s.t.Helper()
	a, err := s.infer(s.t.Context(), body, headers...)
	if err != nil {
		s.t.Fatalf("infer %s: %v", body, err)
	}
	return a
}

func question(text, version string) string {
	b, _ := json.Marshal(map[string]any{"prompt": text, "max_new_tokens": 64, "adapter_version": version, "base_model": "demo"})
	return string(b)
}

// event of a stream.
type event struct{ name, data string }

// stream posts a streaming request and calls each for every event until the stream ends or each returns false.
func (s *stack) stream(ctx context.Context, body string, each func(event) bool, headers ...string) (int, error) {
	r, err := s.request(ctx, body, headers...)
	if err != nil {
		return 0, err
	}
	resp, err := s.clients.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, fmt.Errorf("status %d: %s", resp.StatusCode, raw)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	var e event
	for lines.Scan() {
		switch line := lines.Text(); {
		case line == "":
			if e.data != "" && !each(e) {
				return resp.StatusCode, nil
			}
			e = event{}
		case strings.HasPrefix(line, "event: "):
			e.name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			e.data = line[len("data: "):]
		}
	}
	return resp.StatusCode, lines.Err()
}

// pieceOf is the text in an event.
func pieceOf(e event) string {
	var piece struct {
		Text string `json:"text"`
	}
	if json.Unmarshal([]byte(e.data), &piece) != nil {
		return ""
	}
	return piece.Text
}

func TestDocumentedRequestIsAnswered(t *testing.T) {
	s := newStack(t)
	a := s.mustInfer(`{"prompt": "What is the capital of France?", "max_new_tokens": 32, "adapter_version": "v1.0", "base_model": "demo"}`)
	if a.Status != 200 || a.Metadata.Model != "demo" || a.Metadata.Version != "v1.0" {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	if realModel && a.Result != "The capital of France is Paris." {
		t.Errorf("result is %q", a.Result)
	}
	m := a.Metadata
	if m.Tokens <= 0 || m.PromptTokens <= 0 || m.FinishReason != "stop" && m.FinishReason != "length" {
		t.Errorf("metadata: %+v", m)
	}
	if m.GenerationTime <= 0 || m.ResponseTime < m.GenerationTime {
		t.Errorf("times in seconds: response %v, generation %v", m.ResponseTime, m.GenerationTime)
	}
	if id := a.Header.Get("X-Request-Id"); id == "" {
		t.Error("no X-Request-Id")
	}
}

// TestDefaultVersionIsWhatTheSettingSays also for the built-in model: loaded at the start, and answering who names no version.
func TestDefaultVersionIsWhatTheSettingSays(t *testing.T) {
	s := newStack(t, "DEFAULT_VERSION=v1.1")
	s.waitFor(20*time.Second, "v1.1 in /status", func() bool {
		_, body, err := s.get("/status")
		return err == nil && strings.Contains(body, `"base_model":"demo","version":"v1.1"`)
	})
	for body, want := range map[string]string{`{"prompt":"Hi"}`: "v1.1", `{"prompt":"Hi","base_model":"demo"}`: "v1.1", `{"prompt":"Hi","adapter_version":"v1.0"}`: "v1.0"} {
		if a := s.mustInfer(body); a.Metadata.Version != want {
			t.Errorf("%s: %d %s, want version %s", body, a.Status, a.Body, want)
		}
	}
}

func TestStreamGivesTheSameAnswerAndMetadata(t *testing.T) {
	s := newStack(t, "STEP_DELAY=5ms") // slower than a write, so that tokens don't share events
	whole := s.mustInfer(question("What is the capital of France?", "v1.0"))
	var text strings.Builder
	var last event
	body := strings.Replace(question("What is the capital of France?", "v1.0"), "{", `{"stream":true,`, 1)
	events := 0
	_, err := s.stream(t.Context(), body, func(e event) bool {
		events++
		last = e
		var piece struct {
			Text string `json:"text"`
		}
		if json.Unmarshal([]byte(e.data), &piece) == nil {
			text.WriteString(piece.Text)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	var end answer
	if err := json.Unmarshal([]byte(last.data), &end); err != nil {
		t.Fatalf("last event %q: %v", last.data, err)
	}
	if text.String() != whole.Result || end.Result != whole.Result {
		t.Errorf("streamed %q, in the last event %q, unstreamed %q", text.String(), end.Result, whole.Result)
	}
	if end.Metadata.Tokens != whole.Metadata.Tokens || end.Metadata.FinishReason != whole.Metadata.FinishReason {
		t.Errorf("metadata streamed %+v, unstreamed %+v", end.Metadata, whole.Metadata)
	}
	if events < 3 {
		t.Errorf("only %d events", events)
	}
}
