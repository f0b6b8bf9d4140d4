package grammar

import (
	"errors"
	"fmt"
	"strings"
)

// Kind is the language of a Source.
type Kind string

// Kinds of grammars. An empty kind is no grammar.
const (
	None       Kind = ""
	JSONSchema Kind = "json_schema" // drafts 4 to 2020-12, see docs/api.md
	Regex      Kind = "regex"       // Rust's syntax, the whole answer must match
	Lark       Kind = "lark"        // llguidance's variant
	GBNF       Kind = "gbnf"        // llama.cpp's grammars
)

// Source is the form that an answer must have. Comparable; the zero value is none.
type Source struct {
	Kind Kind
	Text string
}

// Errors that callers distinguish.
var (
	// ErrInvalid is wrapped by errors about a grammar that can't be used or obeyed: the client's mistake.
	ErrInvalid = errors.New("unusable grammar")
	// ErrTooComplex means that following a grammar took more work or memory than is allowed.
	ErrTooComplex = errors.New("the grammar is too complex to be followed in time")
)

// Bounds on what a client may send.
const (
	schemaBytesMax = 256 << 10
	textBytesMax   = 32 << 10 // of the other kinds
	nestingMax     = 64       // of JSON in a schema
	membersMax     = 1000     // of one object in a schema: what may come next grows with them
	groupsMax      = 64       // of parentheses in a pattern or a grammar
	symbolsMax     = 10_000   // of a GBNF grammar, a character of a literal counting as one
	repetitionMax  = 100_000
)

// String is the form of a Source on the wire: a GBNF text as it is, as engines before this one sent and read it, the
// other kinds with their name before it.
func (s Source) String() string {
	if s.Kind == None || s.Kind == GBNF {
		return s.Text
	}
	return string(s.Kind) + "\n" + s.Text
}

// Parse reads what String wrote.
func Parse(text string) Source {
	for _, kind := range []Kind{JSONSchema, Regex, Lark, AnswerForm} {
		if rest, ok := strings.CutPrefix(text, string(kind)+"\n"); ok {
			return Source{kind, rest}
		}
	}
	if text == "" {
		return Source{}
	}
	return Source{GBNF, text}
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}
