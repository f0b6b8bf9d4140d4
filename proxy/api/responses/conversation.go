package responses

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// conversation makes messages of items. What an assistant said, thought and called one after the other is one message,
// and so is what the user said, and the system at the beginning: many chat templates take one system message only, in
// front of all others, and then the user and the assistant in turn.
type conversation struct {
	tools *toolSet
	list  []api.Message
	used  bool              // an item has brought something
	names map[string]string // of the functions that were called, by the call's id

	// The message that isn't complete yet; without a role there is none.
	open      api.Message
	content   []byte
	reasoning []byte // also that of an assistant whose message hasn't begun
}

// conversation returns the messages of the input, with the instructions in front.
func (in *input) conversation(instructions *string, tools *toolSet) ([]api.Message, *api.Error) {
	if !in.given || !in.isText && len(in.items) == 0 {
		return nil, api.Invalid("input", "input is required and must be %s", requirements["input"])
	}
	c := conversation{tools: tools, names: map[string]string{}}
	if instructions != nil {
		c.addSystem([]byte(*instructions))
	}
	if in.isText {
		c.say("user", []byte(in.text))
		c.used = true
	}
	for i := range in.items {
		if err := c.add(&in.items[i], fmt.Sprintf("input[%d]", i)); err != nil {
			return nil, err
		}
	}
	c.end()
	switch {
	case len(c.list) > api.MaxMessages:
		return nil, api.Invalid("input", "input has %d messages, more than the limit of %d; shorten the conversation", len(c.list), api.MaxMessages)
	case !c.used:
		return nil, api.Invalid("input", "input has nothing in it that can be given to the model; send a message")
	}
	return c.list, nil
}

// end completes the open message.
func (c *conversation) end() {
	if c.open.Role != "" {
		c.open.Content = string(c.content)
		if c.open.Role == "assistant" {
			c.open.Reasoning, c.reasoning = string(c.reasoning), c.reasoning[:0]
		}
		c.list = append(c.list, c.open)
	}
	c.open, c.content = api.Message{}, c.content[:0]
}

// turnTo opens a message of the role, unless one is open already.
func (c *conversation) turnTo(role string) {
	if c.open.Role != role {
		c.end()
		c.open.Role = role
	}
}

// say adds a text to what the role says. Reasoning that came before is the assistant's own, or nobody's.
func (c *conversation) say(role string, text []byte) {
	c.turnTo(role)
	c.content = appendParagraph(c.content, text)
	if role != "assistant" {
		c.reasoning = c.reasoning[:0]
	}
}

// addSystem adds a message of the system. Behind others it is a text of the user at its place: many chat templates
// refuse a system message there, and moved to the beginning it would change the whole prompt, so that nothing of it
// came from the KV cache.
func (c *conversation) addSystem(text []byte) {
	if len(c.list) == 0 && (c.open.Role == "" || c.open.Role == "system") {
		c.say("system", text)
		return
	}
	c.say("user", text)
}

// appendParagraph separates a text from the one before it.
func appendParagraph(dst, text []byte) []byte {
	if len(dst) > 0 && len(text) > 0 {
		dst = append(dst, "\n\n"...)
	}
	return append(dst, text...)
}

// add takes an item in; at is its place in the body. Items that only a server with tools of its own could read are left
// out, since clients send them back as they got them elsewhere.
func (c *conversation) add(it *item, at string) *api.Error {
	switch it.kind() {
	case "message":
		return c.addMessage(it, at)
	case "reasoning":
		return c.addReasoning(it, at)
	case "function_call":
		return c.addFunctionCall(it, at)
	case "custom_tool_call":
		return c.addCustomCall(it, at)
	case "local_shell_call":
		return c.addHostedCall("local_shell", it.Action, it, at, "action")
	case "shell_call":
		return c.addHostedCall("shell", it.Action, it, at, "action")
	case "apply_patch_call":
		return c.addHostedCall("apply_patch", it.Operation, it, at, "operation")
	case "function_call_output", "custom_tool_call_output", "shell_call_output":
		return c.addOutput(c.calledID(it), it.Output, at)
	case "local_shell_call_output":
		return c.addOutput(it.callID(), it.Output, at)
	case "apply_patch_call_output":
		return c.addOutput(it.CallID, orStatus(it.Output, it.Status), at)
	case "mcp_call":
		return c.addMCPCall(it, at)
	case "item_reference":
		return api.Invalid(at, "%s refers to an item by its id, but items are not stored; send the item itself (the Vercel AI SDK does so with store: false)", at)
	}
	return nil
}

// kind is the item's type, which messages and references needn't have.
func (it *item) kind() string {
	switch {
	case it.Type != "":
		return it.Type
	case it.Role != "":
		return "message"
	}
	return "item_reference"
}

