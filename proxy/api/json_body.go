package api

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// FirstPathElement is the name of the outermost field that an error of the JSON package points into, "" for none.
func FirstPathElement(p jsontext.Pointer) string {
	for token := range p.Tokens() {
		return token
	}
	return ""
}

// NestedDeeperThan reports whether arrays and objects are nested deeper than limit, without recursion and before
// anything is built. It may be wrong about text that isn't JSON, which is rejected anyway.
func NestedDeeperThan(body []byte, limit int) bool {
	if bytes.Count(body, []byte{'{'})+bytes.Count(body, []byte{'['}) <= limit {
		return false // most bodies: counting is fast
	}
	depth, inString := 0, false
	for i := 0; i < len(body); i++ {
		c := body[i]
		switch {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > limit {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
