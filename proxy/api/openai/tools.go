package openai

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// tool is an entry of the field tools.
type tool struct {
	Type     string        `json:"type"`
	Function *toolFunction `json:"function"`
}

// toolFunction describes a function. Schemas are obeyed as far as they can be; with strict the rest is refused.
type toolFunction struct {
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Parameters  jsontext.Value `json:"parameters"`
	Strict      *bool          `json:"strict"`
}

// toolChoice is the field tool_choice: a word, or an object that names a function or restricts the tools.
type toolChoice struct {
	mode    string
	name    string
	allowed []string // nil: all
}

type toolChoiceObject struct {
	Type         string `json:"type"`
	Function     named  `json:"function"`
	AllowedTools struct {
		Mode  string         `json:"mode"`
		Tools []allowedEntry `json:"tools"`
	} `json:"allowed_tools"`
}

type named struct {
	Name string `json:"name"`
}

type allowedEntry struct {
	Type     string `json:"type"`
	Function named  `json:"function"`
}

// UnmarshalJSONFrom reads either form.
func (c *toolChoice) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		token, err := dec.ReadToken()
		c.mode = token.String()
		return err
	}
	var o toolChoiceObject
	if err := json.UnmarshalDecode(dec, &o); err != nil {
		return err
	}
	switch o.Type {
	case "function":
		c.mode, c.name = "function", o.Function.Name
	case "allowed_tools":
		c.mode, c.allowed = o.AllowedTools.Mode, []string{}
		for _, t := range o.AllowedTools.Tools {
			c.allowed = append(c.allowed, t.Function.Name)
		}
	default:
		c.mode = "?"
	}
	return nil
}

// apply sets the tools of a request.
func (c *toolChoice) apply(r *api.Request, list []tool, parallel *bool, limitBytes int) *api.Error {
	tools, err := checkTools(list, limitBytes)
	if err != nil {
		return err
	}
	if c.allowed != nil {
		if tools, err = c.keepAllowed(tools); err != nil {
			return err
		}
	}
	if err := api.CheckToolBytes(tools); err != nil {
		return err
	}
	choice, err := c.check(tools)
	if err != nil {
		return err
	}
	r.Tools, r.ToolChoice = tools, choice
	// A choice that names a function means exactly one call of it; clients refuse an answer with two.
	r.SetParallelCalls(parallel == nil || *parallel)
	return nil
}

func (c *toolChoice) check(tools []api.Tool) (api.ToolChoice, *api.Error) {
	var choice api.ToolChoice
	switch c.mode {
	case "", "auto":
	case "none":
		choice.Mode = api.ToolsNone
	case "required":
		choice.Mode = api.ToolsRequired
	case "function":
		choice.Mode, choice.Name = api.ToolsNamed, c.name
	default:
		return choice, invalidField("tool_choice")
	}
	needsTools := choice.Mode == api.ToolsRequired || choice.Mode == api.ToolsNamed
	switch {
	case needsTools && len(tools) == 0:
		return choice, api.Invalid("tool_choice", "tool_choice asks for a tool, but tools is empty")
	case choice.Mode == api.ToolsNamed && !hasTool(tools, choice.Name):
		return choice, api.Invalid("tool_choice.function.name", "tool_choice names %s, which is not among tools", api.Quote(choice.Name))
	}
	return choice, nil
}

// keepAllowed leaves the tools that tool_choice allows.
func (c *toolChoice) keepAllowed(tools []api.Tool) ([]api.Tool, *api.Error) {
	var kept []api.Tool
	for _, name := range c.allowed {
		if !hasTool(tools, name) {
			return nil, api.Invalid("tool_choice.allowed_tools.tools", "tool_choice allows %s, which is not among tools", api.Quote(name))
		}
	}
	for _, t := range tools {
		for _, name := range c.allowed {
			if t.Name == name {
				kept = append(kept, t)
				break
			}
		}
	}
	return kept, nil
}

func hasTool(tools []api.Tool, name string) bool {
	for i := range tools {
		if tools[i].Name == name {
			return true
		}
	}
	return false
}

// checkTools returns the functions, whose texts have at most limitBytes together.
func checkTools(list []tool, limitBytes int) ([]api.Tool, *api.Error) {
	if len(list) > api.MaxTools {
		return nil, invalidField("tools")
	}
	var tools []api.Tool
	bytes := 0
	for i := range list {
		at := fmt.Sprintf("tools[%d]", i)
		f := list[i].Function
		switch {
		case list[i].Type != "function":
			return nil, api.Invalid(at+".type", "%s.type is %s, but only functions are supported", at, api.Quote(list[i].Type))
		case f == nil:
			return nil, invalidField(at + ".function")
		case !api.IsToolName(f.Name):
			return nil, invalidField(at + ".function.name")
		case hasTool(tools, f.Name):
			return nil, api.Invalid(at+".function.name", "tools has the function %s twice", api.Quote(f.Name))
		}
		parameters, ok := api.ToolParameters(f.Parameters)
		if !ok {
			return nil, invalidField(at + ".function.parameters")
		}
		if bytes += len(f.Name) + len(f.Description) + len(parameters); bytes > limitBytes {
			return nil, api.Invalid("tools", "tools have more than %d bytes together; shorten them", limitBytes)
		}
		tools = append(tools, api.Tool{
			Name: f.Name, Description: f.Description, Parameters: parameters, Strict: f.Strict != nil && *f.Strict,
		})
	}
	return tools, nil
}

// messageToolCall is an entry of tool_calls in a message of an assistant.
type messageToolCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string         `json:"name"`
		Arguments jsontext.Value `json:"arguments"`
	} `json:"function"`
}

// checkToolCalls returns the calls of a message; param is their place.
func checkToolCalls(list []messageToolCall, param string) ([]api.ToolCall, *api.Error) {
	if len(list) > api.MaxToolCalls {
		return nil, api.Invalid(param, "%s has more than %d calls", param, api.MaxToolCalls)
	}
	var calls []api.ToolCall
	for i := range list {
		c, at := &list[i], fmt.Sprintf("%s[%d]", param, i)
		switch {
		case c.Type != "function" && c.Type != "":
			return nil, api.Invalid(at+".type", "%s.type is %s, but only functions are supported", at, api.Quote(c.Type))
		case !api.IsToolName(c.Function.Name):
			return nil, invalidField(at + ".function.name")
		}
		arguments, ok := api.ToolArguments(c.Function.Arguments)
		if !ok {
			return nil, invalidField(at + ".function.arguments")
		}
		calls = append(calls, api.ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: arguments})
	}
	return calls, nil
}
