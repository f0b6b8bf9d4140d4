package api

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// IsToolName reports whether a function may have that name: letters, digits, _, - and ., at most MaxToolName of them.
// The engine takes no others.
func IsToolName(s string) bool {
	if s == "" || len(s) > MaxToolName {
		return false
	}
	return strings.IndexFunc(s, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("_-.", c))
	}) < 0
}

// ToolParameters checks the schema of a function's arguments. Absent and null mean none.
func ToolParameters(v jsontext.Value) (schema []byte, ok bool) {
	switch v.Kind() {
	case jsontext.KindInvalid, 'n':
		return nil, len(v) == 0 || v.Kind() == 'n'
	case '{':
		return append([]byte(nil), v...), len(v) <= MaxSchemaBytes
	}
	return nil, false
}

// ToolArguments returns the arguments of a call that a client repeats, as JSON text: clients send them as a string with
// the JSON in it, or as the object itself. Empty ones are an empty object.
func ToolArguments(v jsontext.Value) (text string, ok bool) {
	switch v.Kind() {
	case jsontext.KindInvalid, 'n':
		return "{}", len(v) == 0 || v.Kind() == 'n'
	case '{':
		return string(v), true
	case '"':
		raw, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			return "", false
		}
		if strings.TrimSpace(string(raw)) == "" {
			return "{}", true
		}
		// A model may have been cut off within them, so text that isn't JSON is passed on as a JSON string.
		if !jsontext.Value(raw).IsValid() || NestedDeeperThan(raw, MaxNestingDepth) {
			return string(AppendString(nil, raw)), true
		}
		return string(raw), true
	}
	return "", false
}
