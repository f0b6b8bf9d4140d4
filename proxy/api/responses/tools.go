package responses

import (
	"errors"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// tool is a tool by itself or of a namespace. Schemas are obeyed as far as they can be; with strict the rest is
// refused.
type tool struct {
	Type        string         `json:"type"`
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Parameters  jsontext.Value `json:"parameters"` // of a function
	Strict      *bool          `json:"strict"`     // of a function
	Format      jsontext.Value `json:"format"`     // of a custom tool
}

// listedTool is an entry of the field tools. A namespace has tools, but no namespaces in it.
type listedTool struct {
	tool
	Tools namespaceTools `json:"tools"`
}

type (
	toolList       []listedTool
	namespaceTools []tool
)

// maxListedTools bounds the tools of a list. At most api.MaxTools of them are offered to the model.
const maxListedTools = 4 * api.MaxTools

var errTools = errors.New("not a list of tools")

// UnmarshalJSONFrom reads the list.
func (l *toolList) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return readObjects((*[]listedTool)(l), dec, maxListedTools, errTools)
}

// UnmarshalJSONFrom reads the list.
func (l *namespaceTools) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	return readObjects((*[]tool)(l), dec, api.MaxTools, errTools)
}

// toolSet is what is offered to the model: functions, those of namespaces, and custom tools as functions with one
// string. Tools that only OpenAI's servers have are left out.
type toolSet struct {
	functions []api.Tool
	origins   []toolOrigin // of each function
	leftOut   bool
}

// toolOrigin is what a function is in the words of the client.
type toolOrigin struct {
	name      string
	namespace string // "" for none
	custom    bool
}

func (l toolList) check() (*toolSet, *api.Error) {
	s := &toolSet{}
	for i := range l {
		t, at := &l[i], fmt.Sprintf("tools[%d]", i)
		if t.Type != "namespace" {
			if err := s.add(&t.tool, "", at); err != nil {
				return nil, err
			}
			continue
		}
		for k := range t.Tools {
			if err := s.add(&t.Tools[k], t.Name, fmt.Sprintf("%s.tools[%d]", at, k)); err != nil {
				return nil, err
			}
		}
	}
	return s, api.CheckToolBytes(s.functions)
}

// add takes a tool in; at is its place in the body.
func (s *toolSet) add(t *tool, namespace, at string) *api.Error {
	switch t.Type {
	case "function":
		return s.addFunction(t, namespace, at)
	case "custom":
		return s.addCustom(t, namespace, at)
	case "":
		return api.Invalid(at+".type", "%s.type is required; send function for a function", at)
	}
	s.leftOut = true
	return nil
}

func (s *toolSet) addFunction(t *tool, namespace, at string) *api.Error {
	parameters, ok := api.ToolParameters(t.Parameters)
	if !ok {
		return invalidField(at + ".parameters")
	}
	return s.offer(toolOrigin{name: t.Name, namespace: namespace}, api.Tool{
		Description: t.Description, Parameters: parameters, Strict: t.Strict != nil && *t.Strict,
	}, at)
}

// offer adds a function under the name that the model gets: the tool's own, or with the namespace in front where
// another one has that.
func (s *toolSet) offer(origin toolOrigin, f api.Tool, at string) *api.Error {
	if !api.IsToolName(origin.name) {
		return invalidField(at + ".name")
	}
	if f.Name = origin.name; s.index(f.Name) >= 0 && origin.namespace != "" {
		f.Name = origin.namespace + "." + origin.name
	}
	switch {
	case s.index(f.Name) >= 0:
		return api.Invalid(at+".name", "tools has %s twice", api.Quote(f.Name))
	case !api.IsToolName(f.Name):
		return invalidField(at + ".name")
	case len(s.functions) == api.MaxTools:
		return api.Invalid("tools", "tools has more than %d functions; leave some out", api.MaxTools)
	}
	s.functions, s.origins = append(s.functions, f), append(s.origins, origin)
	return nil
}

func (s *toolSet) index(name string) int {
	return slices.IndexFunc(s.functions, func(f api.Tool) bool { return f.Name == name })
}

// nameOf is the name by which the model knows a tool of the client's; a tool that isn't offered keeps its own.
func (s *toolSet) nameOf(namespace, name string) string {
	i := slices.IndexFunc(s.origins, func(o toolOrigin) bool { return o.name == name && o.namespace == namespace })
	if i < 0 {
		return name
	}
	return s.functions[i].Name
}
