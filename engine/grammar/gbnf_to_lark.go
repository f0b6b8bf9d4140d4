package grammar

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// gbnfToLark translates a GBNF grammar (grammars/README.md of llama.cpp describes the form). Every terminal becomes a
// lexeme of one character, so that nothing depends on how a lexer would cut the text.
func gbnfToLark(gbnf string) (string, error) {
	t := translator{in: gbnf, begin: "root", symbolsMax: symbolsMax, defined: make(map[string]bool), used: make(map[string]int)}
	if err := t.grammar(); err != nil {
		return "", invalid("GBNF: %w", err)
	}
	return "start: " + ruleName("root") + "\n" + t.out.String(), nil
}

// translator reads GBNF by recursive descent and writes Lark as it goes.
type translator struct {
	in         string
	begin      string            // the first rule
	controls   map[string]int32  // texts that mean a token where a literal has them
	schemas    map[string]string // rules that stand for whole literals
	symbolsMax int
	ours       bool // the library made the grammar, so the names of its rules mean something

	automata map[string]*automaton // by the name of the first state
	at       int
	depth    int
	symbols  int
	out      strings.Builder
	defined  map[string]bool
	used     map[string]int // where a rule is first mentioned
}

func (t *translator) grammar() error {
	t.used[t.begin] = 0
	for t.skipBlanks(true); t.at < len(t.in); t.skipBlanks(true) {
		if err := t.rule(); err != nil {
			return err
		}
	}
	t.writeAutomata()
	for name, at := range t.used {
		if !t.defined[name] {
			return t.errorAt(at, "rule %q isn't defined", name)
		}
	}
	return nil
}

// ruleName is a name for a rule that Lark takes, whatever its name in GBNF.
func ruleName(name string) string { return "r_" + fmt.Sprintf("%x", name) }

func (t *translator) errorAt(at int, format string, args ...any) error {
	line := 1 + strings.Count(t.in[:min(at, len(t.in))], "\n")
	return fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
}

func (t *translator) rule() error {
	at, name := t.at, t.name()
	if name == "" {
		return t.errorAt(at, "a rule name was expected at %q", t.rest())
	}
	t.skipBlanks(false)
	if !t.take("::=") {
		return t.errorAt(t.at, "::= was expected after %q", name)
	}
	if t.defined[name] {
		return t.errorAt(at, "rule %q is defined twice", name)
	}
	t.defined[name] = true
	if group := automatonOf(name); group != "" && t.ours {
		return t.automatonRule(group, name)
	}
	t.out.WriteString(ruleName(name) + ": ")
	if err := t.alternatives(false); err != nil {
		return err
	}
	t.out.WriteByte('\n')
	if t.at < len(t.in) && t.in[t.at] != '\n' && t.in[t.at] != '\r' {
		return t.errorAt(t.at, "the end of a line was expected at %q", t.rest())
	}
	return nil
}

func (t *translator) alternatives(inGroup bool) error {
	for {
		t.skipBlanks(inGroup)
		items := 0
		for {
			ok, err := t.item(inGroup)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			items++
		}
		if items == 0 {
			t.out.WriteString(`""`)
		}
		if !t.take("|") {
			return nil
		}
		t.out.WriteString(" | ")
		t.skipBlanks(true)
	}
}

// item is one symbol and what repeats it; false: there is none here.
func (t *translator) item(inGroup bool) (bool, error) {
	if t.at >= len(t.in) {
		return false, nil
	}
	if t.symbols++; t.symbols > t.symbolsMax {
		return false, t.errorAt(t.at, "more than %d symbols", t.symbolsMax)
	}
	var err error
	switch c := t.in[t.at]; {
	case c == '"':
		err = t.literal()
	case c == '[':
		var class string
		class, err = t.class()
		t.out.WriteString(class)
	case c == '.':
		t.at++
		t.out.WriteString(`/(?s:.)/`)
	case c == '(':
		err = t.group()
	case c == '<' || c == '!':
		err = t.errorAt(t.at, "token literals (%q) are not supported", t.rest())
	case isName(c):
		at := t.at
		name := t.name()
		if _, seen := t.used[name]; !seen {
			t.used[name] = at
		}
		t.out.WriteString(ruleName(name))
	default:
		return false, nil
	}
	if err == nil {
		err = t.repetition()
	}
	t.out.WriteByte(' ')
	t.skipBlanks(inGroup)
	return true, err
}

func (t *translator) group() error {
	if t.depth++; t.depth > groupsMax {
		return t.errorAt(t.at, "groups are nested more than %d deep", groupsMax)
	}
	at := t.at
	t.at++
	t.out.WriteByte('(')
	if err := t.alternatives(true); err != nil {
		return err
	}
	if !t.take(")") {
		return t.errorAt(at, "the group isn't closed")
	}
	t.out.WriteByte(')')
	t.depth--
	return nil
}

// literal writes each character as a lexeme of its own.
func (t *translator) literal() error {
	at := t.at
	t.at++
	var text strings.Builder
	count := 0
	for ; t.at < len(t.in) && t.in[t.at] != '"'; count++ {
		r, err := t.character()
		if err != nil {
			return err
		}
		text.WriteRune(r)
	}
	t.symbols += count
	if !t.take(`"`) {
		return t.errorAt(at, "the literal isn't closed")
	}
	if count == 0 {
		t.out.WriteString(`("")`)
		return nil
	}
	if rule, ok := t.schemas[text.String()]; ok {
		t.out.WriteString(rule)
		return nil
	}
	t.out.WriteString("( " + literal(text.String(), t.controls) + ")")
	return nil
}

