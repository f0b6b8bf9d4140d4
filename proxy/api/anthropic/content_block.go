package anthropic

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// block is a part of a content. Which fields count depends on its type.
type block struct {
	Type      string         `json:"type"`
	Text      *string        `json:"text"`        // of text
	Thinking  *string        `json:"thinking"`    // of thinking
	ID        string         `json:"id"`          // of tool_use
	Name      string         `json:"name"`        // of tool_use
	Input     jsontext.Value `json:"input"`       // of tool_use
	ToolUseID string         `json:"tool_use_id"` // of tool_result
	Content   jsontext.Value `json:"content"`     // of tool_result: a string or blocks of text
}

// checkSide refuses blocks that aren't known here, or that the other side has.
func (b *block) checkSide(role, at string) *api.Error {
	switch b.Type {
	case "text":
		return nil
	case "tool_result":
		if role == "user" {
			return nil
		}
		return api.Invalid(at+".type", "%s: tool_result blocks must be in messages of the user", at)
	case "tool_use", "thinking", "redacted_thinking":
		if role == "assistant" {
			return nil
		}
		return api.Invalid(at+".type", "%s: %s blocks must be in messages of the assistant", at, b.Type)
	}
	return b.unsupported(at)
}

// unsupported is the error of a block of a type that isn't taken at its place.
func (b *block) unsupported(at string) *api.Error {
	switch b.Type {
	case "":
		return missingField(at + ".type")
	case "image", "document":
		return api.Invalid(at+".type", "%s: %s blocks are not supported; send text", at, b.Type)
	}
	return api.Invalid(at+".type", "%s: blocks of the type %s are not supported here; send text", at, api.Quote(b.Type))
}

// forEachBlock reads a list of blocks one after the other. list is valid JSON; at is its place in the body.
func forEachBlock(list jsontext.Value, at string, do func(*block, string) *api.Error) *api.Error {
	dec := jsontext.NewDecoder(bytes.NewBuffer(list))
	if _, err := dec.ReadToken(); err != nil {
		return decodeError(err, at)
	}
	for i := 0; dec.PeekKind() != ']'; i++ {
		var b block
		if err := json.UnmarshalDecode(dec, &b); err != nil {
			return decodeError(err, at)
		}
		if err := do(&b, at+"."+strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return nil
}

// textOf is the text of a string or a list of text blocks, which a line break tells apart; empty where there is
// neither.
func textOf(v jsontext.Value, at string) (string, *api.Error) {
	switch v.Kind() {
	case jsontext.KindInvalid, 'n':
		return "", nil
	case '"':
		return unquote(v), nil
	case '[':
	default:
		return "", invalidField(at)
	}
	var texts []string
	err := forEachBlock(v, at, func(b *block, at string) *api.Error {
		switch {
		case b.Type != "text":
			return b.unsupported(at)
		case b.Text == nil:
			return missingField(at + ".text")
		}
		texts = append(texts, *b.Text)
		return nil
	})
	return strings.Join(texts, "\n"), err
}

// unquote is the text of a JSON string that was read before and so is valid.
func unquote(v jsontext.Value) string {
	text, _ := jsontext.AppendUnquote(nil, v)
	return string(text)
}
