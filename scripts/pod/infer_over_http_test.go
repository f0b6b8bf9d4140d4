package pod

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// apiKey is the API key of the README's examples.
const apiKey = "demo-key"

// requestTimeout is for one request, during which an engine may be killed.
const requestTimeout = 2 * time.Minute

// answer is a response of /infer.
type answer struct {
	Result   string `json:"result"`
	Metadata struct {
		Model   string `json:"model"`
		Version string `json:"version"`
		Tokens  int    `json:"tokens_generated"`
	} `json:"metadata"`
}

// ask sends a request to /infer. A status other than 200 is an error.
func (p *pod) ask(ctx context.Context, body string) (answer, error) {
	var a answer
	status, raw, err := p.request(ctx, http.MethodPost, "/infer", body)
	if err != nil {
		return a, err
	}
	if status != http.StatusOK {
		return a, fmt.Errorf("/infer: status %d: %s", status, raw)
	}
	return a, json.Unmarshal(raw, &a)
}

func (p *pod) request(ctx context.Context, method, path, body string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := p.send(ctx, method, path, body)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return res.StatusCode, raw, err
}

// send opens a connection for each request, so that none is reused after its pod is gone.
func (p *pod) send(ctx context.Context, method, path, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-API-Key", apiKey)
	return http.DefaultClient.Do(req)
}

// stream asks for server-sent events and returns the text of all pieces. It calls underWay once, after the given number
// of pieces.
func (p *pod) stream(ctx context.Context, body string, pieces int, underWay func()) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := p.send(ctx, http.MethodPost, "/infer", body)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		raw, err := io.ReadAll(res.Body)
		return "", fmt.Errorf("stream: status %d: %s, %v", res.StatusCode, raw, err)
	}
	var text strings.Builder
	name, seen := "", 0
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "event":
			name = value
		case "data":
			if name != "" {
				return text.String(), fmt.Errorf("event %s: %s", name, value)
			}
			var e struct {
				Text   *string `json:"text"`
				Result *string `json:"result"`
			}
			if err := json.Unmarshal([]byte(value), &e); err != nil {
				return text.String(), fmt.Errorf("event %q: %w", value, err)
			}
			if e.Result != nil {
				if *e.Result != text.String() {
					return text.String(), fmt.Errorf("the pieces make %q, the result is %q", text.String(), *e.Result)
				}
				return text.String(), nil
			}
			if e.Text != nil {
				text.WriteString(*e.Text)
			}
			if seen++; seen == pieces && underWay != nil {
				underWay()
			}
		}
	}
	return text.String(), fmt.Errorf("the stream ended after %q", text.String())
}
