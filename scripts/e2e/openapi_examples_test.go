package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// examplesDir has the replies to the document's examples. CAPTURE_EXAMPLES=1 writes them: with llama.cpp those of the
// demo model, without it those that only the mock engine gives. go run ./scripts/docs puts them into the document.
const examplesDir = "../../proxy/server/openapi/examples"

// capturedReply is a file of examplesDir.
type capturedReply struct {
	Status int             `json:"status"`
	Type   string          `json:"type"`
	Path   string          `json:"path"`
	Body   json.RawMessage `json:"body"`
}

// Each example of the document is answered as the document says, and in the form of the committed reply.
func TestExamplesOfTheDocumentAreAnswered(t *testing.T) {
	s := startServer(t)
	capture := os.Getenv("CAPTURE_EXAMPLES") != ""
	compared := 0
	for _, o := range s.openAPI().operations {
		for _, x := range o.exampleRequests() {
			reply, problem := s.sendExample(o, x)
			if problem != "" {
				t.Errorf("%s %s: %s", o.id, x.name, problem)
				continue
			}
			file := filepath.Join(examplesDir, o.id+"."+x.name+".json")
			switch {
			case capture && withLlama != (o.id == rerankID):
				writeExample(t, file, reply)
				continue
			case capture || withLlama && o.id == rerankID: // the demo model can't score documents, the mock engine can
				continue
			}
			compareExample(t, file, reply)
			compared++
		}
	}
	if !capture && compared < 10 {
		t.Errorf("only %d examples", compared)
	}
}

const (
	rerankID = "rerank"
	streamID = "resumeStream"
)

// beginResumableStream leaves a stream after its first bytes and returns its id.
func (s *testServer) beginResumableStream() string {
	s.t.Helper()
	resp, err := s.openStream(s.t.Context(), "/v1/chat/completions", chatOf("What is the capital of France?", "max_tokens", 64,
		"stream", true, "stream_options", map[string]any{"resume": 60}))
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
		s.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		s.t.Fatal(err)
	}
	return resp.Header.Get("X-Stream-Id")
}

type exampleRequest struct{ name, path, body string }

// exampleRequests are the examples of an operation: bodies, or paths where it has none.
func (o *apiOperation) exampleRequests() (list []exampleRequest) {
	for name, body := range o.examples {
		list = append(list, exampleRequest{name, o.path, body})
	}
	for name, path := range member(o.doc.root, "paths", o.path, strings.ToLower(o.method), "x-examples") {
		list = append(list, exampleRequest{name, path.(string), ""})
	}
	return list
}

// sendExample sends a request under a fixed id and checks the reply.
func (s *testServer) sendExample(o *apiOperation, x exampleRequest) (capturedReply, string) {
	path := x.path
	if o.id == streamID && strings.Contains(path, "{id}") {
		path = strings.Replace(path, "{id}", s.beginResumableStream(), 1)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), o.method, s.url+path, strings.NewReader(x.body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("X-Request-Id", "example")
	if o.key {
		r.Header.Set("X-API-Key", s.key)
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return capturedReply{}, err.Error()
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return capturedReply{}, err.Error()
	}
	body := string(raw)
	if problem := o.checkReply(resp.StatusCode, resp.Header.Get("Content-Type"), body); problem != "" {
		return capturedReply{}, problem
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	reply := capturedReply{Status: resp.StatusCode, Type: kind, Path: x.path, Body: json.RawMessage(body)}
	if kind != "application/json" {
		text, err := json.Marshal(body)
		if err != nil {
			s.t.Fatal(err)
		}
		reply.Body = text
	}
	return reply, ""
}

// passing are members whose values are other ones each time.
var passing = regexp.MustCompile(`(\\?"(?:created|created_at|completed_at|timestamp|response_time|generation_time|memory_free|memory_total)\\?":)[0-9.]+`)

func writeExample(t *testing.T, file string, reply capturedReply) {
	t.Helper()
	reply.Body = passing.ReplaceAll(reply.Body, []byte("${1}1"))
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(reply); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// compareExample compares a reply with the committed one: status, type, and the members with their types. What a model
// says, and how many tokens it takes, is not compared.
func compareExample(t *testing.T, file string, reply capturedReply) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Errorf("%v; CAPTURE_EXAMPLES=1 writes it", err)
		return
	}
	var committed capturedReply
	if err := json.Unmarshal(text, &committed); err != nil {
		t.Fatal(err)
	}
	if committed.Status != reply.Status || committed.Type != reply.Type {
		t.Errorf("%s: status %d and %s, today %d and %s", file, committed.Status, committed.Type, reply.Status, reply.Type)
		return
	}
	before, now := formOfReply(t, committed), formOfReply(t, reply)
	if !slices.Equal(before, now) {
		t.Errorf("%s has the form\n%s\ntoday it is\n%s\nwith the reply %s", file, strings.Join(before, "\n"), strings.Join(now, "\n"), reply.Body)
	}
}

// formOfReply lists the places of all members with the types of their values.
func formOfReply(t *testing.T, c capturedReply) (form []string) {
	t.Helper()
	bodies := []string{string(c.Body)}
	if c.Type != "application/json" {
		var stream string
		if err := json.Unmarshal(c.Body, &stream); err != nil {
			t.Fatal(err)
		}
		bodies = nil
		events, _ := sseEvents(stream)
		for _, e := range events {
			bodies = append(bodies, e.data)
		}
	}
	for _, body := range bodies {
		value, err := parseJSON(body)
		if err != nil {
			form = append(form, body) // [DONE]
			continue
		}
		addForm(value, "", &form)
	}
	slices.Sort(form)
	return slices.Compact(form)
}

func addForm(value any, place string, form *[]string) {
	switch v := value.(type) {
	case map[string]any:
		for name, m := range v {
			if optionalMembers[name] {
				continue
			}
			addForm(m, place+"."+name, form)
		}
	case []any:
		for _, entry := range v {
			addForm(entry, place+"[]", form)
		}
	default:
		*form = append(*form, fmt.Sprintf("%s %T", place, value))
	}
}

// optionalMembers depend on what was asked before, and on the engine.
var optionalMembers = map[string]bool{"context_length": true, "devices": true}