// callID is the id of a call: outputs of a local shell have it in id, and calls of a server have no other.
func (it *item) callID() string {
	if it.CallID != "" {
		return it.CallID
	}
	return it.ID
}

// calledID is the id of the call that an output is of. One that has only a tool's name is of its last call.
func (c *conversation) calledID(it *item) string {
	if it.CallID != "" || it.Name == "" {
		return it.CallID
	}
	name := c.tools.nameOf(it.Namespace, it.Name)
	if id, ok := lastCall(c.open.ToolCalls, name); ok {
		return id
	}
	for i := len(c.list) - 1; i >= 0; i-- {
		if id, ok := lastCall(c.list[i].ToolCalls, name); ok {
			return id
		}
	}
	return ""
}

func lastCall(calls []api.ToolCall, name string) (id string, ok bool) {
	for i := len(calls) - 1; i >= 0; i-- {
		if calls[i].Name == name {
			return calls[i].ID, true
		}
	}
	return "", false
}

func (c *conversation) addMessage(it *item, at string) *api.Error {
	text, err := it.Content.check(at + ".content")
	if err != nil {
		return err
	}
	c.used = true
	switch it.Role {
	case "system", "developer":
		c.addSystem(text)
	case "user", "assistant":
		c.say(it.Role, text)
	case "":
		return api.Invalid(at+".role", "%s.role is required and must be %s", at, requirements["input[].role"])
	default:
		return api.Invalid(at+".role", "%s.role is %s, but must be %s", at, api.Quote(it.Role), requirements["input[].role"])
	}
	return nil
}

// addReasoning takes what the model thought, or a summary of it where there is no more. Encrypted reasoning can't be
// read.
func (c *conversation) addReasoning(it *item, at string) *api.Error {
	from, field := &it.Content, ".content"
	if it.Content.isEmpty() {
		from, field = &it.Summary, ".summary"
	}
	if !from.given {
		return nil
	}
	text, err := from.check(at + field)
	if err != nil {
		return err
	}
	c.reasoning = appendParagraph(c.reasoning, text)
	return nil
}

func (c *conversation) addFunctionCall(it *item, at string) *api.Error {
	arguments, ok := api.ToolArguments(it.Arguments)
	if !ok {
		return invalidField(at + ".arguments")
	}
	return c.addCall(api.ToolCall{ID: it.callID(), Name: c.tools.nameOf(it.Namespace, it.Name), Arguments: arguments}, at)
}

func (c *conversation) addCustomCall(it *item, at string) *api.Error {
	if it.Input == nil {
		return invalidField(at + ".input")
	}
	return c.addCall(api.ToolCall{ID: it.callID(), Name: c.tools.nameOf(it.Namespace, it.Name), Arguments: customArguments(*it.Input)}, at)
}

// addHostedCall takes a call of a tool that has a form of its own in OpenAI's API as the call of a function.
func (c *conversation) addHostedCall(name string, arguments jsontext.Value, it *item, at, field string) *api.Error {
	if arguments.Kind() != '{' {
		return invalidField(at + "." + field)
	}
	return c.addCall(api.ToolCall{ID: it.callID(), Name: name, Arguments: string(arguments)}, at)
}

// addMCPCall takes a call that another server made, with what it gave.
func (c *conversation) addMCPCall(it *item, at string) *api.Error {
	if err := c.addFunctionCall(it, at); err != nil {
		return err
	}
	output := it.Output
	if len(output) == 0 || output.Kind() == 'n' {
		output = it.Error
	}
	return c.addOutput(it.callID(), orStatus(output, it.Status), at)
}

func (c *conversation) addCall(call api.ToolCall, at string) *api.Error {
	switch {
	case call.ID == "":
		return invalidField(at + ".call_id")
	case !api.IsToolName(call.Name):
		return invalidField(at + ".name")
	}
	c.used = true
	c.turnTo("assistant")
	if len(c.open.ToolCalls) == api.MaxToolCalls {
		return api.Invalid(at, "%s is one of more than %d calls after one another; send outputs between them", at, api.MaxToolCalls)
	}
	c.open.ToolCalls = append(c.open.ToolCalls, call)
	c.names[call.ID] = call.Name
	return nil
}

func (c *conversation) addOutput(callID string, output jsontext.Value, at string) *api.Error {
	if callID == "" {
		return invalidField(at + ".call_id")
	}
	text, err := outputText(output, at+".output")
	if err != nil {
		return err
	}
	c.used = true
	c.turnTo("tool")
	c.open.ToolCallID, c.open.Name = callID, c.names[callID]
	c.say("tool", text)
	c.end()
	return nil
}

// orStatus is an output, or where there is none how the call ended.
func orStatus(output jsontext.Value, status string) jsontext.Value {
	if len(output) > 0 && output.Kind() != 'n' {
		return output
	}
	return api.AppendString(nil, status)
}
