package models

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Tool is a function that the model may ask the client to call.
type Tool struct {
	Name        string
	Description string
	Parameters  json.RawMessage // a JSON schema; nil: none given
	Strict      bool            // a schema that can't be obeyed is an error
}

// ToolCall is a call in the message of an assistant.
type ToolCall struct {
	ID        string
	Name      string
	Arguments string // JSON text
}

// ToolChoice says whether the model has to call a tool. The zero value leaves it to the model.
type ToolChoice struct {
	None     bool   // no call
	Required bool   // at least one call
	Name     string // with Required: of this tool
}

// Bounds on what one request may hold.
const (
	toolsMax          = 256
	toolCallsMax      = 128
	toolNameMax       = 128       // bytes
	toolsBytesMax     = 512 << 10 // of all tools
	toolNestingMax    = 32        // of JSON in tools, arguments and template options
	argumentsMax      = 256 << 10
	templateOptionMax = 32 << 10
)

// reservedOptions are what the chat template gets from elsewhere.
var reservedOptions = []string{"messages", "tools", "bos_token", "eos_token", "add_generation_prompt"}

var (
	toolName   = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)
	optionName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,63}$`)
)

type toolJSON struct {
	Type     string `json:"type"`
	Function struct {
		Name        string          `json:"name"`
		Description *string         `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
		Strict      *bool           `json:"strict"`
	} `json:"function"`
}

// DecodeTools reads a JSON array of tools as OpenAI's API has them; nil for an empty one.
func DecodeTools(data []byte) ([]Tool, error) {
	if len(data) == 0 {
		return nil, nil
	}
	var list []toolJSON
	if err := decodeJSON(data, toolsBytesMax, &list); err != nil {
		return nil, err
	}
	if len(list) > toolsMax {
		return nil, fmt.Errorf("%d tools, at most %d are allowed", len(list), toolsMax)
	}
	var tools []Tool
	for i, t := range list {
		f := t.Function
		switch {
		case t.Type != "function":
			return nil, fmt.Errorf("tool %d: its type is %q, only function is known", i, shorten(t.Type))
		case !toolName.MatchString(f.Name):
			return nil, fmt.Errorf("tool %d: its name must have 1 to %d letters, digits, dots, _ or -", i, toolNameMax)
		case slices.ContainsFunc(tools, func(other Tool) bool { return other.Name == f.Name }):
			return nil, fmt.Errorf("tool %d: another one is named %s, too", i, f.Name)
		}
		tool := Tool{Name: f.Name, Strict: f.Strict != nil && *f.Strict}
		if f.Description != nil {
			tool.Description = *f.Description
		}
		if p := bytes.TrimSpace(f.Parameters); len(p) > 0 && !bytes.Equal(p, []byte("null")) {
			if p[0] != '{' {
				return nil, fmt.Errorf("tool %d (%s): its parameters must be an object, a JSON schema", i, f.Name)
			}
			tool.Parameters = p
		}
		tools = append(tools, tool)
	}
	return tools, nil
}

// DecodeToolChoice reads "auto", "none", "required" or {"name": …}, as JSON; OpenAI's form of the last one does, too.
func DecodeToolChoice(data []byte, tools []Tool) (ToolChoice, error) {
	if len(data) == 0 {
		return ToolChoice{}, nil
	}
	var named struct {
		Name     string `json:"name"`
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	var mode string
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		if err := decodeJSON(data, toolNameMax, &mode); err != nil {
			return ToolChoice{}, err
		}
		switch mode {
		case "auto":
			return ToolChoice{}, nil
		case "none":
			return ToolChoice{None: true}, nil
		case "required":
			if len(tools) == 0 {
				return ToolChoice{}, errors.New("a call is required, but there are no tools")
			}
			return ToolChoice{Required: true}, nil
		}
		return ToolChoice{}, fmt.Errorf("%q is none of auto, none, required", shorten(mode))
	}
	if err := decodeJSON(data, 1<<10, &named); err != nil {
		return ToolChoice{}, err
	}
	name := named.Name
	if name == "" {
		name = named.Function.Name
	}
	if !slices.ContainsFunc(tools, func(t Tool) bool { return t.Name == name }) {
		return ToolChoice{}, fmt.Errorf("there is no tool %q", shorten(name))
	}
	return ToolChoice{Required: true, Name: name}, nil
}

