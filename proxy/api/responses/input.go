package responses

import (
	"errors"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// maxItems bounds the items of an input. A step of an agent has up to four of them (reasoning, message, call, output),
// of which two messages are made.
const maxItems = 4 * api.MaxMessages

// input is the field input: a text of the user, or a list of items.
type input struct {
	given  bool
	isText bool
	text   string
	items  []item
}

// item is an entry of the input as the client wrote it. Which fields it has depends on its type.
type item struct {
	Type      string         `json:"type"`
	Role      string         `json:"role"`
	Content   content        `json:"content"`
	Summary   content        `json:"summary"` // of reasoning
	ID        string         `json:"id"`
	CallID    string         `json:"call_id"`
	Name      string         `json:"name"`
	Namespace string         `json:"namespace"`
	Arguments jsontext.Value `json:"arguments"` // of function_call
	Input     *string        `json:"input"`     // of custom_tool_call
	Action    jsontext.Value `json:"action"`    // of local_shell_call and shell_call
	Operation jsontext.Value `json:"operation"` // of apply_patch_call
	Output    jsontext.Value `json:"output"`    // of what these calls gave
	Error     jsontext.Value `json:"error"`     // of mcp_call
	Status    string         `json:"status"`
}

var errInput = errors.New("neither a string nor a list of items")

// UnmarshalJSONFrom reads either form.
func (in *input) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case '"':
		token, err := dec.ReadToken()
		in.text, in.isText, in.given = token.String(), true, true
		return err
	case '[':
		in.given = true
	}
	return readObjects(&in.items, dec, maxItems, errInput)
}