func (t *translator) class() (string, error) {
	at := t.at
	t.at++
	var out strings.Builder
	out.WriteString("/[")
	if t.take("^") {
		out.WriteByte('^')
	}
	count := 0
	for ; t.at < len(t.in) && t.in[t.at] != ']'; count++ {
		from, err := t.character()
		if err != nil {
			return "", err
		}
		out.WriteString(regexEscape(from))
		if t.at+1 >= len(t.in) || t.in[t.at] != '-' || t.in[t.at+1] == ']' {
			continue
		}
		t.at++
		to, err := t.character()
		if err != nil {
			return "", err
		}
		if to < from {
			return "", t.errorAt(at, "the range %q to %q runs backwards", from, to)
		}
		out.WriteString("-" + regexEscape(to))
	}
	if !t.take("]") {
		return "", t.errorAt(at, "the character class isn't closed")
	}
	if count == 0 {
		return "", t.errorAt(at, "an empty character class")
	}
	return out.String() + "]/", nil
}

// character reads one character of a literal or class, with GBNF's escapes.
func (t *translator) character() (rune, error) {
	r, n := utf8.DecodeRuneInString(t.in[t.at:])
	if r == utf8.RuneError && n <= 1 {
		return 0, t.errorAt(t.at, "invalid UTF-8")
	}
	if r != '\\' {
		t.at += n
		return r, nil
	}
	t.at++
	if t.at >= len(t.in) {
		return 0, t.errorAt(t.at, "the text ends within an escape")
	}
	c := t.in[t.at]
	t.at++
	switch c {
	case 'x':
		return t.hex(2)
	case 'u':
		return t.hex(4)
	case 'U':
		return t.hex(8)
	case 't':
		return '\t', nil
	case 'r':
		return '\r', nil
	case 'n':
		return '\n', nil
	case '\\', '"', '[', ']', '-', '^':
		return rune(c), nil
	}
	return 0, t.errorAt(t.at, "unknown escape \\%c", c)
}

func (t *translator) hex(digits int) (rune, error) {
	end := min(t.at+digits, len(t.in))
	n, err := strconv.ParseUint(t.in[t.at:end], 16, 32)
	if err != nil || end-t.at < digits || !utf8.ValidRune(rune(n)) {
		return 0, t.errorAt(t.at, "%d hexadecimal digits of a character were expected", digits)
	}
	t.at = end
	return rune(n), nil
}

// regexEscape writes a character so that it means itself in a regular expression, in a class and out of it.
func regexEscape(r rune) string { return fmt.Sprintf(`\x{%x}`, r) }

func (t *translator) repetition() error {
	switch {
	case t.take("*"):
		t.out.WriteByte('*')
	case t.take("+"):
		t.out.WriteByte('+')
	case t.take("?"):
		t.out.WriteByte('?')
	case t.at < len(t.in) && t.in[t.at] == '{':
		return t.repetitionBounds()
	}
	return nil
}

// repetitionBounds is {m}, {m,} or {m,n}.
func (t *translator) repetitionBounds() error {
	at := t.at
	end := strings.IndexByte(t.in[at:], '}')
	if end < 0 {
		return t.errorAt(at, "the repetition isn't closed")
	}
	low, high, pair := strings.Cut(t.in[at+1:at+end], ",")
	least, err := count(low)
	most := least
	if err == nil && pair && strings.TrimSpace(high) != "" {
		most, err = count(high)
	}
	switch {
	case err != nil:
		return t.errorAt(at, "repetition %s: %v", t.in[at:at+end+1], err)
	case most < least:
		return t.errorAt(at, "repetition %s: its maximum is below its minimum", t.in[at:at+end+1])
	case pair && strings.TrimSpace(high) == "":
		fmt.Fprintf(&t.out, "{%d,}", least)
	default:
		fmt.Fprintf(&t.out, "{%d,%d}", least, most)
	}
	t.at = at + end + 1
	return nil
}

func count(text string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no count", text)
	}
	if n > repetitionMax {
		return 0, fmt.Errorf("%d is more than %d", n, repetitionMax)
	}
	return int(n), nil
}

func isName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

func (t *translator) name() string {
	from := t.at
	for t.at < len(t.in) && isName(t.in[t.at]) {
		t.at++
	}
	return t.in[from:t.at]
}

func (t *translator) take(what string) bool {
	if !strings.HasPrefix(t.in[t.at:], what) {
		return false
	}
	t.at += len(what)
	return true
}

// skipBlanks skips spaces and comments, and line ends where they mean nothing.
func (t *translator) skipBlanks(lines bool) {
	for t.at < len(t.in) {
		switch c := t.in[t.at]; {
		case c == ' ' || c == '\t' || lines && (c == '\n' || c == '\r'):
			t.at++
		case c == '#':
			if end := strings.IndexAny(t.in[t.at:], "\r\n"); end >= 0 {
				t.at += end
			} else {
				t.at = len(t.in)
			}
		default:
			return
		}
	}
}

// rest is the next few bytes, for messages.
func (t *translator) rest() string {
	rest := t.in[t.at:]
	return strings.ToValidUTF8(rest[:min(len(rest), 16)], "\uFFFD")
}
