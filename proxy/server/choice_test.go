package server

import (
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"tandem/proxy/api"
	"tandem/proxy/inflight"
	"tandem/schema/parts"
)

// scriptedAnswer gives its pieces one after the other; the first step of them at once, the next when the one before was
// written.
type scriptedAnswer struct {
	*fakeAnswer
	mu    sync.Mutex
	steps [][]inflight.Piece
}

func (a *scriptedAnswer) Take(dst []byte) inflight.Piece {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.steps) == 0 || len(a.steps[0]) == 0 {
		return inflight.Piece{Text: dst, Accepted: true}
	}
	p := a.steps[0][0]
	a.steps[0] = a.steps[0][1:]
	p.Text, p.Accepted = append(dst, p.Text...), true
	p.More = len(a.steps[0]) > 0
	if !p.More {
		a.steps = a.steps[1:]
	}
	if len(a.steps) > 0 && !p.More && !a.request.Infer.Stream {
		a.notify()
	}
	return p
}

func (a *scriptedAnswer) Wrote(_, _ int, _ time.Time) { a.notify() }

func (a *scriptedAnswer) notify() {
	select {
	case a.ready <- struct{}{}:
	default:
	}
}

func scriptedTable(steps ...[]inflight.Piece) *fakeTable {
	return &fakeTable{current: readyStatus(), admit: func(r inflight.Request) (inflight.Answer, *api.Error) {
		a := &scriptedAnswer{fakeAnswer: newAnswer(r), steps: append([][]inflight.Piece(nil), steps...)}
		a.notify()
		return a, nil
	}}
}

func contentPiece(choice int, text string) inflight.Piece {
	return inflight.Piece{Choice: choice, Text: parts.AppendText(nil, parts.Content, []byte(text)), Tokens: 1}
}

func lastPiece(choice, outputTokens int, last bool) inflight.Piece {
	return inflight.Piece{Choice: choice, Done: true, Last: last, Result: &inflight.Result{FinishReason: "stop", PromptTokens: 9, OutputTokens: outputTokens, Seed: 1}}
}

func toolCallBytes(id, name string) []byte { return parts.AppendToolCall(nil, id, name) }

func argumentBytes(text string) []byte { return parts.AppendText(nil, parts.Arguments, []byte(text)) }

