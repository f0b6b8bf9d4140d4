package grammar

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// jsonWhitespace is what an answer may have between two JSON tokens: a space, or line ends with an indentation. Without
// a limit a model that is unsure writes blanks until its tokens are used up.
const jsonWhitespace = ` |(\r?\n){1,2}[ \t]{0,40}`

// optionsKeyword at the root of a schema is where the library looks for options. Clients may set one of them.
const optionsKeyword = "x-guidance"

// guidanceOptions are the library's. A client may set coerce_one_of: oneOf is read as anyOf even where its branches may
// overlap.
type guidanceOptions struct {
	CoerceOneOf bool   `json:"coerce_one_of"`
	Lenient     bool   `json:"lenient,omitempty"` // what can't be obeyed doesn't bind
	Whitespace  string `json:"whitespace_pattern"`
}

type clientOptions struct {
	CoerceOneOf bool `json:"coerce_one_of"`
}

// prepareSchema checks a schema's form and size and adds the options. The order of its members stays, since answers
// have it, too.
func prepareSchema(text string) (string, error) { return prepareSchemaWith(text, guidanceOptions{}) }

func prepareSchemaWith(text string, options guidanceOptions) (string, error) {
	members, err := splitSchema(text)
	if err != nil {
		return "", err
	}
	if err := checkSupported(text, options.Lenient); err != nil {
		return "", err
	}
	options.Whitespace = jsonWhitespace
	var out strings.Builder
	for _, m := range members {
		if m.name != optionsKeyword {
			continue
		}
		var client clientOptions
		if err := json.Unmarshal(m.value, &client, json.RejectUnknownMembers(true)); err != nil {
			return "", invalid("%s may only hold coerce_one_of, true or false", optionsKeyword)
		}
		options.CoerceOneOf = client.CoerceOneOf
	}
	head, err := json.Marshal(options)
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
	// At the end, since the library moves the last member to the place of the one that it removes.
	fmt.Fprintf(&out, `"%s":%s}`, optionsKeyword, head)
	return out.String(), nil
}

// splitSchema checks the whole text with checkJSON and returns the members of the root.
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

// checkJSON refuses a text that isn't JSON, has a name twice or is nested too deeply, and patterns that are nested too
// deeply.
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
