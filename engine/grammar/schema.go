package grammar

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// whitespace is what an answer may hold between two JSON tokens: a space, or line ends with an indentation. Without an end to it a model
// that is unsure writes blanks until its tokens are used up.
const whitespace = ` |(\r?\n){1,2}[ \t]{0,40}`

// optionsKeyword at the root of a schema is where the library looks for options. Clients may set one of them.
const optionsKeyword = "x-guidance"

// options are the library's. A client may say coerce_one_of: take oneOf as anyOf even where its branches may overlap.
type options struct {
	CoerceOneOf bool   `json:"coerce_one_of"`
	Whitespace  string `json:"whitespace_pattern"`
}

type clientOptions struct {
	CoerceOneOf bool `json:"coerce_one_of"`
}

// prepareSchema checks a schema's form and size and puts the options in. The order of its members stays, since answers have it, too.
func prepareSchema(text string) (string, error) {
	members, err := splitSchema(text)
	if err != nil {
		return "", err
	}
	if err := checkLibrary(text); err != nil {
		return "", err
	}
	how := options{Whitespace: whitespace}
	var out strings.Builder
	for _, m := range members {
		if m.name != optionsKeyword {
			continue
		}
		var client clientOptions
		if err := json.Unmarshal(m.value, &client, json.RejectUnknownMembers(true)); err != nil {
			return "", invalid("%s may only hold coerce_one_of, true or false", optionsKeyword)
		}
		how.CoerceOneOf = client.CoerceOneOf
	}
	head, err := json.Marshal(how)
	if err != nil {
		return "", err
	}
	out.WriteByte('{')
	for _, m := range members {
		if m.name == optionsKeyword {
			continue
		}
		name, err := jsontext.AppendQuote(nil, m.name)
		if err != nil {
			return "", invalid("the name %q: %w", m.name, err)
		}
		fmt.Fprintf(&out, "%s:%s,", name, m.value)
	}
	// At the end, since the library puts the last member in the place of the one that it takes out.
	fmt.Fprintf(&out, `"%s":%s}`, optionsKeyword, head)
	return out.String(), nil
}

// member of a JSON object, in the order of the text.
type member struct {
	name  string
	value jsontext.Value
}

// splitSchema reads the members of the root, having looked at all of the text.
func splitSchema(text string) ([]member, error) {
	if err := checkJSON(text); err != nil {
		return nil, err
	}
	members := membersOf(jsontext.Value(text))
	if members == nil && jsontext.Value(text).Kind() != '{' {
		return nil, invalid("a JSON schema must be an object")
	}
	return members, nil
}

// checkJSON refuses what is no JSON, has a name twice, or is nested too deeply; and patterns that are.
func checkJSON(text string) error {
	d := jsontext.NewDecoder(strings.NewReader(text))
	for {
		token, err := d.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return invalid("the JSON schema is no JSON: %w", err)
		}
		if d.StackDepth() > nestingMax {
			return invalid("the JSON schema is nested more than %d deep", nestingMax)
		}
		if kind, n := d.StackIndex(d.StackDepth()); kind == '{' && n > 2*membersMax {
			return invalid("the JSON schema has an object of more than %d members at %s", membersMax, d.StackPointer().Parent())
		}
		if token.Kind() == '"' {
			if err := checkGroups(token.String()); err != nil {
				return invalid("%s: groups are nested more than %d deep", d.StackPointer(), groupsMax)
			}
		}
	}
}

// membersOf lists an object's members; nil for anything else. The text has been checked.
func membersOf(value jsontext.Value) []member {
	d := jsontext.NewDecoder(strings.NewReader(string(value)))
	if token, err := d.ReadToken(); err != nil || token.Kind() != '{' {
		return nil
	}
	list := []member{}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return list
		}
		text := name.String() // before the next read, which takes the token's place
		raw, err := d.ReadValue()
		if err != nil {
			return list
		}
		list = append(list, member{text, raw.Clone()})
	}
	return list
}

// elementsOf lists an array's elements; nil for anything else.
func elementsOf(value jsontext.Value) []jsontext.Value {
	d := jsontext.NewDecoder(strings.NewReader(string(value)))
	if token, err := d.ReadToken(); err != nil || token.Kind() != '[' {
		return nil
	}
	var list []jsontext.Value
	for d.PeekKind() != ']' {
		raw, err := d.ReadValue()
		if err != nil {
			return list
		}
		list = append(list, raw.Clone())
	}
	return list
}

