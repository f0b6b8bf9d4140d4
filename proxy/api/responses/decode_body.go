package responses

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
	"input":                  fmt.Sprintf(`a string or a list of 1 to %d items such as {"role":"user","content":"Hello"}`, maxItems),
	"input[]":                `an object such as {"role":"user","content":"Hello"}`,
	"input[].type":           "a string",
	"input[].role":           "user, assistant, system or developer",
	"input[].content":        `a string or a list of parts such as {"type":"input_text","text":"Hello"}`,
	"input[].content[]":      `an object such as {"type":"input_text","text":"Hello"}`,
	"input[].content[].text": "a string",
	"input[].summary":        `a list of parts such as {"type":"summary_text","text":"Hello"}`,
	"input[].summary[].text": "a string",
	"input[].id":             "a string",
	"input[].call_id":        "a string that is not empty",
	"input[].name":           toolName,
	"input[].namespace":      "a string",
	"input[].arguments":      "a string that holds JSON",
	"input[].input":          "a string",
	"input[].output":         `a string or a list of parts such as {"type":"input_text","text":"Hello"}`,
	"input[].action":         "an object",
	"input[].operation":      "an object",

	"instructions": "a string",

	"tools":                      fmt.Sprintf("a list of at most %d tools", maxListedTools),
	"tools[]":                    `an object such as {"type":"function","name":"f","parameters":{"type":"object"}}`,
	"tools[].type":               "a string",
	"tools[].name":               toolName,
	"tools[].description":        "a string",
	"tools[].parameters":         "a JSON schema that is an object",
	"tools[].format":             `an object such as {"type":"grammar","syntax":"lark","definition":"start: /a+/"}`,
	"tools[].tools":              fmt.Sprintf("a list of at most %d functions", api.MaxTools),
	"tools[].tools[]":            `an object such as {"type":"function","name":"f","parameters":{"type":"object"}}`,
	"tools[].tools[].name":       toolName,
	"tools[].tools[].format":     `an object such as {"type":"text"}`,
	"tools[].tools[].type":       "a string",
	"tool_choice":                `none, auto, required, or an object such as {"type":"function","name":"f"}`,
	"tool_choice.mode":           "auto or required",
	"parallel_tool_calls":        "true or false",
	"tools[].tools[].parameters": "a JSON schema that is an object",

	"model":             fmt.Sprintf("a string: the name of a model, or name and version with a colon between them, each of at most %d bytes", api.MaxNameBytes),
	"max_output_tokens": "a whole number of 1 or more",
	"temperature":       fmt.Sprintf("a number from 0 (always the most likely token) to %d", api.MaxTemperature),
	"top_p":             "a number from 0 to 1 (off)",
	"top_k":             fmt.Sprintf("a whole number from 0 (off) to %d", api.MaxTopK),
	"min_p":             "a number from 0 (off) to 1",
	"presence_penalty":  fmt.Sprintf("a number from -%d to %d; 0 is off", api.MaxPenalty, api.MaxPenalty),
	"frequency_penalty": fmt.Sprintf("a number from -%d to %d; 0 is off", api.MaxPenalty, api.MaxPenalty),
	"seed":              api.SeedRequirement,
	"stop":              fmt.Sprintf("a string or a list of at most %d strings, none empty, each of at most %d bytes", api.MaxStops, api.MaxStopBytes),
	"top_logprobs":      fmt.Sprintf("a whole number from 0 to %d", api.MaxTopLogprobs),
	"include":           fmt.Sprintf("a list of at most %d strings", maxIncludes),
	"stream":            "true or false",
	"timings_per_token": "true or false",

	"stream_options":        `an object such as {"resume":60}`,
	"stream_options.resume": fmt.Sprintf("a whole number of seconds from 0 to %d", api.MaxResumeSeconds),

	"text":               `an object such as {"format":{"type":"json_object"}}`,
	"text.format":        `an object such as {"type":"json_object"}`,
	"text.format.type":   "text, json_object or json_schema",
	"text.format.schema": "a JSON schema that is an object",
	"text.format.name":   fmt.Sprintf("a string of at most %d bytes", api.MaxNameBytes),

	"text.format.description": "a string",

	"reasoning":         `an object such as {"effort":"low"}`,
	"reasoning.effort":  fmt.Sprintf("a string of at most %d bytes", api.MaxNameBytes),
	"truncation":        "auto or disabled",
	"metadata":          fmt.Sprintf("an object of at most %d strings, with names of at most %d and values of at most %d characters", maxMetadata, maxMetadataName, maxMetadataValue),
	"user":              fmt.Sprintf("a string of at most %d bytes", maxEchoedBytes),
	"safety_identifier": fmt.Sprintf("a string of at most %d bytes", maxEchoedBytes),
	"prompt_cache_key":  fmt.Sprintf("a string of at most %d bytes", maxEchoedBytes),
}

