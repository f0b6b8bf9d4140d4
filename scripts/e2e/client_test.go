package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

func (s *testServer) get(path string) (int, string, error) {
	resp, err := s.client.Get(s.url + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// answer is a response of POST /infer.
type answer struct {
	Status int
	Header http.Header
	Body   string

	Result   string `json:"result"`
	Metadata struct {
		Model          string  `json:"model"`
		Version        string  `json:"version"`
		Tokens         int     `json:"tokens_generated"`
		ResponseTime   float64 `json:"response_time"`
		GenerationTime float64 `json:"generation_time"`
		FinishReason   string  `json:"finish_reason"`
		PromptTokens   int     `json:"prompt_tokens"`
		CachedTokens   int     `json:"cached_tokens"`
		Seed           uint64  `json:"seed"`
	} `json:"metadata"`
	Error struct {
		Type      string  `json:"type"`
		Message   string  `json:"message"`
		Param     *string `json:"param"`
		RequestID string  `json:"request_id"`
	} `json:"error"`
}

func (s *testServer) request(ctx context.Context, body string, headers ...string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/infer", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", s.key)
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] == "" {
			r.Header.Del(headers[i])
			continue
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	return r, nil
}

var errNotJSON = errors.New("the body is no JSON")

// infer posts a body and decodes what comes back.
func (s *testServer) infer(ctx context.Context, body string, headers ...string) (*answer, error) {
	r, err := s.request(ctx, body, headers...)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(r)
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

func (s *testServer) mustInfer(body string, headers ...string) *answer {
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

// event is a server-sent event.
type event struct{ id, name, data string }

// stream posts a streaming request and calls each for every event until the stream ends or each returns false.
func (s *testServer) stream(ctx context.Context, body string, each func(event) bool, headers ...string) (int, error) {
	r, err := s.request(ctx, body, headers...)
	if err != nil {
		return 0, err
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		raw, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, fmt.Errorf("status %d: %s", resp.StatusCode, raw)
	}
	return resp.StatusCode, readEvents(resp.Body, each)
}

// readEvents calls each for every event until they end or each returns false.
func readEvents(from io.Reader, each func(event) bool) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	var e event
	for lines.Scan() {
		switch line := lines.Text(); {
		case line == "":
			if e.data != "" && !each(e) {
				return nil
			}
			e = event{}
		case strings.HasPrefix(line, "id: "):
			e.id = line[len("id: "):]
		case strings.HasPrefix(line, "event: "):
			e.name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			e.data = line[len("data: "):]
		}
	}
	return lines.Err()
}

// textOf returns the text in an event.
func textOf(e event) string {
	var piece struct {
		Text string `json:"text"`
	}
	if json.Unmarshal([]byte(e.data), &piece) != nil {
		return ""
	}
	return piece.Text
}
