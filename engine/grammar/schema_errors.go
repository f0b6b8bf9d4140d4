package grammar

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

var (
	quotedWord = regexp.MustCompile(`"(\$?[A-Za-z]+)"`)
	plainWord  = regexp.MustCompile(`\$?[A-Za-z]+`)
)

const unimplementedKeysPrefix = "Unimplemented keys: "

// explainSchema finds the keyword that the library rejects and adds to the error where in the schema it is.
func explainSchema(text string, err error) error {
	message := strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": ")
	all := keywords(jsontext.Value(text), nil)
	if list, ok := strings.CutPrefix(message, unimplementedKeysPrefix); ok {
		var names []string
		for _, m := range quotedWord.FindAllStringSubmatch(list, -1) {
			names = append(names, m[1])
		}
		return unsupported(all, names)
	}
	found := keywordsInMessage(all, message)
	message = withoutRegexDrawing(message)
	if len(found) == 0 {
		return invalid("JSON schema: %s", message)
	}
	places := make([]string, 0, 3)
	for _, k := range found[:min(len(found), 3)] {
		places = append(places, k.path())
	}
	if len(found) > len(places) {
		places = append(places, "…")
	}
	return invalid("JSON schema: %s at %s: %s", found[0].name, strings.Join(places, ", "), message)
}

// unsupported names each keyword once, with its first place.
func unsupported(all []keyword, names []string) error {
	var parts []string
	for _, name := range names {
		at := slices.IndexFunc(all, func(k keyword) bool { return k.name == name })
		if at < 0 {
			parts = append(parts, name)
			continue
		}
		parts = append(parts, fmt.Sprintf("%s at %s", name, all[at].path()))
	}
	return invalid("JSON schema: %s can't be obeyed; leave it out or say it another way", strings.Join(parts, ", "))
}

// keywordsInMessage finds the keywords that a message may be about: those of its first word that is a keyword of the
// schema; where the message names a value of it, too, only those with that value.
func keywordsInMessage(all []keyword, message string) []keyword {
	if _, format, ok := strings.Cut(message, "Unknown format: "); ok {
		return keywordsNamed(all, "format", format)
	}
	if pattern, ok := brokenPattern(message); ok {
		return keywordsWithPattern(all, pattern)
	}
	if strings.Contains(message, "patternProperty") {
		return keywordsNamed(all, "patternProperties", "")
	}
	if strings.Contains(message, "Reference segment") || strings.Contains(message, "Pointer") || strings.Contains(message, "circular reference") {
		return keywordsNamed(all, "$ref", "")
	}
	for _, word := range plainWord.FindAllString(message, -1) {
		if found := keywordsNamed(all, word, ""); len(found) > 0 {
			return found
		}
	}
	return nil
}

const regexErrorMarker = "regex parse error:"

// brokenPattern is the pattern that the library couldn't parse: the line after the marker.
func brokenPattern(message string) (string, bool) {
	_, rest, ok := strings.Cut(message, regexErrorMarker+"\n")
	pattern, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(pattern), ok
}

// withoutRegexDrawing removes from a message the lines in which the library shows where in a pattern the error is.
func withoutRegexDrawing(message string) string {
	if before, rest, ok := strings.Cut(message, regexErrorMarker); ok {
		if _, errText, ok := strings.Cut(rest, "error: "); ok {
			return before + strings.TrimSpace(errText)
		}
	}
	return message
}

// keywordsWithPattern finds the keywords with this pattern. The library may have rewritten it; then any keyword with a
// pattern is better than none.
func keywordsWithPattern(all []keyword, pattern string) []keyword {
	var found, any []keyword
	for _, k := range all {
		switch k.name {
		case "pattern":
			var text string
			if any = append(any, k); json.Unmarshal(k.value, &text) == nil && text == pattern {
				found = append(found, k)
			}
		case "patternProperties":
			any = append(any, k)
			if slices.ContainsFunc(membersOf(k.value), func(m member) bool { return m.name == pattern }) {
				found = append(found, k)
			}
		}
	}
	if len(found) > 0 {
		return found
	}
	return any
}

func keywordsNamed(all []keyword, name, value string) []keyword {
	var found []keyword
	for _, k := range all {
		if k.name == name && (value == "" || strings.Contains(string(k.value), value)) {
			found = append(found, k)
		}
	}
	return found
}
