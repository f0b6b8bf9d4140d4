package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

func TestClientThatLeavesIsForgotten(t *testing.T) {
	settings := []string{"MOCK_TOKEN_DELAY=50ms"}
	s := startServer(t, settings...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	prompt := strings.Repeat("Tell me a long story about a fox. ", 5)
	body, _ := json.Marshal(map[string]any{"prompt": prompt, "base_model": "demo", "adapter_version": "v1.0", "stream": true, "max_new_tokens": 200,
		"temperature": 1.9, "seed": 7})
	_, err := s.stream(ctx, string(body), func(event) bool { cancel(); return true })
	if err == nil && !withLlama {
		t.Fatal("the stream ended although its client left")
	}
	scraped := s.waitIdle()
	checkInvariants(t, scraped)
	if !withLlama && scraped.sum("llm_requests_cancelled_total") != 1 {
		t.Errorf("cancelled: %v", scraped.sum("llm_requests_cancelled_total"))
	}
}

func TestSlowLorisIsCutOffAndDisturbsNobody(t *testing.T) {
	onceWithMock(t)
	s := startServer(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nX-API-Key: %s\r\n", s.key)
	start := time.Now()
	a := s.mustInfer(question("What is the capital of France?", "v1.0"))
	if a.Status != 200 {
		t.Errorf("another client got %d", a.Status)
	}
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for {
		if _, err := conn.Read(make([]byte, 512)); err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Fatal("the connection was still open after 30 s")
			}
			break
		}
	}
	t.Logf("cut off after %v", time.Since(start).Round(time.Millisecond))
}
