package api

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.000", -time.Second: "0.000", 245 * time.Millisecond: "0.245", 133 * time.Microsecond: "0.000133",
		1400 * time.Nanosecond: "0.000001", time.Hour + time.Millisecond: "3600.001", 999999600 * time.Nanosecond: "1.000",
	} {
		if got := string(AppendSeconds(nil, d)); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

var stringCases = map[string]string{
	"":                         `""`,
	"Grüße, 世界 😀":              `"Grüße, 世界 😀"`,
	"\"\\/\b\f\n\r\t\x00\x1f":  `"\"\\/\u0008\u000c\n\r\t\u0000\u001f"`,
	"a\u2028b\u2029":           `"a\u2028b\u2029"`,
	"a\u0085b":                 `"a\u0085b"`,
	"\v\x1c\x1d\x1e":           `"\u000b\u001c\u001d\u001e"`,
	"\u2027\u202a\u0084\u0086": "\"\u2027\u202a\u0084\u0086\"",
	"\xff":                     "\"\uFFFD\"",
	"a\xe4\xb8":                "\"a\uFFFD\uFFFD\"",
	"\xed\xa0\x80z":            "\"\uFFFD\uFFFD\uFFFDz\"",
	"\uFFFD":                   "\"\uFFFD\"",
	"<b> & '\x7f":              "\"<b> & '\x7f\"",
}

func TestString(t *testing.T) {
	for in, want := range stringCases {
		if got := string(AppendString(nil, in)); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
		if got := string(AppendString(nil, []byte(in))); got != want {
			t.Errorf("bytes %q: got %s, want %s", in, got, want)
		}
	}
}

// lineEnds are the characters at which a reader of lines may cut: HTML's, and those of Python's str.splitlines.
const lineEnds = "\n\r\v\f\x1c\x1d\x1e\u0085\u2028\u2029"

// FuzzString checks that every reader gets back the string, with U+FFFD for what isn't UTF-8, and that no line end is
// left in it.
func FuzzString(f *testing.F) {
	for in := range stringCases {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := AppendString(nil, in)
		var back string
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatalf("%q gives %q: %v", in, got, err)
		}
		if want := string([]rune(in)); back != want || !utf8.Valid(got) || strings.ContainsAny(string(got), lineEnds) {
			t.Fatalf("%q gives %q", in, got)
		}
	})
}
