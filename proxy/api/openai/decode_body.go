package openai

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// requirements gives for each field the words that follow "must be" in an error. Fields inside of others are written
// with a point, entries of lists with empty brackets.
var requirements = map[string]string{
	"messages":                  fmt.Sprintf(`a list of 1 to %d messages such as {"role":"user","content":"Hello"}`, api.MaxMessages),
	"messages[]":                `an object such as {"role":"user","content":"Hello"}`,
	"messages[].role":           "system, developer, user, assistant or tool",
	"messages[].content":        `a string or a list of parts such as {"type":"text","text":"Hello"}`,
	"messages[].content[]":      `an object such as {"type":"text","text":"Hello"}`,
	"messages[].content[].type": "text",
	"messages[].content[].text": "a string",
	"messages[].name":           "a string",
	"messages[].tool_call_id":   "a string",
	"messages[].tool_calls":     "a list of calls of functions",

	"messages[].reasoning_content":               "a string",
	"messages[].tool_calls[].function":           "an object with a name and arguments",
	"messages[].tool_calls[].function.name":      toolName,
	"messages[].tool_calls[].function.arguments": "a string that holds JSON",

	"prompt":   fmt.Sprintf("a string, a list of at most %d strings, a list of token ids or a list of such lists; none of them empty", api.MaxInputs),
	"logprobs": "true or false, or on completions a whole number from 0 to 20",
	"echo":     "true or false",

	"input":            fmt.Sprintf("a string, a list of at most %d strings, a list of token ids or a list of such lists; none of them empty", api.MaxInputs),
	"encoding_format":  "float or base64",
	"dimensions":       "a whole number of 1 or more",
	"query":            "a string that is not empty",
	"documents":        fmt.Sprintf("a list of 1 to %d strings, or objects with a text", api.MaxInputs),
	"top_n":            "a whole number of 1 or more",
	"return_documents": "true or false",
	"raw_scores":       "true or false",

	"tools":                        fmt.Sprintf("a list of at most %d functions", api.MaxTools),
	"tools[]":                      `an object such as {"type":"function","function":{"name":"f"}}`,
	"tools[].function":             "an object with a name",
	"tools[].function.name":        toolName,
	"tools[].function.description": "a string",
	"tools[].function.parameters":  "a JSON schema that is an object",
	"tool_choice":                  `none, auto, required, or an object such as {"type":"function","function":{"name":"f"}}`,
	"parallel_tool_calls":          "true or false",
	"chat_template_kwargs":         fmt.Sprintf("an object of at most %d bytes", maxTemplateOptionBytes),
	"reasoning_effort":             "a string",
	"enable_thinking":              "true or false",
	"continue_final_message":       "true or false",
	"logit_bias":                   fmt.Sprintf("an object from token ids to numbers from -100 to 100, at most %d of them", api.MaxLogitBias),
	"grammar":                      "a string with a grammar (GBNF)",
	"ignore_eos":                   "true or false",

	"model":                 fmt.Sprintf("a string: the name of a model, or name and version with a colon between them, each of at most %d bytes", api.MaxNameBytes),
	"max_tokens":            "a whole number of 1 or more",
	"max_completion_tokens": "a whole number of 1 or more",
	"temperature":           fmt.Sprintf("a number from 0 (always the most likely token) to %d", api.MaxTemperature),
	"top_p":                 "a number from 0 to 1 (off)",
	"top_k":                 fmt.Sprintf("a whole number from 0 (off) to %d", api.MaxTopK),
	"min_p":                 "a number from 0 (off) to 1",
	"repeat_penalty":        fmt.Sprintf("a number above 0 and at most %d; 1 is off", api.MaxPenalty),
	"repetition_penalty":    fmt.Sprintf("a number above 0 and at most %d; 1 is off", api.MaxPenalty),
	"presence_penalty":      fmt.Sprintf("a number from -%d to %d; 0 is off", api.MaxPenalty, api.MaxPenalty),
	"frequency_penalty":     fmt.Sprintf("a number from -%d to %d; 0 is off", api.MaxPenalty, api.MaxPenalty),
	"seed":                  api.SeedRequirement,
	"stop":                  fmt.Sprintf("a string or a list of at most %d strings, none empty, each of at most %d bytes", api.MaxStops, api.MaxStopBytes),
	"n":                     fmt.Sprintf("a whole number from 1 to %d", api.MaxChoices),
	"best_of":               "the same as n",
	"top_logprobs":          fmt.Sprintf("a whole number from 0 to %d", api.MaxTopLogprobs),
	"stream":                "true or false",

	"stream_options":               `an object such as {"include_usage":true}`,
	"stream_options.include_usage": "true or false",
	"stream_options.resume":        fmt.Sprintf("a whole number of seconds from 0 to %d", api.MaxResumeSeconds),

	"response_format":                    `an object such as {"type":"json_object"}`,
	"response_format.type":               "text, json_object or json_schema",
	"response_format.json_schema":        "an object with a member schema",
	"response_format.schema":             "a JSON schema that is an object",
	"json_schema":                        "a JSON schema that is an object",
	"timings_per_token":                  "true or false",
	"response_format.json_schema.schema": "a JSON schema that is an object",
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
		return decodeError(err)
	}
	return nil
}

// decodeError turns an error of the JSON package into one that tells the client what to change.
func decodeError(err error) *api.Error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	if meaning, ok := errors.AsType[*json.SemanticError](err); ok {
		if param := knownParam(paramOf(meaning.JSONPointer)); param != "" {
			return invalidField(param)
		}
		return api.Invalid("", "the body does not have the expected form at byte %d", meaning.ByteOffset)
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return syntaxError(syntax)
	}
	return api.Invalid("", "the body is not valid JSON")
}

func syntaxError(err *jsontext.SyntacticError) *api.Error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return api.Invalid("", "the body has the field %s twice; send it once", api.Quote(err.JSONPointer.LastToken()))
	}
	why := strings.TrimPrefix(err.Err.Error(), "jsontext: ")
	return api.Invalid(knownParam(paramOf(err.JSONPointer)), "the body is not valid JSON at byte %d: %s", err.ByteOffset, why)
}

// invalidField is the error of a field, as in messages[2].role, that isn't what requirements says.
func invalidField(param string) *api.Error {
	return api.Invalid(param, "%s must be %s", param, requirements[withoutIndexes(param)])
}

// knownParam is param itself, or the nearest field around it that requirements knows; "" for none.
func knownParam(param string) string {
	for param != "" && requirements[withoutIndexes(param)] == "" {
		param = param[:max(0, strings.LastIndexAny(param, ".["))]
	}
	return param
}

// withoutIndexes makes messages[].role of messages[2].role.
func withoutIndexes(param string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, param)
}

// paramOf writes a place in a body as OpenAI does: messages[2].role. A name that can't be one of ours ends it, so that
// a client's text isn't taken for a place.
func paramOf(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		switch {
		case isIndex(token):
			b.WriteString("[" + token + "]")
		case !isFieldName(token):
			return b.String()
		case b.Len() > 0:
			b.WriteString("." + token)
		default:
			b.WriteString(token)
		}
	}
	return b.String()
}

func isIndex(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func isFieldName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}
