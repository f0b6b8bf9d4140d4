package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// transcript is what a stream said, in a form in which two streams of the same answer are equal, however many events
// each had: deltas that follow each other are put together, times and the cache's share of the prompt are left out.
// Everything else is kept as it came, so that what is repeated, missing or out of order shows.
type transcript struct {
	lanes    map[string][]spoken // what has an order: the stream, each choice, the log-probabilities of each
	problems []string            // what is wrong whatever the answer is
	events   int
	head     string // members that every chunk of a stream of OpenAI's repeats
	sequence int64  // number of the next event of the Responses API
	ended    bool
}

// spoken is a delta's text, to which later ones are added, or something whole.
type spoken struct {
	kind, text string
	grows      bool
}

// takeEvent is how one dialect's events are read.
type takeEvent func(t *transcript, name string, data map[string]any)

func newTranscript() *transcript { return &transcript{lanes: make(map[string][]spoken)} }

func (t *transcript) problem(format string, args ...any) {
	t.problems = append(t.problems, fmt.Sprintf(format, args...))
}

// grow adds a delta's text.
func (t *transcript) grow(lane, kind, text string) {
	all := t.lanes[lane]
	if n := len(all); n > 0 && all[n-1].grows && all[n-1].kind == kind {
		all[n-1].text += text
		return
	}
	t.lanes[lane] = append(all, spoken{kind, text, true})
}

// add adds something whole.
func (t *transcript) add(lane, kind string, value any) {
	text, err := json.Marshal(value) // the members of objects are sorted
	if err != nil {
		t.problem("%s: %v", kind, err)
	}
	t.lanes[lane] = append(t.lanes[lane], spoken{kind, string(text), false})
}

// addEach adds the elements of a list.
func (t *transcript) addEach(lane, kind string, list any) {
	elements, _ := list.([]any)
	for _, e := range elements {
		t.add(lane, kind, e)
	}
}

// take takes an event in.
func (t *transcript) take(e event, read takeEvent) {
	t.events++
	if t.ended {
		t.problem("an event behind the end: %s", e.data)
	}
	if e.data == "[DONE]" {
		t.ended = true
		t.add("stream", "done", true)
		return
	}
	d := json.NewDecoder(strings.NewReader(e.data))
	d.UseNumber() // so that no digit of a log-probability is lost
	var data map[string]any
	if err := d.Decode(&data); err != nil {
		t.problem("event %q: %v", e.data, err)
		return
	}
	if data["error"] != nil {
		t.problem("an error: %s", e.data)
	}
	read(t, e.name, data)
}

// lines are the transcript, a line for each thing said.
func (t *transcript) lines() []string {
	var out []string
	for _, lane := range slices.Sorted(maps.Keys(t.lanes)) {
		for _, s := range t.lanes[lane] {
			out = append(out, fmt.Sprintf("%s: %s %q", lane, s.kind, s.text))
		}
	}
	return out
}

// kinds counts what was said, by its kind without numbers.
func (t *transcript) kinds() map[string]int {
	counts := make(map[string]int)
	for _, all := range t.lanes {
		for _, s := range all {
			kind, _, _ := strings.Cut(s.kind, " ")
			counts[kind]++
		}
	}
	return counts
}

// differences says where two transcripts differ; empty: nowhere.
func differences(got, want *transcript) string {
	a, b := got.lines(), want.lines()
	var out strings.Builder
	for _, p := range got.problems {
		fmt.Fprintf(&out, "  %s\n", p)
	}
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			fmt.Fprintf(&out, "  got  %s\n  want %s\n", x, y)
			break
		}
	}
	return out.String()
}

func object(v any) map[string]any { o, _ := v.(map[string]any); return o }
func list(v any) []any            { l, _ := v.([]any); return l }
func text(v any) string           { s, _ := v.(string); return s }

// whole reads a number of tokens.
func whole(v any) int64 {
	number, _ := v.(json.Number)
	n, _ := number.Int64()
	return n
}

// takeHead checks and takes what every chunk of OpenAI's older dialects repeats, and the usage.
func (t *transcript) takeHead(data map[string]any) {
	delete(data, "created")
	if usage := object(data["usage"]); usage != nil {
		cached := whole(object(usage["prompt_tokens_details"])["cached_tokens"])
		if cached > whole(usage["prompt_tokens"]) {
			t.problem("%d tokens of the prompt come from the cache, of %v", cached, usage["prompt_tokens"])
		}
		delete(usage, "prompt_tokens_details")
		t.add("stream", "usage", usage)
	}
	delete(data, "usage")
	delete(data, "choices")
	head, _ := json.Marshal(data) // decoded a moment ago
	if t.head != string(head) {
		t.head = string(head)
		t.add("stream", "head", data)
	}
}