const toolName = "a name of 1 to 128 letters, digits and the characters _ - ."

// decodeBody reads a body into b, a pointer to a struct.
func decodeBody(text []byte, b any) *api.Error {
	if api.NestedDeeperThan(text, api.MaxNestingDepth) {
		return api.Invalid("", "the body is nested more than %d levels deep", api.MaxNestingDepth)
	}
	if jsontext.Value(text).Kind() != '{' {
		return api.Invalid("", "the body must be a JSON object")
	}
	if err := json.Unmarshal(text, b); err != nil {
		return decodeError(err)
	}
	return nil
}

// decodeError turns an error of the JSON package into one that tells the client what to change.
func decodeError(err error) *api.Error {
	if meaning, ok := errors.AsType[*json.SemanticError](err); ok {
		if param := knownParam(paramOf(meaning.JSONPointer)); param != "" {
			return invalidField(param)
		}
		return api.Invalid("", "the body does not have the expected form at byte %d", meaning.ByteOffset)
	}
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case !ok:
		return api.Invalid("", "the body is not valid JSON")
	case errors.Is(syntax, jsontext.ErrDuplicateName):
		return api.Invalid("", "the body has the field %s twice; send it once", api.Quote(syntax.JSONPointer.LastToken()))
	}
	why := strings.TrimPrefix(syntax.Err.Error(), "jsontext: ")
	return api.Invalid(knownParam(paramOf(syntax.JSONPointer)), "the body is not valid JSON at byte %d: %s", syntax.ByteOffset, why)
}

// invalidField is the error of a field, as in input[2].role, that isn't what requirements says.
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

// withoutIndexes makes input[].role of input[2].role.
func withoutIndexes(param string) string {
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, param)
}

// paramOf writes a place in a body as OpenAI does: input[2].role. A name that can't be one of ours ends it, so that a
// client's text isn't taken for a place.
func paramOf(p jsontext.Pointer) string {
	var param []byte
	for token := range p.Tokens() {
		switch {
		case token == "":
			return string(param)
		case strings.Trim(token, "0123456789") == "":
			param = append(append(append(param, '['), token...), ']')
		case strings.Trim(token, "abcdefghijklmnopqrstuvwxyz_") != "":
			return string(param)
		case len(param) > 0:
			param = append(append(param, '.'), token...)
		default:
			param = append(param, token...)
		}
	}
	return string(param)
}

// readList reads a list of at most limit entries with readOne; null is an empty one. A longer list, or what isn't one,
// is the error wrong. It keeps a list of many tiny entries from taking many times its size in memory.
func readList(dec *jsontext.Decoder, limit int, wrong error, readOne func() error) error {
	if dec.PeekKind() == 'n' {
		return dec.SkipValue()
	}
	if dec.PeekKind() != '[' {
		return wrong
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for n := 0; dec.PeekKind() != ']'; n++ {
		if n == limit {
			return wrong
		}
		if err := readOne(); err != nil {
			return err
		}
	}
	_, err := dec.ReadToken()
	return err
}

// readObjects is readList for a list of objects, which are appended to list.
func readObjects[T any](list *[]T, dec *jsontext.Decoder, limit int, wrong error) error {
	return readList(dec, limit, wrong, func() error {
		if dec.PeekKind() != '{' {
			return wrong
		}
		var one T
		if err := json.UnmarshalDecode(dec, &one); err != nil {
			return err
		}
		*list = append(*list, one)
		return nil
	})
}
