package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"tandem/proxy/api"
	"tandem/proxy/openapi"
)

// documentSchemas are the components of the document; compile makes validators of them. Replies are read strictly: a
// member that isn't described is an error.
type documentSchemas struct {
	t    *testing.T
	root map[string]any
}

func loadSchemas(t *testing.T) documentSchemas {
	t.Helper()
	text, err := OpenAPI(nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	d := documentSchemas{t, root.(map[string]any)}
	for name, s := range d.components() {
		if !strings.HasSuffix(name, "Request") {
			forbidOthers(s)
		}
	}
	forbidOthers(d.root["paths"])
	return d
}

func (d documentSchemas) components() map[string]any {
	return d.root["components"].(map[string]any)["schemas"].(map[string]any)
}

func (d documentSchemas) component(name string) map[string]any {
	d.t.Helper()
	s, ok := d.components()[name].(map[string]any)
	if !ok {
		d.t.Fatalf("the document has no schema %s", name)
	}
	return s
}

// compile makes a validator of the schema at a JSON pointer.
func (d documentSchemas) compile(pointer string) *jsonschema.Schema {
	d.t.Helper()
	c := jsonschema.NewCompiler()
	if err := c.AddResource("document.json", d.root); err != nil {
		d.t.Fatal(err)
	}
	s, err := c.Compile("document.json#" + pointer)
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// forbidOthers forbids members that aren't described, everywhere in a schema.
func forbidOthers(s any) {
	switch s := s.(type) {
	case []any:
		for _, v := range s {
			forbidOthers(v)
		}
	case map[string]any:
		for _, v := range s {
			forbidOthers(v)
		}
		if s["properties"] != nil && s["additionalProperties"] == nil {
			s["additionalProperties"] = false
		}
	}
}

// edges are values at the bounds of a schema, and beyond them.
func edges(s map[string]any) (within, beyond []string) {
	number := func(key string) (json.Number, bool) { n, ok := s[key].(json.Number); return n, ok }
	if n, ok := number("minimum"); ok {
		within, beyond = append(within, n.String()), append(beyond, below(n))
	}
	if n, ok := number("maximum"); ok {
		within, beyond = append(within, n.String()), append(beyond, above(n))
	}
	if n, ok := number("exclusiveMinimum"); ok {
		within, beyond = append(within, n.String()+".001"), append(beyond, n.String())
	}
	if n, ok := number("maxLength"); ok {
		size, _ := n.Int64()
		within = append(within, `"`+strings.Repeat("a", int(size))+`"`)
		beyond = append(beyond, `"`+strings.Repeat("a", int(size)+1)+`"`)
	}
	if n, ok := number("minLength"); ok && n != "0" {
		beyond = append(beyond, `""`)
	}
	if words, ok := s["enum"].([]any); ok {
		for _, w := range words {
			text, _ := json.Marshal(w)
			within = append(within, string(text))
		}
		beyond = append(beyond, `"something else"`)
	}
	return within, append(beyond, wrongTypes(s)...)
}

// below and above are numbers just outside of a range.
func below(n json.Number) string {
	if v, err := n.Int64(); err == nil && v > -1<<62 {
		return fmt.Sprint(v - 1)
	}
	return n.String() + "0"
}

func above(n json.Number) string {
	if v, err := n.Int64(); err == nil && v < 1<<62 {
		return fmt.Sprintf("%d", v+1)
	}
	return n.String() + "0"
}

// wrongTypes are values of types that the schema doesn't have.
func wrongTypes(forms ...map[string]any) (list []string) {
	var names []string
	for _, s := range forms {
		switch t := s["type"].(type) {
		case string:
			names = append(names, t)
		case []any:
			for _, name := range t {
				names = append(names, name.(string))
			}
		}
	}
	if len(names) == 0 {
		return nil // an enum of values of several types
	}
	for name, value := range map[string]string{"string": `"a"`, "boolean": "true", "number": "0.5", "array": "[{}]", "object": `{"a":1}`, "null": "null"} {
		if !slices.Contains(names, name) {
			list = append(list, value)
		}
	}
	return list
}

// companions are fields that a field needs beside it.
func companions(endpoint, field, value string) map[string]string {
	switch {
	case endpoint == "chatCompletions" && field == "top_logprobs":
		return map[string]string{"logprobs": "true"}
	case endpoint == "completions" && field == "max_tokens":
		return map[string]string{"echo": "true"}
	case endpoint == "responses" && field == "tool_choice":
		return map[string]string{"tools": `[{"type":"function","name":"f"}]`}
	case endpoint == "messages" && field == "tool_choice":
		return map[string]string{"tools": `[{"name":"f"}]`}
	case endpoint == "completions" && field == "best_of":
		return map[string]string{"n": value}
	case endpoint == "chatCompletions" && field == "tool_choice":
		return map[string]string{"tools": `[{"type":"function","function":{"name":"f"}}]`}
	}
	return nil
}

// A dialect takes what lies at the bounds of its description and refuses what lies beyond, and blames the field.
func TestDecodersKeepToTheDescribedRanges(t *testing.T) {
	d := loadSchemas(t)
	checked := 0
	for _, e := range described(t) {
		dialect := inferenceDialect(t, &e)
		if dialect == nil {
			continue
		}
		for field, s := range d.component(e.Body.Name)["properties"].(map[string]any) {
			within, beyond := edges(d.resolve(s))
			forms := d.forms(s)
			beyond = append(beyond, wrongTypes(forms...)...)
			for _, form := range forms {
				more, _ := edges(form)
				within = append(within, more...)
			}
			for _, value := range within {
				body := withField(t, e, field, value, companions(e.ID, field, value))
				if _, err := dialect.Decode(body, api.Limits{}); err != nil {
					t.Errorf("%s: %.200s is refused: %s", e.Path, body, err.Message)
				}
				checked++
			}
			for _, value := range beyond {
				body := withField(t, e, field, value, nil)
				_, err := dialect.Decode(body, api.Limits{})
				if err == nil || err.Status() != 400 || !strings.HasPrefix(err.Param, field) {
					t.Errorf("%s: %.200s is taken, or another field is blamed: %v", e.Path, body, err)
				}
				checked++
			}
		}
	}
	if checked < 200 {
		t.Errorf("only %d values were tried", checked)
	}
}

// resolve follows a reference.
func (d documentSchemas) resolve(s any) map[string]any {
	object := s.(map[string]any)
	if ref, ok := object["$ref"].(string); ok {
		return d.component(strings.TrimPrefix(ref, "#/components/schemas/"))
	}
	return object
}

// forms are the alternatives of a schema; none when there is one form only.
func (d documentSchemas) forms(s any) (list []map[string]any) {
	any, _ := d.resolve(s)["anyOf"].([]any)
	for _, f := range any {
		list = append(list, d.resolve(f))
	}
	return list
}

// withField is the first example of an endpoint, of which only what is required is kept, with one field more.
func withField(t *testing.T, e openapi.Endpoint, field, value string, others map[string]string) []byte {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(e.Examples[0].Body), &all); err != nil {
		t.Fatal(err)
	}
	body := map[string]json.RawMessage{}
	for _, name := range e.Body.Required {
		body[name] = all[name]
	}
	for name, v := range others {
		body[name] = json.RawMessage(v)
	}
	body[field] = json.RawMessage(value)
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// inferenceDialect is the dialect that reads and writes the bodies of an endpoint; nil: none does.
func inferenceDialect(t *testing.T, e *openapi.Endpoint) api.Dialect {
	t.Helper()
	r := startTestServer(t, &fakeTable{current: readyStatus()}, nil).routes[e.Path]
	if r == nil || !r.inference {
		return nil
	}
	return r.dialect
}

// sampleRequest is an endpoint's first example, asking for all that a reply can have.
func sampleRequest(t *testing.T, e *openapi.Endpoint, dialect api.Dialect) *api.Request {
	t.Helper()
	r, err := dialect.Decode([]byte(e.Examples[0].Body), api.Limits{})
	if err != nil {
		t.Fatalf("the first example of %s: %v", e.Path, err)
	}
	r.Stream, r.IncludeUsage, r.Logprobs, r.TopLogprobs, r.Timings = true, true, true, 1, true
	return r
}

// sampleReply has everything that a reply can have.
func sampleReply(r *api.Request) *api.Reply {
	logprobs := []api.TokenLogprob{{Token: 1, Bytes: []byte("Hi"), Logprob: -0.5, Top: []api.TopLogprob{{Token: 1, Bytes: []byte("Hi"), Logprob: -0.5}}}}
	usage := api.Metadata{Model: "demo", Version: "v1.0", TokensGenerated: 9, ReasoningTokens: 2, FinishReason: api.FinishStop, PromptTokens: 12, CachedTokens: 4, Seed: 7,
		ResponseTime: time.Second, GenerationTime: time.Second, Stop: "."}
	one := api.Result{Text: "Hi", Reasoning: "Hm.", ToolCalls: []api.ToolCall{{ID: "call_1", Name: "f", Arguments: "{}"}}, Logprobs: logprobs, PromptLogprobs: logprobs,
		Embedding: []float32{0.6, 0.8}, Metadata: usage}
	return &api.Reply{Usage: usage, Results: slices.Repeat([]api.Result{one}, r.ChoiceCount())}
}

func sampleStart(request *api.Request) api.ReplyStart {
	return api.ReplyStart{Request: request, RequestID: "r1", Created: time.Unix(1, 0), ModelID: "demo:v1.0", Revision: strings.Repeat("0a", 32), PromptTokens: 12}
}

// sampleStream is a stream with everything that it can have.
func sampleStream(e api.Encoder, reply *api.Reply) []byte {
	stream := e.AppendStart(nil)
	for _, delta := range []api.Delta{
		{Kind: api.DeltaReasoning, Text: []byte("Hm.")}, {Text: []byte("Hi"), Tokens: 1, Logprobs: reply.Results[0].Logprobs},
		{Kind: api.DeltaToolCall, ToolCall: &reply.Results[0].ToolCalls[0]}, {Kind: api.DeltaToolArguments, Text: []byte("{}")},
	} {
		stream = e.AppendDelta(stream, &delta)
	}
	return e.AppendEnd(e.AppendChoiceEnd(stream, 0, &reply.Results[0]), reply)
}

// Whole replies, streams and errors of each dialect are as described: with no member that isn't, and with each that is.
func TestRepliesAreAsDescribed(t *testing.T) {
	d := loadSchemas(t)
	for _, e := range described(t) {
		dialect := inferenceDialect(t, &e)
		if dialect == nil {
			continue
		}
		request := sampleRequest(t, &e, dialect)
		reply := sampleReply(request)
		refused := dialect.AppendError(nil, api.Invalid("prompt", "no"), "r1")
		d.check(e.Path+", errors", []string{component(e.Errors.Schema)}, [][]byte{refused, dialect.AppendError(nil, api.Draining(), "r1")})
		for _, c := range e.Replies[0].Content {
			encoder := dialect.NewEncoder(sampleStart(request))
			if c.Events == nil {
				d.check(e.Path, []string{component(c.Schema)}, [][]byte{encoder.AppendReply(nil, reply)})
				continue
			}
			stream := append(sampleStream(encoder, reply), dialect.NewEncoder(sampleStart(request)).AppendErrorEvent(nil, api.Invalid("prompt", "no"))...)
			d.checkStream(&e, c.Events, stream)
		}
	}
}

func component(s *openapi.Schema) string { return "/components/schemas/" + s.Name }

// checkStream checks the events of a stream, by their names.
func (d documentSchemas) checkStream(e *openapi.Endpoint, about *openapi.Events, stream []byte) {
	d.t.Helper()
	byName := map[string][][]byte{}
	for block := range bytes.SplitSeq(bytes.TrimSuffix(stream, []byte("\n\n")), []byte("\n\n")) {
		name := ""
		for line := range bytes.SplitSeq(block, []byte("\n")) {
			if rest, ok := bytes.CutPrefix(line, []byte("event: ")); ok {
				name = string(rest)
			} else if data, ok := bytes.CutPrefix(line, []byte("data: ")); ok && string(data) != about.Last {
				byName[name] = append(byName[name], data)
			}
		}
	}
	at := "/paths/" + strings.ReplaceAll(e.Path, "/", "~1") + "/post/responses/200/content/text~1event-stream/x-events/"
	for name, bodies := range byName {
		what := fmt.Sprintf("%s, events %q", e.Path, name)
		switch {
		case about.Named[name] != nil && strings.HasPrefix(name, "response."):
			d.validate(what, []string{at + "named/" + name}, bodies) // most are a part of a response
		case about.Named[name] != nil:
			d.check(what, []string{at + "named/" + name}, bodies)
		case name != "" && name == about.Failed:
			d.validate(what, []string{component(e.Errors.Schema)}, bodies)
		case name == "" && about.Data != nil:
			d.check(what, d.alternatives(at+"data"), bodies)
		default:
			d.t.Errorf("%s aren't described", what)
		}
	}
	for name := range about.Named {
		if byName[name] == nil && !strings.Contains(name, "custom_tool") && name != "response.incomplete" {
			d.t.Errorf("%s has no event %s in %s", e.Path, name, stream)
		}
	}
}

// alternatives are the places of the forms of a schema.
func (d documentSchemas) alternatives(pointer string) []string {
	schema := d.at(pointer)
	forms, _ := d.resolve(schema)["anyOf"].([]any)
	if ref, ok := schema.(map[string]any)["$ref"].(string); ok {
		pointer = strings.TrimPrefix(ref, "#")
	}
	var list []string
	for i := range forms {
		list = append(list, fmt.Sprintf("%s/anyOf/%d", pointer, i))
	}
	return list
}

// at is the schema at a JSON pointer.
func (d documentSchemas) at(pointer string) any {
	d.t.Helper()
	var v any = d.root
	for token := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		token = strings.ReplaceAll(token, "~1", "/")
		switch inside := v.(type) {
		case map[string]any:
			v = inside[token]
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil {
				d.t.Fatal(err)
			}
			v = inside[i]
		}
	}
	if v == nil {
		d.t.Fatalf("the document has nothing at %s", pointer)
	}
	return v
}

// validate checks that each body fits one of the schemas, and returns the bodies.
func (d documentSchemas) validate(what string, pointers []string, bodies [][]byte) (values []any) {
	d.t.Helper()
	for _, body := range bodies {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			d.t.Errorf("%s: %s: %v", what, body, err)
			continue
		}
		valid := slices.ContainsFunc(pointers, func(pointer string) bool {
			err = d.compile(pointer).Validate(value)
			return err == nil
		})
		if !valid {
			d.t.Errorf("%s: %s is not as described: %v", what, body, err)
		}
		values = append(values, value)
	}
	return values
}

