package anthropic

import (
	"errors"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// tool is an entry of the field tools: one of the client's, or one that Anthropic defines.
type tool struct {
	Type        string         `json:"type"`
	Name        string         `json:"name"`
	Description string         `json:"description"`
	InputSchema jsontext.Value `json:"input_schema"`
	Strict      *bool          `json:"strict"`
}

// isClients reports whether the tool is described by the client. Every other type is one of Anthropic's tools (web
// search, code execution, bash, text editor …), which its models know and others don't.
func (t *tool) isClients() bool { return t.Type == "" || t.Type == "custom" }

// toolList is a list of at most api.MaxTools tools, read one by one.
type toolList []tool

var errToolList = errors.New("not a short list of tools")

// UnmarshalJSONFrom reads the list.
func (l *toolList) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == 'n' {
		return dec.SkipValue()
	}
	if dec.PeekKind() != '[' {
		return errToolList
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		if len(*l) == api.MaxTools {
			return errToolList
		}
		var t tool
		if err := json.UnmarshalDecode(dec, &t); err != nil {
			return err
		}
		*l = append(*l, t)
	}
	_, err := dec.ReadToken()
	return err
}

// clients returns the client's tools, and the names of the others, which are left out.
func (l toolList) clients() (tools []api.Tool, leftOut []string, err *api.Error) {
	for i := range l {
		t, at := &l[i], "tools."+strconv.Itoa(i)
		if !t.isClients() {
			leftOut = append(leftOut, t.Name)
			continue
		}
		switch {
		case !api.IsToolName(t.Name):
			return nil, nil, invalidField(at + ".name")
		case hasTool(tools, t.Name):
			return nil, nil, api.Invalid(at+".name", "tools has %s twice; names must be unique", api.Quote(t.Name))
		}
		schema, ok := api.ToolParameters(t.InputSchema)
		if !ok {
			return nil, nil, invalidField(at + ".input_schema")
		}
		tools = append(tools, api.Tool{
			Name: t.Name, Description: t.Description, Parameters: schema, Strict: t.Strict != nil && *t.Strict,
		})
	}
	return tools, leftOut, nil
}

func hasTool(tools []api.Tool, name string) bool {
	return slices.ContainsFunc(tools, func(t api.Tool) bool { return t.Name == name })
}

// toolChoice is the field tool_choice.
type toolChoice struct {
	Type            string `json:"type"`
	Name            string `json:"name"`
	DisableParallel bool   `json:"disable_parallel_tool_use"`
}

// apply sets the tools of a request.
func (c *toolChoice) apply(r *api.Request, list toolList) *api.Error {
	tools, leftOut, err := list.clients()
	if err == nil {
		err = api.CheckToolBytes(tools)
	}
	if err != nil {
		return err
	}
	r.Tools = tools
	if c != nil {
		r.ToolChoice, err = c.check(tools, leftOut)
	}
	r.SetParallelCalls(c == nil || !c.DisableParallel)
	return err
}

// check returns the choice. One that only a tool that was left out could meet is left out with it.
func (c *toolChoice) check(tools []api.Tool, leftOut []string) (api.ToolChoice, *api.Error) {
	switch c.Type {
	case "auto":
		return api.ToolChoice{}, nil
	case "none":
		return api.ToolChoice{Mode: api.ToolsNone}, nil
	case "any":
		switch {
		case len(tools) > 0:
			return api.ToolChoice{Mode: api.ToolsRequired}, nil
		case len(leftOut) > 0:
			return api.ToolChoice{}, nil
		}
		return api.ToolChoice{}, api.Invalid("tool_choice", "tool_choice asks for a tool, but tools is empty")
	case "tool":
		switch {
		case hasTool(tools, c.Name):
			return api.ToolChoice{Mode: api.ToolsNamed, Name: c.Name}, nil
		case slices.Contains(leftOut, c.Name):
			return api.ToolChoice{}, nil
		}
		return api.ToolChoice{}, api.Invalid("tool_choice.name", "tool_choice.name is %s, which is not among tools", api.Quote(c.Name))
	}
	return api.ToolChoice{}, invalidField("tool_choice.type")
}
