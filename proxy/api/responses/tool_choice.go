package responses

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// toolChoice is the field tool_choice: a word, or an object that names a tool or restricts the tools.
type toolChoice struct {
	word   string // "" with an object, or where nothing was given
	object *toolChoiceObject
}

// toolReference names a tool.
type toolReference struct {
	Type      string `json:"type"`
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// toolChoiceObject names a tool, or with the type allowed_tools several.
type toolChoiceObject struct {
	toolReference
	Mode  string       `json:"mode"`
	Tools allowedTools `json:"tools"`
}

type allowedTools []toolReference

var errToolChoice = errors.New("neither a word nor an object")

// UnmarshalJSONFrom reads either form.
func (c *toolChoice) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		token, err := dec.ReadToken()
		c.word = token.String()
		return err
	case '{':
		c.object = &toolChoiceObject{}
		return json.UnmarshalDecode(dec, c.object)
	}
	return errToolChoice
}

// UnmarshalJSONFrom reads the list.
func (l *allowedTools) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return readObjects((*[]toolReference)(l), dec, maxListedTools, errToolChoice)
}

// apply sets the tools of a request and which of them the model must call. A choice that is about tools that were left
// out is no choice.
func (c *toolChoice) apply(r *api.Request, s *toolSet) *api.Error {
	mode := c.word
	if o := c.object; o != nil {
		switch o.Type {
		case "function", "custom":
			return c.applyNamed(r, s)
		case "allowed_tools":
			if mode = o.Mode; mode != "" && mode != "auto" && mode != "required" {
				return invalidField("tool_choice.mode")
			}
			if err := s.keep(o.Tools); err != nil {
				return err
			}
		case "":
			return invalidField("tool_choice")
		}
	}
	switch mode {
	case "", "auto":
	case "none":
		r.ToolChoice.Mode = api.ToolsNone
	case "required":
		switch {
		case len(s.functions) > 0:
			r.ToolChoice.Mode = api.ToolsRequired
		case !s.leftOut:
			return api.Invalid("tool_choice", "tool_choice asks for a tool, but tools is empty")
		}
	default:
		return invalidField("tool_choice")
	}
	r.Tools = s.functions
	return nil
}

func (c *toolChoice) applyNamed(r *api.Request, s *toolSet) *api.Error {
	name := s.nameOf(c.object.Namespace, c.object.Name)
	if s.index(name) < 0 {
		return api.Invalid("tool_choice.name", "tool_choice names %s, which is not among tools", api.Quote(c.object.Name))
	}
	r.Tools, r.ToolChoice = s.functions, api.ToolChoice{Mode: api.ToolsNamed, Name: name}
	return nil
}

// keep leaves the tools that tool_choice allows.
func (s *toolSet) keep(allowed []toolReference) *api.Error {
	keep := make([]bool, len(s.functions))
	for i := range allowed {
		t := &allowed[i]
		if t.Type != "function" && t.Type != "custom" {
			s.leftOut = true
			continue
		}
		at := s.index(s.nameOf(t.Namespace, t.Name))
		if at < 0 {
			return api.Invalid("tool_choice.tools", "tool_choice allows %s, which is not among tools", api.Quote(t.Name))
		}
		keep[at] = true
	}
	kept := &toolSet{leftOut: s.leftOut}
	for i, yes := range keep {
		if yes {
			kept.functions, kept.origins = append(kept.functions, s.functions[i]), append(kept.origins, s.origins[i])
		}
	}
	*s = *kept
	return nil
}
