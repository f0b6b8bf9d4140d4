package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// apiDocument is /openapi.json of a running server.
type apiDocument struct {
	t          *testing.T
	root       map[string]any
	strict     *jsonschema.Compiler // objects of replies have no members besides those described
	operations []*apiOperation
}

// apiOperation is a method of a path.
type apiOperation struct {
	doc      *apiDocument
	id       string
	method   string
	path     string
	key      bool
	place    string // JSON pointer of the operation
	body     map[string]any
	valid    *jsonschema.Schema // of the body
	places   map[string]bool    // of the body's fields: messages[].role
	examples map[string]string  // bodies by name
	compiled map[string]*jsonschema.Schema
}

// openAPI reads the document.
func (s *testServer) openAPI() *apiDocument {
	s.t.Helper()
	status, text, err := s.get("/openapi.json")
	if err != nil || status != 200 {
		s.t.Fatalf("/openapi.json: %d %v", status, err)
	}
	d := &apiDocument{t: s.t, root: parseObject(s.t, text), strict: jsonschema.NewCompiler()}
	strict := parseObject(s.t, text)
	for _, path := range member(strict, "paths") {
		for _, operation := range path.(map[string]any) {
			forbidOthers(operation.(map[string]any)["responses"])
		}
	}
	for name, schema := range member(strict, "components", "schemas") {
		if !strings.HasSuffix(name, "Request") {
			forbidOthers(schema)
		}
	}
	if err := d.strict.AddResource("document.json", strict); err != nil {
		s.t.Fatal(err)
	}
	for _, path := range slices.Sorted(maps.Keys(member(d.root, "paths"))) {
		for method := range member(d.root, "paths", path) {
			d.operations = append(d.operations, d.operation(path, method))
		}
	}
	return d
}

func (d *apiDocument) operation(path, method string) *apiOperation {
	o := &apiOperation{doc: d, path: path, method: strings.ToUpper(method), compiled: map[string]*jsonschema.Schema{}, examples: map[string]string{}}
	about := member(d.root, "paths", path, method)
	o.id = about["operationId"].(string)
	o.key = len(about["security"].([]any)) > 0
	o.place = "/paths/" + pointerToken(path) + "/" + method
	content := member(about, "requestBody", "content", "application/json")
	if content == nil {
		return o
	}
	o.body = d.resolve(content["schema"])
	o.valid = o.compile("/requestBody/content/application~1json/schema")
	o.places = map[string]bool{}
	d.fieldPlaces(content["schema"], "", o.places)
	for name, example := range member(content, "examples") {
		text, err := json.Marshal(example.(map[string]any)["value"])
		if err != nil {
			d.t.Fatal(err)
		}
		o.examples[name] = string(text)
	}
	return o
}

// compile makes a validator of a schema, at a place below the operation.
func (o *apiOperation) compile(place string) *jsonschema.Schema {
	o.doc.t.Helper()
	if s := o.compiled[place]; s != nil {
		return s
	}
	u := url.URL{Path: "document.json", Fragment: o.place + place}
	s, err := o.doc.strict.Compile(u.String())
	if err != nil {
		o.doc.t.Fatalf("compile the schema %s: %v", u.String(), err)
	}
	o.compiled[place] = s
	return s
}

// response is what the document says of a status; nil: nothing.
func (o *apiOperation) response(status int) map[string]any {
	return member(o.doc.root, "paths", o.path, strings.ToLower(o.method), "responses", fmt.Sprint(status))
}

// contentPlace is where the schema of a reply is, below the operation.
func contentPlace(status int, contentType, rest string) string {
	return fmt.Sprintf("/responses/%d/content/%s%s", status, pointerToken(contentType), rest)
}

func pointerToken(s string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(s) }

