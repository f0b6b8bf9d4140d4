package responses

import (
	"github.com/go-json-experiment/json"

	"tandem/proxy/api"
)

// customParameters is the schema of the function that stands for a custom tool: its input is one string.
const customParameters = `{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}`

// customFormat is what the input of a custom tool may be; a grammar has a definition.
type customFormat struct {
	Syntax     string `json:"syntax"`
	Definition string `json:"definition"`
}

// addCustom offers a custom tool. A grammar of its input can't be enforced inside of a string, so the model is told it.
func (s *toolSet) addCustom(t *tool, namespace, at string) *api.Error {
	var format customFormat
	if len(t.Format) > 0 {
		if err := json.Unmarshal(t.Format, &format); err != nil {
			return invalidField(at + ".format")
		}
	}
	description := []byte(t.Description)
	if format.Definition != "" {
		description = appendParagraph(description, []byte("The input must match this grammar ("+format.Syntax+"):\n"+format.Definition))
	}
	f := api.Tool{Description: string(description), Parameters: []byte(customParameters)}
	return s.offer(toolOrigin{name: t.Name, namespace: namespace, custom: true}, f, at)
}

// customArguments are the arguments of the function that stands for a custom tool.
func customArguments(input string) string {
	return string(append(api.AppendMember(nil, `{"input":`, input), '}'))
}

// customInput is the input of a custom tool in the arguments of a call. Arguments that were cut off, or have another
// form, are the input themselves.
func customInput(arguments []byte) string {
	var a struct {
		Input *string `json:"input"`
	}
	if err := json.Unmarshal(arguments, &a); err != nil || a.Input == nil {
		return string(arguments)
	}
	return *a.Input
}
