package anthropic

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// requirements gives for each field the words that follow "must be" in an error. A star stands for a place in a list.
var requirements = map[string]string{
	"model":             fmt.Sprintf("a string: the name of a model, or name and version with a colon between them, each of at most %d bytes", api.MaxNameBytes),
	"max_tokens":        "a whole number of 1 or more",
	"stop_sequences":    fmt.Sprintf("a list of at most %d strings, none empty, each of at most %d bytes", api.MaxStops, api.MaxStopBytes),
	"stream":            "true or false",
	"timings_per_token": "true or false",

	"stream_options":        `an object such as {"resume":60}`,
	"stream_options.resume": fmt.Sprintf("a whole number of seconds from 0 to %d", api.MaxResumeSeconds),

	"temperature": "a number from 0 (always the most likely token) to 1",
	"top_k":       fmt.Sprintf("a whole number from 0 (off) to %d", api.MaxTopK),
	"top_p":       "a number from 0 to 1 (off)",

	"system":        `a string or a list of blocks such as {"type":"text","text":"Be brief."}`,
	"system.*":      `an object such as {"type":"text","text":"Be brief."}`,
	"system.*.type": "text",
	"system.*.text": "a string",

	"messages":           fmt.Sprintf(`a list of 1 to %d messages such as {"role":"user","content":"Hello"}`, api.MaxMessages),
	"messages.*":         `an object such as {"role":"user","content":"Hello"}`,
	"messages.*.role":    "user, assistant or system",
	"messages.*.content": `a string or a list of blocks such as {"type":"text","text":"Hello"}`,

	"messages.*.content.*":                `an object such as {"type":"text","text":"Hello"}`,
	"messages.*.content.*.type":           "text, tool_use, tool_result, thinking or redacted_thinking",
	"messages.*.content.*.text":           "a string",
	"messages.*.content.*.thinking":       "a string",
	"messages.*.content.*.id":             "a string that isn't empty",
	"messages.*.content.*.name":           toolName,
	"messages.*.content.*.input":          "an object",
	"messages.*.content.*.tool_use_id":    "the id of a tool_use block",
	"messages.*.content.*.content":        `a string or a list of blocks such as {"type":"text","text":"12 °C"}`,
	"messages.*.content.*.content.*":      `an object such as {"type":"text","text":"12 °C"}`,
	"messages.*.content.*.content.*.type": "text",
	"messages.*.content.*.content.*.text": "a string",

	"tools":                fmt.Sprintf("a list of at most %d tools", api.MaxTools),
	"tools.*":              `an object such as {"name":"f","input_schema":{"type":"object"}}`,
	"tools.*.type":         "a string",
	"tools.*.name":         toolName,
	"tools.*.description":  "a string",
	"tools.*.input_schema": fmt.Sprintf("a JSON schema that is an object of at most %d bytes", api.MaxSchemaBytes),

	"tool_choice":                           `an object such as {"type":"auto"} or {"type":"tool","name":"f"}`,
	"tool_choice.type":                      "auto, any, tool or none",
	"tool_choice.name":                      "the name of a tool",
	"tool_choice.disable_parallel_tool_use": "true or false",

	"thinking":      `an object such as {"type":"enabled"}`,
	"thinking.type": "enabled, adaptive or disabled",

	"output_config":               `an object such as {"format":{"type":"json_schema","schema":{…}}}`,
	"output_config.format":        `an object such as {"type":"json_schema","schema":{…}}`,
	"output_config.format.type":   "json_schema",
	"output_config.format.schema": "a JSON schema that is an object",
	"output_format":               `an object such as {"type":"json_schema","schema":{…}}`,
	"output_format.type":          "json_schema",
	"output_format.schema":        "a JSON schema that is an object",
}

const toolName = "a name of 1 to 128 letters, digits and the characters _ - ."

// decodeBody reads a body into b, a pointer to a struct.
func decodeBody(body []byte, b any) *api.Error {
	if api.NestedDeeperThan(body, api.MaxNestingDepth) {
		return api.Invalid("", "the body is nested more than %d levels deep", api.MaxNestingDepth)
	}
	if jsontext.Value(body).Kind() != '{' {
		return api.Invalid("", "the body must be a JSON object")
	}
	if err := json.Unmarshal(body, b); err != nil {
		return decodeError(err, "")
	}
	return nil
}

// decodeError turns an error of the JSON package into one that tells the client what to change. at is the place of the
// value that was read, "" for the whole body.
func decodeError(err error, at string) *api.Error {
	if meaning, ok := errors.AsType[*json.SemanticError](err); ok {
		if param := knownParam(join(at, paramOf(meaning.JSONPointer))); param != "" {
			return invalidField(param)
		}
		return api.Invalid("", "the body does not have the expected form at byte %d", meaning.ByteOffset)
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return syntaxError(syntax, at)
	}
	return api.Invalid("", "the body is not valid JSON")
}

func syntaxError(err *jsontext.SyntacticError, at string) *api.Error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return api.Invalid("", "the body has the field %s twice; send it once", api.Quote(err.JSONPointer.LastToken()))
	}
	why := strings.TrimPrefix(err.Err.Error(), "jsontext: ")
	return api.Invalid(knownParam(join(at, paramOf(err.JSONPointer))), "the body is not valid JSON at byte %d: %s", err.ByteOffset, why)
}

// invalidField is the error of a field, as in messages.2.role, that isn't what requirements says.
func invalidField(param string) *api.Error {
	return api.Invalid(param, "%s must be %s", param, requirements[withoutIndexes(param)])
}

// missingField is the error of a field that isn't there.
func missingField(param string) *api.Error {
	return api.Invalid(param, "%s is required and must be %s", param, requirements[withoutIndexes(param)])
}

// knownParam is param itself, or the nearest field around it that requirements knows; "" for none.
func knownParam(param string) string {
	for param != "" && requirements[withoutIndexes(param)] == "" {
		param = param[:max(0, strings.LastIndexByte(param, '.'))]
	}
	return param
}

// withoutIndexes makes messages.*.role of messages.2.role.
func withoutIndexes(param string) string {
	names := strings.Split(param, ".")
	for i, name := range names {
		if isIndex(name) {
			names[i] = "*"
		}
	}
	return strings.Join(names, ".")
}

// paramOf writes a place in a body as Anthropic does: messages.2.role. A name that can't be one of ours ends it, so
// that a client's text isn't taken for a place.
func paramOf(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if !isIndex(token) && !isFieldName(token) {
			break
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	return b.String()
}

// join is the place inside of another one.
func join(at, inside string) string {
	if at == "" || inside == "" {
		return at + inside
	}
	return at + "." + inside
}

func isIndex(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func isFieldName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}
