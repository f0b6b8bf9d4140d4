package openapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Tag is a group of endpoints.
type Tag struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// Info is the head of the document.
type Info struct {
	Title       string            `json:"title"`
	Version     string            `json:"version"`
	Description string            `json:"description"`
	License     map[string]string `json:"license"`
}

// Captured is a reply of a running server to an example.
type Captured struct {
	Status int            `json:"status"`
	Type   string         `json:"type"` // of the content, without parameters
	Body   jsontext.Value `json:"body"` // a stream is a string
}

// Document writes the document. captured has the replies to examples, by the endpoint's id, a point, and the example's
// name; what isn't there is left out.
func Document(info Info, keyHeader string, tags []Tag, endpoints []Endpoint, captured map[string]Captured) ([]byte, error) {
	b := builder{components: map[string]*Schema{}, captured: captured}
	paths := b.paths(endpoints)
	doc := object{
		{"openapi", "3.1.0"},
		{"info", info},
		{"servers", []any{object{{"url", "/"}}}},
		{"tags", tags},
		{"paths", paths},
		{"components", object{
			{"schemas", b.schemas()},
			{"parameters", b.parameters},
			{"headers", headerComponents()},
			{"securitySchemes", object{
				{"key", object{{"type", "apiKey"}, {"in", "header"}, {"name", keyHeader}}},
				{"bearer", object{{"type", "http"}, {"scheme", "bearer"}}},
			}},
		}},
	}
	if err := errors.Join(b.problems...); err != nil {
		return nil, err
	}
	text, err := json.Marshal(doc, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	return append(text, '\n'), nil
}

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSONTo writes the object.
func (o object) MarshalJSONTo(enc *jsontext.Encoder) error {
	return writeObject(enc, o, func(m member) (string, any) { return m.name, m.value })
}

type builder struct {
	components map[string]*Schema
	names      []string // of the components, in the order in which they are met
	parameters object   // those in headers, which endpoints share
	captured   map[string]Captured
	problems   []error
}

func (b *builder) problem(format string, args ...any) {
	b.problems = append(b.problems, fmt.Errorf(format, args...))
}

func (b *builder) paths(endpoints []Endpoint) object {
	var paths object
	for i := range endpoints {
		e := &endpoints[i]
		if slices.ContainsFunc(paths, func(m member) bool { return m.name == e.Path }) {
			b.problem("path %s is described twice", e.Path)
		}
		paths = append(paths, member{e.Path, object{{e.Method, b.operation(e)}}})
	}
	return paths
}

func (b *builder) operation(e *Endpoint) object {
	o := object{{"operationId", e.ID}, {"tags", []string{e.Tag}}, {"summary", e.Summary}}
	if e.Doc != "" {
		o = append(o, member{"description", e.Doc})
	}
	security := []any{}
	if e.Key {
		security = append(security, object{{"key", []string{}}}, object{{"bearer", []string{}}})
	}
	o = append(o, member{"security", security})
	if len(e.Parameters) > 0 {
		o = append(o, member{"parameters", b.parameterRefs(e.Parameters)})
	}
	if e.Body != nil {
		content := object{{"schema", b.use(e.Body)}}
		if len(e.Examples) > 0 {
			content = append(content, member{"examples", b.requestExamples(e)})
		}
		o = append(o, member{"requestBody", object{{"required", true}, {"content", object{{"application/json", content}}}}})
	}
	if reads := e.exampleReads(); len(reads) > 0 {
		o = append(o, member{"x-examples", reads})
	}
	return append(o, member{"responses", b.responses(e)})
}

// exampleReads are the paths of the examples of an endpoint without a body, for which OpenAPI has no place.
func (e *Endpoint) exampleReads() (reads object) {
	if e.Body != nil {
		return nil
	}
	for _, x := range e.Examples {
		reads = append(reads, member{x.Name, cmp.Or(x.Path, e.Path)})
	}
	return reads
}

// parameterRefs are the parameters of an operation: those in headers by reference.
func (b *builder) parameterRefs(list []Parameter) []any {
	var refs []any
	for _, p := range list {
		if p.In != "header" {
			refs = append(refs, p)
			continue
		}
		if !slices.ContainsFunc(b.parameters, func(m member) bool { return m.name == p.Name }) {
			b.parameters = append(b.parameters, member{p.Name, p})
		}
		refs = append(refs, object{{"$ref", "#/components/parameters/" + p.Name}})
	}
	return refs
}

func (b *builder) requestExamples(e *Endpoint) object {
	var list object
	for _, x := range e.Examples {
		body := jsontext.Value(x.Body)
		if err := body.Compact(); err != nil {
			b.problem("example %s of %s: %w", x.Name, e.ID, err)
			continue
		}
		list = append(list, member{x.Name, object{{"summary", x.Summary}, {"value", body}}})
	}
	return list
}

func (b *builder) responses(e *Endpoint) object {
	var list object
	for _, r := range e.Replies {
		var content object
		for _, c := range r.Content {
			o := object{{"schema", b.use(c.Schema)}}
			if c.Events != nil {
				b.useEvents(c.Events)
				o = append(o, member{"x-events", c.Events})
			}
			o = b.addCaptured(o, e, r.Status, c.Type)
			content = append(content, member{c.Type, o})
		}
		reply := object{{"description", r.Doc}, {"headers", headerRefs(r.Headers)}}
		if len(content) > 0 {
			reply = append(reply, member{"content", content})
		}
		list = append(list, member{strconv.Itoa(r.Status), reply})
	}
	for _, r := range e.errorReplies() {
		if slices.ContainsFunc(e.Replies, func(own Reply) bool { return own.Status == r.status }) {
			continue // /readyz has its own 503
		}
		content := b.addCaptured(object{{"schema", b.use(e.Errors.Schema)}}, e, r.status, "application/json")
		list = append(list, member{strconv.Itoa(r.status), object{
			{"description", fmt.Sprintf("%s: %s", http.StatusText(r.status), strings.Join(r.codes, ", "))},
			{"headers", headerRefs(errorHeaders(r.status))},
			{"content", object{{"application/json", content}}},
			{"x-error-member", e.Errors.Member},
			{"x-error-codes", r.codes},
		}})
	}
	return list
}

// addCaptured adds the captured replies of one status and type.
func (b *builder) addCaptured(o object, e *Endpoint, status int, contentType string) object {
	var list object
	for _, x := range e.Examples {
		if c, ok := b.captured[e.ID+"."+x.Name]; ok && c.Status == status && c.Type == contentType {
			list = append(list, member{x.Name, object{{"summary", x.Summary}, {"value", c.Body}}})
		}
	}
	if len(list) > 0 {
		o = append(o, member{"examples", list})
	}
	return o
}

// use enters a schema's components in the document and returns the schema.
func (b *builder) use(s *Schema) *Schema {
	if s == nil {
		return nil
	}
	if s.Name != "" {
		if known := b.components[s.Name]; known != nil {
			b.checkSame(known, s)
			return s
		}
		b.components[s.Name] = s
		b.names = append(b.names, s.Name)
	}
	for _, c := range s.children() {
		b.use(c)
	}
	return s
}

// checkSame finds two components of one name.
func (b *builder) checkSame(known, s *Schema) {
	if known == s {
		return
	}
	one, two := *known, *s
	one.Name, two.Name = "", ""
	first, err1 := json.Marshal(&one, json.Deterministic(true))
	second, err2 := json.Marshal(&two, json.Deterministic(true))
	if err := errors.Join(err1, err2); err != nil || string(first) != string(second) {
		b.problem("two schemas have the name %s", s.Name)
	}
}

func (b *builder) useEvents(e *Events) {
	b.use(e.Data)
	for _, s := range e.Named {
		b.use(s)
	}
}

func (b *builder) schemas() object {
	var list object
	for _, name := range b.names {
		plain := *b.components[name]
		plain.Name = ""
		list = append(list, member{name, &plain})
	}
	return list
}

func headerComponents() object {
	var list object
	for _, h := range headers {
		list = append(list, member{h.name, object{{"description", h.doc}, {"schema", h.schema}}})
	}
	return list
}

func headerRefs(names []string) object {
	list := object{}
	for _, name := range append([]string{"X-Request-Id"}, names...) {
		list = append(list, member{name, object{{"$ref", "#/components/headers/" + name}}})
	}
	return list
}