type toolCallJSON struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	} `json:"function"`
}

// DecodeToolCalls reads the JSON array of calls in the message of an assistant. Arguments that aren't JSON are an
// error, since some chat templates take them apart.
func DecodeToolCalls(data []byte) ([]ToolCall, error) {
	if len(data) == 0 {
		return nil, nil
	}
	var list []toolCallJSON
	if err := decodeJSON(data, argumentsMax*2, &list); err != nil {
		return nil, err
	}
	if len(list) > toolCallsMax {
		return nil, fmt.Errorf("%d tool calls, at most %d are allowed", len(list), toolCallsMax)
	}
	var calls []ToolCall
	for i, c := range list {
		if c.Type != "" && c.Type != "function" {
			return nil, fmt.Errorf("tool call %d: its type is %q, only function is known", i, shorten(c.Type))
		}
		if c.Function.Name == "" || len(c.Function.Name) > toolNameMax {
			return nil, fmt.Errorf("tool call %d: its name must have 1 to %d bytes", i, toolNameMax)
		}
		arguments, err := argumentsOf(c.Function.Arguments)
		if err != nil {
			return nil, fmt.Errorf("tool call %d (%s): arguments: %w", i, c.Function.Name, err)
		}
		calls = append(calls, ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: arguments})
	}
	return calls, nil
}

// argumentsOf takes arguments as a text that holds JSON, as OpenAI's API has them, or as the JSON itself.
func argumentsOf(raw json.RawMessage) (string, error) {
	text := string(raw)
	if len(raw) > 0 && raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", err
		}
	}
	if strings.TrimSpace(text) == "" {
		return "{}", nil
	}
	var any json.RawMessage
	return text, decodeJSON([]byte(text), argumentsMax, &any)
}

// CheckTemplateOptions returns an error for options that the chat template can't get.
func CheckTemplateOptions(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	var options map[string]json.RawMessage
	if err := decodeJSON(data, templateOptionMax, &options); err != nil {
		return err
	}
	if options == nil {
		return errors.New("it must be an object")
	}
	for name := range options {
		if slices.Contains(reservedOptions, name) || !optionName.MatchString(name) {
			return fmt.Errorf("%q can't be an option of the chat template", shorten(name))
		}
	}
	return nil
}

// continueOption stands among the options of the chat template and says that the answer goes on with the last message.
// Not a template but the engine obeys it; the name is that of other servers.
const continueOption = "continue_final_message"

// DecodeTemplateOptions returns the options that the chat template gets, and whether the answer goes on with the last
// message.
func DecodeTemplateOptions(data []byte) (options []byte, goesOn bool, err error) {
	if err := CheckTemplateOptions(data); err != nil || !bytes.Contains(data, []byte(continueOption)) {
		return data, false, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, false, err
	}
	if value, ok := all[continueOption]; ok {
		if err := json.Unmarshal(value, &goesOn); err != nil {
			return nil, false, fmt.Errorf("%s must be true or false", continueOption)
		}
		delete(all, continueOption)
	}
	if len(all) == 0 {
		return nil, goesOn, nil
	}
	options, err = json.Marshal(all)
	return options, goesOn, err
}

// decodeJSON reads one value of at most most bytes and toolNestingMax levels.
func decodeJSON(data []byte, most int, to any) error {
	if len(data) > most {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(data), most)
	}
	if nesting(data) > toolNestingMax {
		return fmt.Errorf("it is nested more than %d deep", toolNestingMax)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("it isn't the JSON that was expected: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON")
	}
	return nil
}

// nesting is how deep the brackets outside of JSON's strings are nested.
func nesting(data []byte) int {
	deepest, depth, inText := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inText && c == '\\':
			i++
		case c == '"':
			inText = !inText
		case inText:
		case c == '[' || c == '{':
			depth++
			deepest = max(deepest, depth)
		case c == ']' || c == '}':
			depth--
		}
	}
	return deepest
}

func shorten(s string) string { return strings.ToValidUTF8(s[:min(len(s), 64)], "\uFFFD") }