func takeChat(t *transcript, _ string, data map[string]any) {
	for _, entry := range list(data["choices"]) {
		c := object(entry)
		lane := fmt.Sprint("choice ", c["index"])
		t.takeDelta(lane, object(c["delta"]))
		t.addEach(lane+" logprobs", "logprob", object(c["logprobs"])["content"])
		if c["finish_reason"] != nil {
			t.add(lane, "finish", c["finish_reason"])
		}
	}
	t.takeHead(data)
}

func (t *transcript) takeDelta(lane string, delta map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(delta)) {
		switch value := delta[key]; key {
		case "content", "reasoning_content":
			t.grow(lane, key, text(value))
		case "tool_calls":
			for _, call := range list(value) {
				t.takeCall(lane, object(call))
			}
		default:
			t.add(lane, key, value)
		}
	}
}

func (t *transcript) takeCall(lane string, call map[string]any) {
	function := object(call["function"])
	arguments := text(function["arguments"])
	delete(function, "arguments")
	if call["id"] != nil || len(function) > 0 {
		t.add(lane, "call", call)
	}
	t.grow(lane, fmt.Sprint("arguments ", call["index"]), arguments)
}

func takeCompletion(t *transcript, _ string, data map[string]any) {
	for _, entry := range list(data["choices"]) {
		c := object(entry)
		lane := fmt.Sprint("choice ", c["index"])
		t.grow(lane, "content", text(c["text"]))
		probs := object(c["logprobs"])
		for i, token := range list(probs["tokens"]) {
			t.add(lane+" logprobs", "logprob", []any{token, at(probs["token_logprobs"], i), at(probs["top_logprobs"], i), at(probs["text_offset"], i)})
		}
		if c["finish_reason"] != nil {
			t.add(lane, "finish", c["finish_reason"])
		}
	}
	t.takeHead(data)
}

// at is an element of a list; nil: it has no such.
func at(v any, i int) any {
	if l := list(v); i < len(l) {
		return l[i]
	}
	return nil
}

func takeResponses(t *transcript, name string, data map[string]any) {
	if kind := text(data["type"]); kind != name {
		t.problem("the event %s says that it is %s", name, kind)
	}
	if number, _ := data["sequence_number"].(json.Number); number.String() != fmt.Sprint(t.sequence) {
		t.problem("event %d has the sequence number %v", t.sequence, data["sequence_number"])
	}
	t.sequence++
	delete(data, "sequence_number")
	if delta, ok := data["delta"].(string); ok {
		t.addEach("logprobs", "logprob", data["logprobs"])
		t.grow("stream", fmt.Sprintln(name, data["item_id"], data["output_index"], data["content_index"]), delta)
		return
	}
	if response := object(data["response"]); response != nil {
		delete(response, "created_at")
		delete(response, "completed_at")
		if usage := object(response["usage"]); usage != nil {
			delete(usage, "input_tokens_details")
		}
		t.ended = response["status"] != "in_progress"
	}
	t.add("stream", name, data)
}

func takeMessages(t *transcript, name string, data map[string]any) {
	if kind := text(data["type"]); kind != name {
		t.problem("the event %s says that it is %s", name, kind)
	}
	if name == "content_block_delta" {
		delta := object(data["delta"])
		kind := text(delta["type"])
		key := map[string]string{"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}[kind]
		if key != "" && len(delta) == 2 {
			t.grow("stream", fmt.Sprintln(kind, data["index"]), text(delta[key]))
			return
		}
	}
	usage := object(data["usage"])
	if message := object(data["message"]); message != nil {
		usage = object(message["usage"])
	}
	if usage != nil { // what the cache had is a part of the prompt
		if whole(usage["input_tokens"]) < 0 {
			t.problem("usage %v", usage)
		}
		usage["input_tokens"] = whole(usage["input_tokens"]) + whole(usage["cache_read_input_tokens"])
		delete(usage, "cache_read_input_tokens")
	}
	t.add("stream", name, data)
	t.ended = name == "message_stop"
}
