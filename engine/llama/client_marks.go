//go:build llama

package llama

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"
)

// clientMarks keeps texts of a client from becoming control tokens, whatever a chat template does with them. The
// template runtime's own marks don't survive everything, JSON above all. So where a client's text is, begins or ends
// like the text of a control token, a character that is nowhere else is put into it; the rendered prompt is cut there,
// and no control token reaches over a cut.
type clientMarks struct {
	vocab  *vocab
	rests  map[byte][]string // see restsOf
	before rune              // the character before it is the client's
	after  rune              // the character after it is the client's
	used   bool
}

// Private use characters; pairs that no text of the request has are taken.
const firstMark, lastMark = 0xE100, 0xF8FE

// newClientMarks picks two characters that none of the texts has.
func newClientMarks(v *vocab, rests map[byte][]string, texts ...string) *clientMarks {
	var taken [lastMark + 2 - firstMark]bool
	for _, s := range texts {
		eachPrivate(s, func(r rune) { taken[r-firstMark] = true })
	}
	for r := rune(firstMark); r < lastMark; r += 2 {
		if !taken[r-firstMark] && !taken[r+1-firstMark] {
			return &clientMarks{vocab: v, rests: rests, before: r, after: r + 1}
		}
	}
	return nil
}

// eachPrivate calls note for each character of a text that could be a mark, also for one in its form in JSON of ASCII
// only.
func eachPrivate(text string, note func(rune)) {
	for i, r := range text {
		if r == '\\' && i+6 <= len(text) && (text[i+1] == 'u' || text[i+1] == 'U') {
			n, err := strconv.ParseUint(text[i+2:i+6], 16, 32)
			if err != nil {
				continue
			}
			r = rune(n)
		}
		if r >= firstMark && r <= lastMark+1 {
			note(r)
		}
	}
}

// escaped is the form that a rune has in JSON of ASCII only.
func escaped(r rune) string {
	return `\u` + strings.ToLower(string([]byte{hex(r >> 12), hex(r >> 8), hex(r >> 4), hex(r)}))
}

func hex(r rune) byte { return "0123456789abcdef"[r&15] }

// write returns a client's text with its marks.
func (m *clientMarks) write(text string) string {
	var out []byte
	from := 0
	if m.beginsInside(text) {
		out = utf8.AppendRune(out, m.after)
	}
	for i := range len(text) {
		if !m.beginsAt(text[i:]) {
			continue
		}
		_, n := utf8.DecodeRuneInString(text[i:])
		out = append(out, text[from:i+n]...)
		out = utf8.AppendRune(out, m.before)
		from = i + n
	}
	if from == 0 && len(out) == 0 {
		return text
	}
	m.used = true
	return string(append(out, text[from:]...))
}

// beginsAt reports whether a control token's text begins text, or text is the beginning of one.
func (m *clientMarks) beginsAt(text string) bool {
	longest, goesOn := matchSpecial(&m.vocab.specials, text)
	return longest != nil || goesOn
}

// beginsInside reports whether text could go on within the text of a control token that the template begins before it.
func (m *clientMarks) beginsInside(text string) bool {
	if text == "" {
		return false
	}
	for _, rest := range m.rests[text[0]] {
		if n := min(len(rest), len(text)); rest[:n] == text[:n] {
			return true
		}
	}
	return false
}

// restsOf lists, by first byte, what is missing of control tokens that a template may begin and leave to the text that
// it puts next: '<|' + name + '|>'.
func restsOf(v *vocab, templates ...string) map[byte][]string {
	begun := make(map[string]bool)
	for _, source := range templates {
		for i := 1; i < len(source); i++ {
			if c := source[i]; c == '\'' || c == '"' || c == '{' {
				for n := 1; n <= min(i, specialMax); n++ {
					begun[source[i-n:i]] = true
				}
			}
		}
	}
	rests := make(map[byte][]string)
	for _, sp := range v.specials.list {
		for i := 1; i < min(len(sp.text), specialMax); i++ {
			if begun[string(sp.text[:i])] {
				rests[sp.text[i]] = append(rests[sp.text[i]], string(sp.text[i:]))
			}
		}
	}
	return rests
}

// specialMax is how much of the text of a control token templates are searched for.
const specialMax = 48

// parts cuts a rendered prompt at its marks.
func (m *clientMarks) parts(prompt string) []promptPart {
	if !m.used {
		return []promptPart{{text: []byte(prompt)}}
	}
	for _, r := range []rune{m.before, m.after} { // JSON may have them escaped
		prompt = strings.ReplaceAll(prompt, escaped(r), string(r))
	}
	var parts []promptPart
	add := func(text string, fromClient bool) {
		if text != "" {
			parts = append(parts, promptPart{text: []byte(text), fromClient: fromClient})
		}
	}
	from := 0
	for i, r := range prompt {
		switch {
		case i < from:
		case r == m.before:
			_, n := utf8.DecodeLastRuneInString(prompt[from:i])
			add(prompt[from:i-n], false)
			add(prompt[i-n:i], true)
			from = i + utf8.RuneLen(r)
		case r == m.after:
			add(prompt[from:i], false)
			i += utf8.RuneLen(r)
			next, n := utf8.DecodeRuneInString(prompt[i:])
			if next == m.before || next == m.after { // a template has put something else here
				n = 0
			}
			add(prompt[i:i+n], true)
			from = i + n
		}
	}
	add(prompt[from:], false)
	return parts
}

// rewriteStrings applies write to every string of a JSON text, keys too.
func rewriteStrings(text json.RawMessage, write func(string) string) json.RawMessage {
	var out []byte
	from := 0
	for i := 0; i < len(text); i++ {
		if text[i] != '"' {
			continue
		}
		end := i + 1
		for end < len(text) && text[end] != '"' {
			if text[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(text) {
			break
		}
		var value string
		if json.Unmarshal(text[i:end+1], &value) == nil {
			if changed := write(value); changed != value {
				out = append(append(out, text[from:i]...), quoted(changed)...)
				from = end + 1
			}
		}
		i = end
	}
	if from == 0 {
		return text
	}
	return append(out, text[from:]...)
}

func quoted(s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always has a JSON form
	return bytes.TrimSpace(b.Bytes())
}