// resolve follows references.
func (d *apiDocument) resolve(schema any) map[string]any {
	object := schema.(map[string]any)
	for {
		ref, ok := object["$ref"].(string)
		if !ok {
			return object
		}
		object = member(d.root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
	}
}

// fieldPlaces are the places of all fields that a body can have.
func (d *apiDocument) fieldPlaces(schema any, place string, places map[string]bool) {
	object := d.resolve(schema)
	for name, m := range member(object, "properties") {
		inner := strings.TrimPrefix(place+"."+name, ".")
		places[inner] = true
		d.fieldPlaces(m, inner, places)
	}
	if items := object["items"]; items != nil {
		places[place+"[]"] = true
		d.fieldPlaces(items, place+"[]", places)
	}
	forms, _ := object["anyOf"].([]any)
	for _, form := range forms {
		d.fieldPlaces(form, place, places)
	}
}

// member is an object within objects; nil: there is none.
func member(object map[string]any, names ...string) map[string]any {
	for _, name := range names {
		object, _ = object[name].(map[string]any)
	}
	return object
}

// parseObject keeps numbers as they are written.
func parseObject(t *testing.T, text string) map[string]any {
	t.Helper()
	value, err := parseJSON(text)
	object, ok := value.(map[string]any)
	if err != nil || !ok {
		t.Fatalf("not a JSON object: %v: %.200s", err, text)
	}
	return object
}

func parseJSON(text string) (any, error) {
	return jsonschema.UnmarshalJSON(bytes.NewReader([]byte(text)))
}

// forbidOthers forbids members that aren't described, everywhere in a schema.
func forbidOthers(schema any) {
	switch s := schema.(type) {
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

// sseEvents reads a whole stream; problem is what is wrong with its framing.
func sseEvents(stream string) (list []event, problem string) {
	if stream != "" && !strings.HasSuffix(stream, "\n\n") {
		return nil, "the last event doesn't end"
	}
	for block := range strings.SplitSeq(strings.TrimSuffix(stream, "\n\n"), "\n\n") {
		var e event
		for line := range strings.SplitSeq(block, "\n") {
			name, value, _ := strings.Cut(line, ": ")
			switch {
			case strings.HasPrefix(line, ":"), name == "id":
			case name == "event" && e.name == "":
				e.name = value
			case name == "data" && e.data == "":
				e.data = value
			default:
				return nil, "not a line of an event: " + line
			}
		}
		if e.data != "" {
			list = append(list, e)
		}
	}
	return list, ""
}

// checkReply says how a reply differs from what the document says; nothing: it doesn't.
func (o *apiOperation) checkReply(status int, contentType, body string) string {
	about := o.response(status)
	if about == nil {
		return fmt.Sprintf("status %d isn't documented", status)
	}
	kind, _, _ := strings.Cut(contentType, ";")
	content := member(about, "content", kind)
	if content == nil {
		return fmt.Sprintf("content of type %q isn't documented for status %d", contentType, status)
	}
	if member(content, "x-events") != nil {
		return o.checkStream(status, kind, member(content, "x-events"), body)
	}
	if kind != "application/json" {
		return ""
	}
	value, err := parseJSON(body)
	if err != nil {
		return "no JSON: " + err.Error()
	}
	if err := o.compile(contentPlace(status, kind, "/schema")).Validate(value); err != nil {
		return fmt.Sprintf("not as documented: %v", err)
	}
	return o.checkCode(about, value)
}

// checkCode says if an error isn't one of those documented for the status.
func (o *apiOperation) checkCode(about map[string]any, body any) string {
	codes, ok := about["x-error-codes"].([]any)
	if !ok {
		return ""
	}
	code, _ := member(body.(map[string]any), "error")[about["x-error-member"].(string)].(string)
	if !slices.Contains(codes, any(code)) {
		return fmt.Sprintf("the error %q isn't documented for this status", code)
	}
	return ""
}

// isFinal reports whether a stream may end with an event of that name.
func isFinal(about map[string]any, name string) bool {
	names, ok := about["final"].([]any)
	return !ok || slices.Contains(names, any(name))
}

func (o *apiOperation) checkStream(status int, kind string, about map[string]any, body string) string {
	list, problem := sseEvents(body)
	switch {
	case problem != "":
		return problem
	case len(list) == 0:
		return "a stream without events"
	}
	last, hasLast := about["last"].(string)
	for i, e := range list {
		place := contentPlace(status, kind, "/x-events/data")
		failed := e.name != "" && e.name == about["failed"] || strings.HasPrefix(e.data, `{"error":`)
		final := i == len(list)-1
		switch {
		case hasLast && e.data == last && final:
			return ""
		case failed && !final:
			return "events after an error"
		case failed:
			place = "/responses/400/content/application~1json/schema" // errors have one form
		case final && hasLast:
			return "the stream ends without " + last
		case final && !isFinal(about, e.name):
			return "the stream ends with the event " + e.name
		}
		if named := member(about, "named"); named[e.name] != nil {
			place = contentPlace(status, kind, "/x-events/named/"+pointerToken(e.name))
		} else if e.name != "" && !failed {
			return "an event of the name " + e.name
		}
		value, err := parseJSON(e.data)
		if err != nil {
			return fmt.Sprintf("the data %q is no JSON: %v", e.data, err)
		}
		if err := o.compile(place).Validate(value); err != nil {
			return fmt.Sprintf("the event %q is not as documented: %v", e.data, err)
		}
	}
	return ""
}
