//go:build llama

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"

	"tandem/scripts/models/fixedanswer"
	"tandem/scripts/models/tinybert"
)

// TestModelsBeforeALoad compares what /v1/models says of models before and after they are loaded.
func TestModelsBeforeALoad(t *testing.T) {
	s := startServer(t, "DEMO_MODEL=true", "PRELOAD=false", "CACHE_SIZE=8")
	thinker, err := fixedanswer.Model("Felix does.")
	if err != nil {
		t.Fatal(err)
	}
	base := unpackDemoFile(t, "demo-q8_0.gguf.xz")
	s.installModelFile("tools/model.gguf", thinker)
	s.installModelFile("off/model.gguf", thinker)
	s.installModelFile("off/model.yaml", []byte("template: \"off\"\n"))
	s.installModelFile("plain/model.gguf", base)
	s.installModelFile("bare/model.gguf", bytes.Replace(base, []byte("tokenizer.chat_template"), []byte("tokenizer.chat_xxxxxxxx"), 1))
	s.installModelFile("bert/model.gguf", tinybert.New(tinybert.PoolingMean, 3).GGUF())
	s.installModelFile("reranker/model.gguf", tinybert.New(tinybert.PoolingRank, 4).GGUF())
	s.installModelFile("pooled/model.gguf", tinybert.New(tinybert.PoolingRank, 4).GGUF())
	s.installModelFile("pooled/model.yaml", []byte("pooling: cls\n"))
	for model, want := range map[string][]string{
		"demo":     {"chat", "completion", "embeddings"},
		"tools":    {"chat", "completion", "tools", "reasoning", "embeddings"},
		"off":      {"completion", "embeddings"},
		"plain":    {"chat", "completion", "embeddings"},
		"bare":     {"completion", "embeddings"},
		"bert":     {"embeddings"},
		"reranker": {"rerank"},
		"pooled":   {"embeddings"},
	} {
		s.waitListed(model)
		id := model + ":base"
		before := s.listed(id)
		if before.State != "not_loaded" || !slices.Equal(before.File.Capabilities, want) || before.File.ContextLength == 0 {
			t.Errorf("%s: %+v before a load, want %q", model, before, want)
		}
		path, body := "/v1/embeddings", map[string]any{"model": id, "input": "paris"}
		if model == "reranker" {
			path, body = "/v1/rerank", map[string]any{"model": id, "query": "paris", "documents": []string{"paris"}}
		}
		if status, reply, err := s.post(t.Context(), path, body); err != nil || status != 200 {
			t.Errorf("%s: %d, %v: %s", model, status, err, reply)
		}
		if after := s.listed(id); after.State != "loaded" || !reflect.DeepEqual(after.File, before.File) {
			t.Errorf("%s: %+v after a load, before it %+v", model, after, before)
		}
	}
}

// listedModel is an entry of /v1/models.
type listedModel struct {
	State string
	File  struct {
		ContextLength int `json:"context_length"`
		Architecture  string
		Quantization  string
		Capabilities  []string
	} `json:"-"`
}

func (s *testServer) listed(id string) (m listedModel) {
	s.t.Helper()
	status, body, err := s.get("/v1/models/" + id)
	if err == nil && status == 200 {
		err = errors.Join(json.Unmarshal([]byte(body), &m), json.Unmarshal([]byte(body), &m.File))
	}
	if err != nil || status != 200 {
		s.t.Fatalf("%s: %d, %v: %s", id, status, err, body)
	}
	return m
}
