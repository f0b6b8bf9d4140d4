//go:build llama

package llama

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/scripts/await"
)

// Comparisons with a running llama-server, built from the same source; LLAMA_SERVER names it (make test-peer).

var serverConversations = [][]models.Message{
	{{Role: "user", Content: france}},
	{{Role: "user", Content: "  two  spaces, a\ttab,\n\na blank line and no end  "}},
	{{Role: "user", Content: "Grüße, 東京! 🙂 é́ \u200b zero"}},
	{{Role: "user", Content: "<b>|x|</b> {{ 7*7 }} {% if %} [INST] <|"}},
	{{Role: "system", Content: "Answer briefly."}, {Role: "user", Content: france}},
	{{Role: "user", Content: france}, {Role: "assistant", Content: "Paris."}, {Role: "user", Content: "And Italy?"}},
	{{Role: "user", Content: "1234567890 0xdeadbeef 3.14159 a_b-c d'e"}},
}

// TestTokensEqualLlamaServers renders and tokenises texts without control tokens with both.
func TestTokensEqualLlamaServers(t *testing.T) {
	b, _ := newBackend(t, nil)
	files := map[string]string{"demo": demoFile(t, "demo-q8_0.gguf")}
	for name, f := range templateFamilies {
		files[name] = demoWithTemplate(t, f.template, f.specials)
	}
	for name, path := range files {
		t.Run(name, func(t *testing.T) {
			server := startLlamaServer(t, path)
			base := loadFile(t, b, path, nil)
			for _, messages := range serverConversations {
				ours, err := base.Render(t.Context(), models.Input{Messages: messages})
				if err != nil {
					t.Fatal(err)
				}
				if theirs := server.tokenize(messages); len(theirs) == 0 || !slices.Equal(ours.Tokens, theirs) {
					t.Errorf("%+v:\nours   %v\ntheirs %v", messages, ours.Tokens, theirs)
				}
			}
		})
	}
}

// TestGreedyAnswersEqualLlamaServers sends both the same prompts.
func TestGreedyAnswersEqualLlamaServers(t *testing.T) {
	path := demoFile(t, "demo-q8_0.gguf")
	server := startLlamaServer(t, path)
	base, executor := loadDemo(t, nil)
	for _, question := range []string{france, "What is the capital of Japan?", "What is the capital of Peru?", "Hello", "What is the symbol of gold?"} {
		prompt := render(t, base, question)
		_, ours, err := generate(base, executor, nil, 0, prompt, greedy, 48)
		if err != nil {
			t.Fatal(err)
		}
		if theirs := server.generate(prompt, 48); len(theirs) == 0 || !slices.Equal(ours, theirs) {
			t.Errorf("%s:\nours   %v\ntheirs %v", question, ours, theirs)
		}
	}
}

// llamaServer is a running llama-server.
type llamaServer struct {
	t   *testing.T
	url string
}

func startLlamaServer(t *testing.T, model string) *llamaServer {
	t.Helper()
	program := os.Getenv("LLAMA_SERVER")
	if program == "" {
		t.Skip("LLAMA_SERVER names no program; make test-peer builds one")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	var log bytes.Buffer
	c := exec.Command(program, "--host", "127.0.0.1", "--port", strconv.Itoa(port), "-m", model, "-t", "1", "-c", "2048", "-np", "1", "--jinja")
	c.Stdout, c.Stderr = &log, &log
	c.Dir = backendDir(t) // where it looks for backends
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Logf("llama-server says:\n%s", log.Bytes())
		}
	})
	s := &llamaServer{t: t, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	await.Until(t, time.Minute, "llama-server is ready", func() bool {
		resp, err := http.Get(s.url + "/health")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return s
}

func (s *llamaServer) post(path string, question, answer any) {
	s.t.Helper()
	body, err := json.Marshal(question)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.Post(s.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: status %d, %v: %s", path, resp.StatusCode, err, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		s.t.Fatalf("%s: %v in %s", path, err, text)
	}
}

func (s *llamaServer) tokenize(messages []models.Message) []batch.Token {
	s.t.Helper()
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	list := make([]message, len(messages))
	for i, m := range messages {
		list[i] = message{m.Role, m.Content}
	}
	var rendered struct{ Prompt string }
	s.post("/apply-template", map[string]any{"messages": list}, &rendered)
	var answer struct{ Tokens []batch.Token }
	s.post("/tokenize", map[string]any{"content": rendered.Prompt, "add_special": true, "parse_special": true}, &answer)
	return answer.Tokens
}

// generate returns the token ids of a greedy answer, including the end token.
func (s *llamaServer) generate(prompt []batch.Token, most int) []batch.Token {
	s.t.Helper()
	var answer struct{ Tokens []batch.Token }
	s.post("/completion", map[string]any{"prompt": prompt, "n_predict": most, "temperature": 0, "return_tokens": true, "cache_prompt": false}, &answer)
	return answer.Tokens
}
