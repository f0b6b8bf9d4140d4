//go:build llama

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tandem/scripts/models/tinybert"
)

// post sends a body and returns the status and what came.
func (s *testServer) post(ctx context.Context, path string, body any) (int, string, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, strings.NewReader(string(text)))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-API-Key", s.key)
	resp, err := s.client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(answer), err
}

// embed returns the embeddings of texts or lists of tokens.
func (s *testServer) embed(model string, input any) ([][]float64, error) {
	status, body, err := s.post(s.t.Context(), "/v1/embeddings", map[string]any{"model": model, "input": input})
	if err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("status %d, %w: %s", status, err, body)
	}
	var reply struct {
		Data []struct {
			Index     int
			Embedding []float64
		}
	}
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		return nil, err
	}
	out := make([][]float64, len(reply.Data))
	for _, d := range reply.Data {
		out[d.Index] = d.Embedding
	}
	return out, nil
}

func cosineOf(a, b []float64) float64 {
	var dot, aa, bb float64
	for i := range a {
		dot, aa, bb = dot+a[i]*b[i], aa+a[i]*a[i], bb+b[i]*b[i]
	}
	return dot / math.Sqrt(aa*bb)
}

// TestEmbeddingsAndScoresOfEncoders compares what clients get with a computation that shares nothing with the engine,
// and kills the engine meanwhile: the replayed texts have the same vectors.
func TestEmbeddingsAndScoresOfEncoders(t *testing.T) {
	s := startServer(t, "DEMO_MODEL=true")
	encoder, reranker := tinybert.New(tinybert.PoolingCLS, 3), tinybert.New(tinybert.PoolingRank, 4)
	s.installModelFile("bert/model.gguf", encoder.GGUF())
	s.installModelFile("reranker/model.gguf", reranker.GGUF())
	s.waitListed("bert")
	s.waitListed("reranker")

	around := func(m *tinybert.Model, texts ...string) []int32 {
		tokens := []int32{tinybert.CLS}
		for _, text := range texts {
			tokens = append(append(tokens, m.Tokens(text)...), tinybert.SEP)
		}
		return tokens
	}
	texts := []string{"the capital of france is paris", "big house", "what is the capital of germany and where is berlin"}
	check := func() {
		got, err := s.embed("bert", texts)
		if err != nil || len(got) != len(texts) {
			t.Errorf("embeddings: %v", err)
			return
		}
		for i, text := range texts {
			if c := cosineOf(got[i], encoder.Embed(around(encoder, text))); c < 0.999 {
				t.Errorf("%q: cosine %v", text, c)
			}
		}
	}
	check()
	for range 3 {
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(check)
		}
		s.signalEngine(syscall.SIGKILL)
		clients.Wait()
	}

	status, body, err := s.post(t.Context(), "/v1/rerank", map[string]any{"model": "reranker", "query": "capital of france", "documents": texts, "raw_scores": true})
	if err != nil || status != http.StatusOK {
		t.Fatalf("rerank: %d, %v: %s", status, err, body)
	}
	var ranking struct {
		Results []struct {
			Index int
			Score float64 `json:"relevance_score"`
		}
	}
	if err := json.Unmarshal([]byte(body), &ranking); err != nil || len(ranking.Results) != len(texts) {
		t.Fatalf("%v in %s", err, body)
	}
	for _, r := range ranking.Results {
		if want := reranker.Score(around(reranker, "capital of france", texts[r.Index])); math.Abs(r.Score-want) > 0.01 {
			t.Errorf("document %d has the score %v, want %v", r.Index, r.Score, want)
		}
	}
}

func TestWhatAModelCannotDo(t *testing.T) {
	s := startServer(t, "DEMO_MODEL=true")
	s.installModelFile("bert/model.gguf", tinybert.New(tinybert.PoolingMean, 3).GGUF())
	s.installModelFile("reranker/model.gguf", tinybert.New(tinybert.PoolingRank, 4).GGUF())
	s.waitListed("bert")
	s.waitListed("reranker")
	user := []map[string]string{{"role": "user", "content": "hello"}}
	for _, c := range []struct {
		name, path string
		body       map[string]any
		want       string
	}{
		{"an answer of an encoder", "/v1/chat/completions", map[string]any{"model": "bert", "messages": user}, "can't generate text"},
		{"an embedding of a reranker", "/v1/embeddings", map[string]any{"model": "reranker", "input": "hello"}, "can't give embeddings"},
		{"a score of an encoder", "/v1/rerank", map[string]any{"model": "bert", "query": "a", "documents": []string{"b"}}, "can't score documents"},
		{"a score of a chat model", "/v1/rerank", map[string]any{"model": "demo", "query": "a", "documents": []string{"b"}}, "can't score documents"},
		{"a text over the context", "/v1/embeddings", map[string]any{"model": "bert", "input": strings.Repeat("paris ", 200)}, "96 tokens"},
		{"tokens that don't exist", "/v1/embeddings", map[string]any{"model": "bert", "input": []int{5, 1 << 20}}, "token"},
	} {
		status, body, err := s.post(t.Context(), c.path, c.body)
		if err != nil || status != http.StatusBadRequest || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d, %v: %s", c.name, status, err, body)
		}
	}
	if vectors, err := s.embed("demo", "The capital of France"); err != nil || !slices.ContainsFunc(vectors[0], func(x float64) bool { return x != 0 }) {
		t.Errorf("an embedding of a chat model: %v, %v", vectors, err)
	}
	if a := s.mustInfer(question("What is the capital of France?", "v1.0")); a.Result != "The capital of France is Paris." {
		t.Errorf("the demo model answers %d %s", a.Status, a.Body)
	}
}