func TestChoicesAreCollectedAndUsageAddsUp(t *testing.T) {
	first, second := lastPiece(0, 5, true), lastPiece(1, 2, false)
	first.Result.CachedTokens, second.Result.CachedTokens = 8, 4 // the second one computed the rest of the prompt
	ts := startTestServer(t, scriptedTable(
		[]inflight.Piece{contentPiece(0, "a"), contentPiece(1, "x")}, []inflight.Piece{contentPiece(1, "y"), second},
		[]inflight.Piece{contentPiece(0, "b"), first}), nil)
	r := ts.postOpenAI(openAIEndpoints[0], `{"messages":[{"role":"user","content":"Hi"}],"n":2}`)
	var got struct {
		Choices []struct {
			Index   int
			Message struct{ Content string }
		}
		Usage struct {
			Prompt     int `json:"prompt_tokens"`
			Completion int `json:"completion_tokens"`
			Details    struct {
				Cached int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		}
		Fingerprint string `json:"system_fingerprint"`
	}
	if err := json.Unmarshal([]byte(r.body), &got); err != nil || len(got.Choices) != 2 {
		t.Fatalf("%v: %s", err, r.body)
	}
	if got.Choices[0].Message.Content != "ab" || got.Choices[1].Message.Content != "xy" || got.Usage.Prompt != 9 || got.Usage.Completion != 7 || got.Usage.Details.Cached != 4 {
		t.Errorf("reply %s", r.body)
	}
	if revision := r.Header.Get("X-Model-Revision"); revision != "abcd" {
		t.Errorf("X-Model-Revision %q", revision)
	}
	stream := ts.postOpenAI(openAIEndpoints[0], `{"messages":[{"role":"user","content":"Hi"}],"n":2,"stream":true}`)
	if strings.Count(stream.body, `"finish_reason":"stop"`) != 2 || strings.Count(stream.body, "[DONE]") != 1 || strings.Count(stream.body, `"role":"assistant"`) != 2 {
		t.Errorf("stream %s", stream.body)
	}
}

func TestToolCallsAreSplitFromTheText(t *testing.T) {
	call := append(toolCallBytes("", "get_weather"), argumentBytes(`{"city":`)...)
	ts := startTestServer(t, scriptedTable(
		[]inflight.Piece{{Text: parts.AppendText(nil, parts.Reasoning, []byte("Hm.")), Tokens: 1}}, []inflight.Piece{contentPiece(0, "Wait")},
		[]inflight.Piece{{Text: call, Tokens: 2}}, []inflight.Piece{{Text: append(argumentBytes(`"Paris"}`), toolCallBytes("own", "f")...), Tokens: 1}, lastPiece(0, 9, true)}), nil)
	const body = `{"messages":[{"role":"user","content":"Hi"}],"tools":[{"type":"function","function":{"name":"get_weather"}},{"type":"function","function":{"name":"f"}}]`
	r := ts.postOpenAI(openAIEndpoints[0], body+"}")
	const want = `"message":{"role":"assistant","content":"Wait","reasoning_content":"Hm.","tool_calls":[{"id":"ID","type":"function","function":` +
		`{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}},{"id":"own","type":"function","function":{"name":"f","arguments":""}}],"refusal":null},` +
		`"logprobs":null,"finish_reason":"tool_calls"}`
	if got := hideCallID(r.body); !strings.Contains(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	stream := ts.postOpenAI(openAIEndpoints[0], body+`,"stream":true}`)
	for _, part := range []string{
		`{"reasoning_content":"Hm."}`, `{"content":"Wait"}`, `{"tool_calls":[{"index":0,"id":"ID","type":"function","function":{"name":"get_weather","arguments":""}}]}`,
		`{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\":"}}]}`, `{"tool_calls":[{"index":0,"function":{"arguments":"\"Paris\"}"}}]}`,
		`{"tool_calls":[{"index":1,"id":"own","type":"function","function":{"name":"f","arguments":""}}]}`, `"finish_reason":"tool_calls"`,
	} {
		if strings.Count(hideCallID(stream.body), part) != 1 {
			t.Errorf("%s isn't there once in\n%s", part, stream.body)
		}
	}
}

// madeCallID is an id that the proxy gave to a call. Chat templates of Mistral's refuse conversations with others.
var madeCallID = regexp.MustCompile(`"id":"[0-9A-Za-z]{9}"`)

func hideCallID(text string) string { return madeCallID.ReplaceAllString(text, `"id":"ID"`) }

// The id of a call is the same in a resumed stream, and its own among all calls of a request.
func TestMadeCallIDs(t *testing.T) {
	seen := map[string]bool{}
	for at := range 32 {
		for call := range 32 {
			id := toolCallID("795619ab76baa4db578ea3768771a6a9", at, call)
			if !madeCallID.MatchString(`"id":"`+id+`"`) || seen[id] || id != toolCallID("795619ab76baa4db578ea3768771a6a9", at, call) {
				t.Errorf("call %d of choice %d is %q", call, at, id)
			}
			seen[id] = true
		}
	}
}

// An engine whose part stream can't be read has a fault; nobody gets half an answer as if it were whole.
func TestMalformedPartStreamIsAnError(t *testing.T) {
	for name, broken := range map[string][]byte{"unknown kind": {9, 0}, "arguments of no call": argumentBytes("{}")} {
		ts := startTestServer(t, scriptedTable([]inflight.Piece{{Text: broken, Tokens: 1}, lastPiece(0, 1, true)}), nil)
		const body = `{"messages":[{"role":"user","content":"Hi"}]`
		if r := ts.postOpenAI(openAIEndpoints[0], body+"}"); r.StatusCode != 500 || !strings.Contains(r.body, `"internal"`) {
			t.Errorf("%s: status %d, %s", name, r.StatusCode, r.body)
		}
		if r := ts.postOpenAI(openAIEndpoints[0], body+`,"stream":true}`); !strings.Contains(r.body, `"internal"`) || strings.Contains(r.body, "[DONE]") {
			t.Errorf("%s: stream %s", name, r.body)
		}
	}
}
