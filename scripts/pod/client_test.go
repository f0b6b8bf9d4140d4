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

// secret is the API key of the README's examples.
const secret = "demo-key"

// requestEnd bounds one request, with an engine that dies in it.
const requestEnd = 2 * time.Minute

// answer is what /infer says.
type answer struct {
	Result   string `json:"result"`
	Metadata struct {
		Model   string `json:"model"`
		Version string `json:"version"`
		Tokens  int    `json:"tokens_generated"`
	} `json:"metadata"`
}

// ask sends one request to /infer. A status other than 200 is an error.
func (r *pod) ask(ctx context.Context, body string) (answer, error) {
	var a answer
	status, raw, err := r.do(ctx, http.MethodPost, "/infer", body)
	if err != nil {
		return a, err
	}
	if status != http.StatusOK {
		return a, fmt.Errorf("/infer: status %d: %s", status, raw)
	}
	return a, json.Unmarshal(raw, &a)
}

func (r *pod) do(ctx context.Context, method, path, body string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestEnd)
	defer cancel()
	res, err := r.send(ctx, method, path, body)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	return res.StatusCode, raw, err
}

// send opens a connection for each request, so that none is used after its pod has gone.
func (r *pod) send(ctx context.Context, method, path, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Close = true
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-API-Key", secret)
	return http.DefaultClient.Do(req)
}

// stream asks for server-sent events and gives the text that came in pieces. It calls begun once, when the given number of pieces is here.
func (r *pod) stream(ctx context.Context, body string, pieces int, begun func()) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestEnd)
	defer cancel()
	res, err := r.send(ctx, http.MethodPost, "/infer", body)
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
			if seen++; seen == pieces && begun != nil {
				begun()
			}
		}
	}
	return text.String(), fmt.Errorf("the stream ended after %q", text.String())
}