// rarePlaces are members of a response that a sample doesn't have: those of one that failed or was cut, and of custom
// tools.
var rarePlaces = []string{".error.code", ".error.message", ".error.type", ".incomplete_details.", ".output[].namespace", ".output[].input"}

// check is validate for bodies that have, together, each member that is described.
func (d documentSchemas) check(what string, pointers []string, bodies [][]byte) {
	d.t.Helper()
	seen, expected := map[string]bool{}, map[string]bool{}
	for _, v := range d.validate(what, pointers, bodies) {
		valuePlaces(v, "", seen)
	}
	for _, pointer := range pointers {
		d.memberPlaces(d.at(pointer), "", expected)
	}
	for _, place := range slices.Sorted(maps.Keys(expected)) {
		if !seen[place] && !slices.ContainsFunc(rarePlaces, func(rare string) bool { return strings.HasPrefix(place, rare) }) {
			d.t.Errorf("%s: %s is described, but is in none of %d replies", what, place, len(bodies))
		}
	}
}

// memberPlaces are the places of all members that a schema describes.
func (d documentSchemas) memberPlaces(s any, place string, places map[string]bool) {
	object := d.resolve(s)
	members, _ := object["properties"].(map[string]any)
	for name, m := range members {
		places[place+"."+name] = true
		d.memberPlaces(m, place+"."+name, places)
	}
	if items := object["items"]; items != nil {
		d.memberPlaces(items, place+"[]", places)
	}
	for _, form := range d.forms(s) {
		d.memberPlaces(form, place, places)
	}
}

func valuePlaces(v any, place string, places map[string]bool) {
	switch v := v.(type) {
	case []any:
		for _, entry := range v {
			valuePlaces(entry, place+"[]", places)
		}
	case map[string]any:
		for name, m := range v {
			places[place+"."+name] = true
			valuePlaces(m, place+"."+name, places)
		}
	}
}
