package api

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

func TestUnknownFields(t *testing.T) {
	var body struct {
		Known   int            `json:"known"`
		Unknown jsontext.Value `json:",embed"`
	}
	long := strings.Repeat("n", 100)
	if err := json.Unmarshal([]byte(`{"known":1,"user":"u","temprature":1,"`+long+`":[{}]}`), &body); err != nil {
		t.Fatal(err)
	}
	got := UnknownFields(body.Unknown, map[string]bool{"user": true})
	if want := []string{long[:64], "temprature"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := UnknownFields(nil, nil); got != nil {
		t.Errorf("none: %q", got)
	}
	var many strings.Builder
	for i := range 100 {
		many.WriteString(`"f` + string(rune('a'+i%26)) + strings.Repeat("x", i) + `":1,`)
	}
	if got := UnknownFields(jsontext.Value(`{`+strings.TrimSuffix(many.String(), ",")+`}`), nil); len(got) != maxUnknownFields {
		t.Errorf("%d names", len(got))
	}
}