// Where a keyword's value holds schemas.
var (
	keywordsOfOne  = []string{"items", "additionalItems", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema"}
	keywordsOfList = []string{"items", "prefixItems", "allOf", "anyOf", "oneOf"}
	keywordsOfMap  = []string{"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"}
)

// keyword is one in its place in a schema.
type keyword struct {
	name  string
	value jsontext.Value
	up    *step // to the schema that has it
}

// step is one on the way from the root to a place. Places share their beginnings, since names may be long.
type step struct {
	up   *step
	name string
}

// path is the JSON pointer of a keyword.
func (k keyword) path() string {
	names := []string{escapePointer(k.name)}
	for s := k.up; s != nil; s = s.up {
		names = append(names, escapePointer(s.name))
	}
	slices.Reverse(names)
	return shortPath("/" + strings.Join(names, "/"))
}

// shortPath keeps messages readable.
func shortPath(path string) string {
	const most = 200
	if len(path) <= most {
		return path
	}
	return strings.ToValidUTF8(path[:most], "") + "…"
}

// keywords lists those of a schema and of all schemas in it, in the order of the text.
func keywords(schema jsontext.Value, at *step) []keyword {
	var list []keyword
	for _, m := range membersOf(schema) {
		list = append(list, keyword{m.name, m.value, at})
		here := &step{at, m.name}
		if slices.Contains(keywordsOfOne, m.name) {
			list = append(list, keywords(m.value, here)...)
		}
		if slices.Contains(keywordsOfList, m.name) {
			for i, part := range elementsOf(m.value) {
				list = append(list, keywords(part, &step{here, strconv.Itoa(i)})...)
			}
		}
		if slices.Contains(keywordsOfMap, m.name) {
			for _, part := range membersOf(m.value) {
				list = append(list, keywords(part.value, &step{here, part.name})...)
			}
		}
	}
	return list
}

func escapePointer(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

var (
	quotedWord = regexp.MustCompile(`"(\$?[A-Za-z]+)"`)
	plainWord  = regexp.MustCompile(`\$?[A-Za-z]+`)
)

const unimplemented = "Unimplemented keys: "

// explainSchema finds the keyword of which the library complains and says where in the schema it stands.
func explainSchema(text string, err error) error {
	message := strings.TrimPrefix(err.Error(), ErrInvalid.Error()+": ")
	all := keywords(jsontext.Value(text), nil)
	if list, ok := strings.CutPrefix(message, unimplemented); ok {
		var names []string
		for _, m := range quotedWord.FindAllStringSubmatch(list, -1) {
			names = append(names, m[1])
		}
		return unsupported(all, names)
	}
	found := mentioned(all, message)
	message = shortened(message)
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

// mentioned finds the keywords that a message may be about: the first word of it that is a keyword of the schema; where the message names a
// value of it, too, those with that value.
func mentioned(all []keyword, message string) []keyword {
	if _, format, ok := strings.Cut(message, "Unknown format: "); ok {
		return matching(all, "format", format)
	}
	if pattern, ok := brokenPattern(message); ok {
		return withPattern(all, pattern)
	}
	if strings.Contains(message, "patternProperty") {
		return matching(all, "patternProperties", "")
	}
	if strings.Contains(message, "Reference segment") || strings.Contains(message, "Pointer") || strings.Contains(message, "circular reference") {
		return matching(all, "$ref", "")
	}
	for _, word := range plainWord.FindAllString(message, -1) {
		if found := matching(all, word, ""); len(found) > 0 {
			return found
		}
	}
	return nil
}

const regexError = "regex parse error:"

// brokenPattern is the pattern that the library couldn't read: it stands on the line after the words.
func brokenPattern(message string) (string, bool) {
	_, rest, ok := strings.Cut(message, regexError+"\n")
	pattern, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(pattern), ok
}

// shortened leaves out the picture that the library draws of a pattern.
func shortened(message string) string {
	if before, rest, ok := strings.Cut(message, regexError); ok {
		if _, why, ok := strings.Cut(rest, "error: "); ok {
			return before + strings.TrimSpace(why)
		}
	}
	return message
}

// withPattern finds where a pattern stands. The library may have written it in another way; then any place of a pattern is better than none.
func withPattern(all []keyword, pattern string) []keyword {
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

func matching(all []keyword, name, value string) []keyword {
	var found []keyword
	for _, k := range all {
		if k.name == name && (value == "" || strings.Contains(string(k.value), value)) {
			found = append(found, k)
		}
	}
	return found
}
