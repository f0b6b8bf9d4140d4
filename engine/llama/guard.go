//go:build llama

package llama

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Bounds on what a client may send into the library's grammar code. Beyond them it overflows the stack or works for seconds.
const (
	grammarBytesMax      = 64 << 10
	grammarNestingMax    = 128
	grammarRepetitionMax = 2000  // of one item
	grammarExpansionMax  = 20000 // all repetitions together
	schemaBytesMax       = 64 << 10
	schemaNestingMax     = 64
	patternNestingMax    = 32
)

// ErrGrammar is wrapped by errors about a grammar or JSON schema that can't be used.
var ErrGrammar = errors.New("grammar can't be used")

// checkGrammar refuses a GBNF text by its size, the depth of its groups and the size of its repetitions.
func checkGrammar(gbnf string) error {
	if len(gbnf) > grammarBytesMax {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrGrammar, len(gbnf), grammarBytesMax)
	}
	depth, expansion := 0, 0
	for i := 0; i < len(gbnf); i++ {
		switch gbnf[i] {
		case 0:
			return fmt.Errorf("%w: holds a zero byte", ErrGrammar)
		case '"', '[':
			i = skipLiteral(gbnf, i)
		case '#':
			for i < len(gbnf) && gbnf[i] != '\n' {
				i++
			}
		case '(':
			if depth++; depth > grammarNestingMax {
				return fmt.Errorf("%w: groups are nested more than %d deep", ErrGrammar, grammarNestingMax)
			}
		case ')':
			depth--
		case '{':
			largest, end := repetition(gbnf, i)
			if largest == repetitionReversed {
				return fmt.Errorf("%w: a repetition whose maximum is below its minimum", ErrGrammar)
			}
			if largest > grammarRepetitionMax {
				return fmt.Errorf("%w: a repetition of more than %d", ErrGrammar, grammarRepetitionMax)
			}
			if expansion += largest; expansion > grammarExpansionMax {
				return fmt.Errorf("%w: repetitions add up to more than %d", ErrGrammar, grammarExpansionMax)
			}
			i = end
		}
	}
	return nil
}

// skipLiteral gives the place of the quote or bracket that ends the one at start.
func skipLiteral(s string, start int) int {
	end := s[start]
	if end == '[' {
		end = ']'
	}
	for i := start + 1; i < len(s); i++ {
		if s[i] == '\\' {
			i++
		} else if s[i] == end {
			return i
		}
	}
	return len(s)
}

// repetitionReversed is what repetition says of {m,n} with n below m: the library takes their difference as unsigned and unfolds it until
// no memory is left.
const repetitionReversed = -1

// repetition reads the largest number of {m}, {m,} or {m,n} and where it ends.
func repetition(s string, start int) (largest, end int) {
	for end = start + 1; end < len(s) && s[end] != '}'; {
		from := end
		for end < len(s) && s[end] >= '0' && s[end] <= '9' {
			end++
		}
		if end == from {
			end++
			continue
		}
		n, err := strconv.Atoi(s[from:end])
		if err != nil { // more digits than an int has
			n = grammarRepetitionMax + 1
		}
		if n < largest {
			return repetitionReversed, end
		}
		largest = n
	}
	return largest, end
}

// checkSchema refuses a JSON schema by its size, its depth, the depth of the groups in its patterns and what its conversion would cost.
func checkSchema(schema []byte) error {
	if len(schema) > schemaBytesMax {
		return fmt.Errorf("%w: the JSON schema has %d bytes, at most %d are allowed", ErrGrammar, len(schema), schemaBytesMax)
	}
	depth := 0
	for d := json.NewDecoder(bytes.NewReader(schema)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return checkSchemaCost(schema)
		}
		if err != nil {
			return fmt.Errorf("%w: the JSON schema is no JSON: %w", ErrGrammar, err)
		}
		switch t := token.(type) {
		case json.Delim:
			if t == '{' || t == '[' {
				depth++
			} else {
				depth--
			}
			if depth > schemaNestingMax {
				return fmt.Errorf("%w: the JSON schema is nested more than %d deep", ErrGrammar, schemaNestingMax)
			}
		case string:
			if openGroups(t) > patternNestingMax {
				return fmt.Errorf("%w: a pattern is nested more than %d deep", ErrGrammar, patternNestingMax)
			}
		}
	}
}

// openGroups is how many parentheses are open at most at one place.
func openGroups(s string) int {
	open, most := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			open++
		case ')':
			open--
		}
		most = max(most, open)
	}
	return most
}
