package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// agent is a coding client with a request of it, which the tests of its dialect's decoder keep. Here it is posted to
// both programs, and the reply is read as such a client reads it.
type agent struct {
	name, file, path string
	model            string // that of the file
	headers          []string
	assemble         func(t *testing.T, events []event) agentReply
	read             func(t *testing.T, reply map[string]any) agentReply

	mustCall     []any  // fields after which the model must call a tool
	conversation string // the field that says goes to
	says         func(role, text string) any
	lastText     string    // of the request; empty: it ends with a call that gave nothing
	call         agentCall // that the model makes
}

// agentReply is what an agent takes from a reply, whole or streamed.
type agentReply struct {
	model           string
	text, reasoning string
	calls           []agentCall
	promptTokens    int64
	answerTokens    int64
}

// agentCall is a call; input is JSON without blanks, or the text of a tool without a schema.
type agentCall struct{ name, input string }

var agents = []agent{
	{
		name: "claude", file: "../../proxy/api/anthropic/testdata/claude_code.json", path: "/v1/messages?beta=true", model: "org/demo:v1.0",
		headers:  []string{"Anthropic-Version", "2023-06-01", "Anthropic-Beta", "interleaved-thinking-2025-05-14", "X-Stainless-Lang", "js"},
		assemble: assembleMessage, read: readMessage,
		mustCall: []any{"tool_choice", map[string]any{"type": "any"}, "temperature", 0}, conversation: "messages",
		says:     func(role, text string) any { return map[string]any{"role": role, "content": text} },
		lastText: "<system-reminder>Be brief.</system-reminder>", call: agentCall{"Bash", `{"command":"which gcc"}`},
	},
	{
		name: "codex", file: "../../proxy/api/responses/testdata/codex.json", path: "/v1/responses", model: "org/coder:v2",
		headers:  []string{"Accept", "text/event-stream", "Originator", "codex_cli_rs", "Session_id", "0197a2"},
		assemble: assembleResponse, read: readResponse,
		mustCall: []any{"tool_choice", "required", "temperature", 0}, conversation: "input",
		says: func(role, text string) any { return map[string]any{"type": "message", "role": role, "content": text} },
		call: agentCall{"shell", `{"command":["ls","-a"]}`},
	},
}

const (
	agentThought = "A tool can tell. 🦊"
	goOn         = "Go on."
)

func TestRequestsOfCodingAgents(t *testing.T) {
	s := startAgentServer(t)
	for _, a := range agents {
		t.Run(a.name, func(t *testing.T) {
			sent := a.request(t, false)
			if !withLlama && a.lastText == "" { // the last message is the mock's whole prompt
				sent = a.and(sent, a.says("user", goOn))
			}
			s.checkAgent(t, &a, sent, a.answer(false))
		})
		t.Run(a.name+" must call", func(t *testing.T) {
			sent := a.and(a.request(t, true), a.says("assistant", "I don't know yet."), a.says("user", "think "+agentThought+"\ncall "+a.call.name+" "+a.call.input))
			s.checkAgent(t, &a, with(sent, a.mustCall...), a.answer(true))
		})
	}
	t.Run("claude counts", func(t *testing.T) {
		a := &agents[0]
		sent := a.request(t, false)
		reply := a.read(t, s.postToReply(t, a, with(sent, "stream", false)))
		counted := s.mustReply("/v1/messages/count_tokens", sent)
		if n := whole(counted["input_tokens"]); n < 1 || n != reply.promptTokens {
			t.Errorf("%v are counted for a prompt of %d tokens", counted, reply.promptTokens)
		}
	})
	checkInvariants(t, s.waitIdle())
}

// checkAgent asks for a stream, as the agents do, and for the whole reply.
func (s *testServer) checkAgent(t *testing.T, a *agent, sent map[string]any, want agentReply) {
	t.Helper()
	streamed := a.assemble(t, s.postToStream(t, a, sent))
	whole := a.read(t, s.postToReply(t, a, with(sent, "stream", false)))
	if !reflect.DeepEqual(streamed, whole) {
		t.Errorf("streamed %+v\nwhole    %+v", streamed, whole)
	}
	leastPrompt := int64(1)
	if withLlama {
		leastPrompt = 500 // the tools alone
	}
	if streamed.promptTokens < leastPrompt || streamed.answerTokens < 2 {
		t.Errorf("a prompt of %d tokens, an answer of %d", streamed.promptTokens, streamed.answerTokens)
	}
	want.model = text(sent["model"])
	want.promptTokens, want.answerTokens = streamed.promptTokens, streamed.answerTokens
	if !reflect.DeepEqual(streamed, want) {
		t.Errorf("got  %+v\nwant %+v", streamed, want)
	}
}

// and is a request whose conversation goes on.
func (a *agent) and(sent map[string]any, more ...any) map[string]any {
	return with(sent, a.conversation, append(slices.Clone(list(sent[a.conversation])), more...))
}

// request is the file's, for a model that there is.
func (a *agent) request(t *testing.T, mustCall bool) map[string]any {
	t.Helper()
	raw, err := os.ReadFile(a.file)
	if err != nil {
		t.Fatal(err)
	}
	sent := decodeNumbers(t, string(raw))
	if sent["model"] != a.model || sent["stream"] != true {
		t.Fatalf("%s is for the model %v, streamed: %v", a.file, sent["model"], sent["stream"])
	}
	return with(sent, "model", a.servedModel(mustCall))
}

// postAsAgent sends a request as the agent does and fails unless the answer is 200 with this type.
func (s *testServer) postAsAgent(t *testing.T, a *agent, body map[string]any, contentType string) *http.Response {
	t.Helper()
	resp, err := s.openStream(t.Context(), a.path, body, append([]string{"X-API-Key", "", "Authorization", "Bearer " + s.key}, a.headers...)...)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, contentType) {
		t.Errorf("Content-Type %q, want %s", got, contentType)
	}
	return resp
}

func (s *testServer) postToStream(t *testing.T, a *agent, body map[string]any) (events []event) {
	t.Helper()
	resp := s.postAsAgent(t, a, body, "text/event-stream")
	defer resp.Body.Close()
	if err := readEvents(resp.Body, func(e event) bool { events = append(events, e); return true }); err != nil {
		t.Fatal(err)
	}
	return events
}

func (s *testServer) postToReply(t *testing.T, a *agent, body map[string]any) map[string]any {
	t.Helper()
	resp := s.postAsAgent(t, a, body, "application/json")
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return decodeNumbers(t, string(raw))
}

func decodeNumbers(t *testing.T, text string) (value map[string]any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return value
}
