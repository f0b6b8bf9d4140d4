package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestDocumentedRequestIsAnswered(t *testing.T) {
	s := startServer(t)
	a := s.mustInfer(`{"prompt": "What is the capital of France?", "max_new_tokens": 32, "adapter_version": "v1.0", "base_model": "demo"}`)
	if a.Status != 200 || a.Metadata.Model != "demo" || a.Metadata.Version != "v1.0" {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	if withLlama && a.Result != "The capital of France is Paris." {
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

// TestDefaultVersionIsWhatTheSettingSays for the built-in model, too: it is loaded at the start and answers requests
// that name no version.
func TestDefaultVersionIsWhatTheSettingSays(t *testing.T) {
	s := startServer(t, "DEFAULT_VERSION=v1.1")
	s.waitFor(failureLimit, "v1.1 in /status", func() bool {
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
	// slower than a write, so that tokens don't share events
	s := startServer(t, "STEP_DELAY=50ms", "MOCK_TOKEN_DELAY=50ms")
	unstreamed := s.mustInfer(question("What is the capital of France?", "v1.0"))
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
	if text.String() != unstreamed.Result || end.Result != unstreamed.Result {
		t.Errorf("streamed %q, in the last event %q, unstreamed %q", text.String(), end.Result, unstreamed.Result)
	}
	if end.Metadata.Tokens != unstreamed.Metadata.Tokens || end.Metadata.FinishReason != unstreamed.Metadata.FinishReason {
		t.Errorf("metadata streamed %+v, unstreamed %+v", end.Metadata, unstreamed.Metadata)
	}
	if events < 3 {
		t.Errorf("only %d events", events)
	}
}
