package vocabulary

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

func TestDecode(t *testing.T) {
	in, err := DecodeTokenize([]byte(`{"model":"org/demo:v1","content":"Hi","add_special":true,"with_pieces":true,"parse_special":false}`), api.Limits{})
	if err != nil || *in != (TokenizeRequest{Model: "org/demo", Version: "v1", Content: "Hi", AddSpecial: true, WithPieces: true}) {
		t.Errorf("%+v, %v", in, err)
	}
	if in, err = DecodeTokenize([]byte(`{"content":""}`), api.Limits{}); err != nil || in.Content != "" {
		t.Errorf("an empty text: %+v, %v", in, err)
	}
	out, err := DecodeDetokenize([]byte(`{"tokens":[1,2.0,0]}`))
	if err != nil || !slices.Equal(out.Tokens, []int32{1, 2, 0}) {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestRefusals(t *testing.T) {
	limits := api.Limits{PromptBytes: 10}
	for body, param := range map[string]string{
		`{}`: "content", `{"content":null}`: "content", `{"content":7}`: "content", `{"content":"12345678901"}`: "content",
		`{"content":"a","parse_special":true}`: "parse_special", `{"content":"a","add_special":1}`: "add_special", `[]`: "", `{"content":"a"`: "",
		`{"content":"a","model":"` + strings.Repeat("m", 300) + `"}`: "model",
	} {
		if r, err := DecodeTokenize([]byte(body), limits); err == nil || err.Param != param || err.Status() != 400 {
			t.Errorf("%s: %+v, %v", body, r, err)
		}
	}
	for _, body := range []string{`{}`, `{"tokens":null}`, `{"tokens":"a"}`, `{"tokens":[-1]}`, `{"tokens":[1.5]}`, `{"tokens":[9999999999]}`, `{"tokens":["a"]}`} {
		if r, err := DecodeDetokenize([]byte(body)); err == nil || err.Param != "tokens" {
			t.Errorf("%s: %+v, %v", body, r, err)
		}
	}
}

func TestReplies(t *testing.T) {
	for want, got := range map[string][]byte{
		`{"tokens":[1,2]}`: AppendTokens(nil, []int32{1, 2}),
		`{"tokens":[]}`:    AppendTokens(nil, nil),
		`{"tokens":[{"id":1,"piece":" a\""},{"id":2,"piece":[195]}]}`: AppendPieces(nil, []int32{1, 2}, [][]byte{[]byte(` a"`), {0xc3}}),
		`{"content":"a\n"}`: AppendContent(nil, []byte("a\n")),
		`{"prompt":"a"}`:    AppendPrompt(nil, []byte("a")),
	} {
		if string(got) != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"content":"a","model":"m:v","tokens":[1,2]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := DecodeTokenize(body, api.Limits{PromptBytes: 100}); err == nil {
			if len(r.Content) > 100 {
				t.Fatalf("%d bytes", len(r.Content))
			}
			if !jsontext.Value(AppendContent(nil, []byte(r.Content))).IsValid() {
				t.Fatal("not valid JSON")
			}
		}
		if r, err := DecodeDetokenize(body); err == nil && slices.ContainsFunc(r.Tokens, func(t int32) bool { return t < 0 }) {
			t.Fatal("a negative id")
		}
	})
}
