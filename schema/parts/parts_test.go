package parts

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPartsComeBackAsTheyWereWritten(t *testing.T) {
	long := bytes.Repeat([]byte("ä"), MaxPayload) // longer than a record
	var stream []byte
	stream = AppendText(stream, Reasoning, []byte("hm"))
	stream = AppendText(stream, Content, nil)
	stream = AppendText(stream, Content, long)
	stream = AppendToolCall(stream, "call_1", "get_weather")
	stream = AppendText(stream, Arguments, []byte(`{"city":`))
	stream = AppendToolCall(stream, "", "other")

	var got []string
	texts := map[Kind]*bytes.Buffer{Reasoning: {}, Content: {}, Arguments: {}}
	for rest := stream; len(rest) > 0; {
		p, next, err := Next(rest)
		if err != nil {
			t.Fatal(err)
		}
		if p.Kind == ToolCall {
			got = append(got, p.ID+"/"+p.Name)
		} else {
			texts[p.Kind].Write(p.Text)
		}
		rest = next
	}
	if want := "call_1/get_weather /other"; strings.Join(got, " ") != want {
		t.Errorf("calls %q, want %q", got, want)
	}
	if texts[Reasoning].String() != "hm" || !bytes.Equal(texts[Content].Bytes(), long) || texts[Arguments].String() != `{"city":` {
		t.Error("a text came back differently")
	}
}

func TestLongTextsAreCutBetweenCharacters(t *testing.T) {
	for _, text := range []string{"x" + strings.Repeat("ä", MaxPayload), strings.Repeat("x", MaxPayload-1) + "😀", strings.Repeat("\x80", 2*MaxPayload)} {
		got := ""
		for rest := AppendText(nil, Content, []byte(text)); len(rest) > 0; {
			p, next, err := Next(rest)
			if err != nil {
				t.Fatal(err)
			}
			if utf8.ValidString(text) && !utf8.Valid(p.Text) {
				t.Errorf("a record of %d bytes ends within a character", len(p.Text))
			}
			got, rest = got+string(p.Text), next
		}
		if got != text {
			t.Error("the text came back differently")
		}
	}
}

func TestMalformedStreamsAreErrors(t *testing.T) {
	for name, stream := range map[string][]byte{
		"unknown kind":         {9, 1, 'a'},
		"kind zero":            {0, 0},
		"no length":            {1},
		"cut off":              {1, 3, 'a'},
		"endless length":       bytes.Repeat([]byte{1, 0xff}, 20),
		"longer than a record": append([]byte{1, 0xff, 0xff, 0x7f}, make([]byte, 1<<21)...),
		"id cut off":           {3, 2, 5, 'a'},
	} {
		if _, _, err := Next(stream); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzNext(f *testing.F) {
	f.Add(AppendToolCall(AppendText(nil, Content, []byte("text")), "id", "name"))
	f.Add([]byte{3, 1, 200})
	f.Fuzz(func(t *testing.T, stream []byte) {
		var again []byte
		rest := stream
		for len(rest) > 0 {
			p, next, err := Next(rest)
			if err != nil {
				break
			}
			if len(next) >= len(rest) {
				t.Fatal("no progress")
			}
			if p.Kind == ToolCall {
				again = AppendToolCall(again, p.ID, p.Name)
			} else {
				again = AppendText(again, p.Kind, p.Text)
			}
			rest = next
		}
		for len(again) > 0 { // what was read can be written and read again
			_, next, err := Next(again)
			if err != nil {
				t.Fatal(err)
			}
			again = next
		}
	})
}
