package openapi

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

type inner struct {
	Name string `json:"name"`
}

type sampleBody struct {
	inner
	Text  string           `json:"text"`
	Count *api.WholeNumber `json:"count"`
	Stop  api.StopStrings  `json:"stop"`
	Any   jsontext.Value   `json:"any"`
	List  []inner          `json:"list"`
}

func sampleFields() Fields {
	return Fields{
		"name":        {Doc: "A name."},
		"text":        {Doc: "A text.", Required: true, Schema: Text(1, 9)},
		"count":       {Doc: "A number.", Schema: Integer(1, 5), Default: 3},
		"stop":        {Doc: "Ends.", Schema: StopStrings()},
		"any":         {Doc: "Anything.", Schema: &Schema{}},
		"list":        {Doc: "A list.", MaxItems: 2},
		"list[].name": {Doc: "A name.", Required: true},
	}
}

func TestBodyHasTheFieldsOfTheStruct(t *testing.T) {
	s, err := BodyOf(sampleBody{}, sampleFields())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`"name":{"description":"A name.","type":["string","null"]}`,
		`"text":{"description":"A text.","type":"string","minLength":1,"maxLength":9}`,
		`"count":{"description":"A number.","type":["integer","null"],"default":3,"minimum":1,"maximum":5}`,
		`"list":{"description":"A list.","type":["array","null"],"items":{"type":"object","properties":{"name":{"description":"A name.","type":"string"}},"required":["name"]},"maxItems":2}`,
		`"required":["text"]`,
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("no %s in %s", part, text)
		}
	}
}

// What the description and the struct don't agree about stops the document from being made.
func TestDescriptionThatDoesNotFitIsAnError(t *testing.T) {
	for name, change := range map[string]func(Fields){
		"text has no description":               func(f Fields) { delete(f, "text") },
		"list[].name has no description":        func(f Fields) { delete(f, "list[].name") },
		"no field other":                        func(f Fields) { f["other"] = Field{Doc: "?"} },
		"text is described as [boolean]":        func(f Fields) { f["text"] = Field{Doc: "?", Schema: Bool()} },
		"stop of type api.StopStrings needs a ": func(f Fields) { f["stop"] = Field{Doc: "?"} },
	} {
		fields := sampleFields()
		change(fields)
		if _, err := BodyOf(sampleBody{}, fields); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want %s, got %v", name, err)
		}
	}
}

func TestDocumentRefusesTwoMeaningsOfOneName(t *testing.T) {
	of := func(path string, s *Schema) Endpoint {
		return Endpoint{Method: "get", Path: path, ID: path, Replies: JSONReply("", s.Named("X")), Errors: ErrorForm{Schema: Text(0, 0)}}
	}
	if _, err := Document(Info{}, "K", nil, []Endpoint{of("/a", Bool()), of("/b", Bool())}, nil); err != nil {
		t.Errorf("one meaning: %v", err)
	}
	if _, err := Document(Info{}, "K", nil, []Endpoint{of("/a", Bool()), of("/b", Number())}, nil); err == nil {
		t.Error("two meanings of X")
	}
	if _, err := Document(Info{}, "K", nil, []Endpoint{of("/a", Bool()), of("/a", Bool())}, nil); err == nil {
		t.Error("one path twice")
	}
}
