package anthropic

import (
	"errors"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// message is one message as the client wrote it. Its content is read once its role is known.
type message struct {
	Role    string         `json:"role"`
	Content jsontext.Value `json:"content"`
}

// messageList is a list of at most api.MaxMessages messages. It is read one by one, so that a list of many tiny
// messages doesn't take many times its size in memory.
type messageList []message

var errMessageList = errors.New("not a list of messages")

// UnmarshalJSONFrom reads the list.
func (l *messageList) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if dec.PeekKind() == 'n' {
		return dec.SkipValue()
	}
	if dec.PeekKind() != '[' {
		return errMessageList
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != ']' {
		if len(*l) == api.MaxMessages {
			return errMessageList
		}
		var m message
		if err := json.UnmarshalDecode(dec, &m); err != nil {
			return err
		}
		*l = append(*l, m)
	}
	_, err := dec.ReadToken()
	return err
}

// conversation collects the messages that the engine gets. Those of one role that follow each other are one turn: its
// tool results become messages of their own, and all else one message.
type conversation struct {
	list      []api.Message
	callNames map[string]string // the function of each tool_use block, by id
	turn      turn
}

// turn is what one side says until the other one does.
type turn struct {
	role      string // "" before the first turn
	texts     []string
	reasoning []string
	calls     []api.ToolCall
	results   []api.Message
}

// addText adds a text. An empty one is none, which no line break needs to tell apart.
func (t *turn) addText(text string) {
	if text != "" {
		t.texts = append(t.texts, text)
	}
}

func (c *conversation) addSystem(system jsontext.Value) *api.Error {
	text, err := textOf(system, "system")
	c.addSystemText(text)
	return err
}

// addSystemText adds to the message before all others. An empty text says nothing, and some templates take none at all.
func (c *conversation) addSystemText(text string) {
	text = withoutBillingLine(text)
	switch {
	case text == "":
	case len(c.list) == 0:
		c.list = append(c.list, api.Message{Role: "system", Content: text})
	default:
		c.list[0].Content += "\n" + text
	}
}

// withoutBillingLine leaves out the line that Claude Code has in front of its system text. It is meant for the server,
// and some of it changes with each request, so that nothing of the prompt would come from the KV cache.
func withoutBillingLine(text string) string {
	if !strings.HasPrefix(text, "x-anthropic-billing-header:") {
		return text
	}
	_, rest, _ := strings.Cut(text, "\n")
	return rest
}

func (c *conversation) addMessages(list messageList) *api.Error {
	if len(list) == 0 {
		return missingField("messages")
	}
	for i := range list {
		if err := c.addMessage(&list[i], "messages."+strconv.Itoa(i)); err != nil {
			return err
		}
	}
	if c.turn.role == "" {
		return api.Invalid("messages", "messages has only messages of the system; add one of the user")
	}
	return c.endTurn()
}

// addMessage adds a message to the turn; param is its place in the body.
func (c *conversation) addMessage(m *message, param string) *api.Error {
	switch m.Role {
	case "user", "assistant":
	case "":
		return missingField(param + ".role")
	case "system":
		return c.addSystemMessage(m, param+".content")
	default:
		return api.Invalid(param+".role", "%s.role is %s, but must be user, assistant or system", param, api.Quote(m.Role))
	}
	if err := c.beginTurn(m.Role); err != nil {
		return err
	}
	return c.addContent(m.Content, param+".content")
}

// beginTurn ends the turn of the other side.
func (c *conversation) beginTurn(role string) *api.Error {
	if role == c.turn.role {
		return nil
	}
	err := c.endTurn()
	c.turn.role = role
	return err
}

// addSystemMessage adds a message of the system. At the beginning it goes to the system text. Behind a turn it is a
// text of the user at its place: many chat templates refuse a system message there, and moved to the beginning it would
// change the whole prompt, so that nothing of it came from the KV cache.
func (c *conversation) addSystemMessage(m *message, param string) *api.Error {
	if len(m.Content) == 0 || m.Content.Kind() == 'n' {
		return missingField(param)
	}
	text, err := textOf(m.Content, param)
	switch {
	case err != nil:
		return err
	case c.turn.role == "":
		c.addSystemText(text)
		return nil
	}
	err = c.beginTurn("user")
	c.turn.addText(text)
	return err
}

// addContent adds a string, or blocks. The texts of an answer are parts of one text; those of a user are texts of their
// own, which a line break tells apart.
func (c *conversation) addContent(content jsontext.Value, param string) *api.Error {
	switch content.Kind() {
	case '"':
		c.turn.addText(unquote(content))
		return nil
	case '[':
	case jsontext.KindInvalid, 'n':
		return missingField(param)
	default:
		return invalidField(param)
	}
	before := len(c.turn.texts)
	err := forEachBlock(content, param, c.addBlock)
	if err == nil && c.turn.role == "assistant" && len(c.turn.texts) > before {
		c.turn.texts = append(c.turn.texts[:before], strings.Join(c.turn.texts[before:], ""))
	}
	return err
}

func (c *conversation) addBlock(b *block, at string) *api.Error {
	if err := b.checkSide(c.turn.role, at); err != nil {
		return err
	}
	switch b.Type {
	case "text":
		if b.Text == nil {
			return missingField(at + ".text")
		}
		c.turn.addText(*b.Text)
	case "thinking":
		if b.Thinking == nil {
			return missingField(at + ".thinking")
		}
		c.turn.reasoning = append(c.turn.reasoning, *b.Thinking)
	case "tool_use":
		return c.addToolUse(b, at)
	case "tool_result":
		return c.addToolResult(b, at)
	}
	return nil // redacted_thinking is left out: nobody can read it
}

func (c *conversation) addToolUse(b *block, at string) *api.Error {
	switch {
	case b.ID == "":
		return missingField(at + ".id")
	case !api.IsToolName(b.Name):
		return invalidField(at + ".name")
	case len(b.Input) > 0 && b.Input.Kind() != '{' && b.Input.Kind() != 'n':
		return invalidField(at + ".input")
	case len(c.turn.calls) == api.MaxToolCalls:
		return api.Invalid(at, "the assistant has more than %d tool_use blocks in one turn", api.MaxToolCalls)
	}
	arguments, _ := api.ToolArguments(b.Input)
	c.turn.calls = append(c.turn.calls, api.ToolCall{ID: b.ID, Name: b.Name, Arguments: arguments})
	if c.callNames == nil {
		c.callNames = make(map[string]string)
	}
	c.callNames[b.ID] = b.Name
	return nil
}

func (c *conversation) addToolResult(b *block, at string) *api.Error {
	if b.ToolUseID == "" {
		return missingField(at + ".tool_use_id")
	}
	text, err := textOf(b.Content, at+".content")
	if err != nil {
		return err
	}
	c.turn.results = append(c.turn.results, api.Message{Role: "tool", Content: text, Name: c.callNames[b.ToolUseID], ToolCallID: b.ToolUseID})
	return nil
}

// endTurn makes messages of the turn: results first, since templates want them right behind the calls.
func (c *conversation) endTurn() *api.Error {
	t := c.turn
	c.turn = turn{}
	if t.role == "" {
		return nil
	}
	c.list = append(c.list, t.results...)
	text := strings.Join(t.texts, "\n")
	if text != "" || len(t.results) == 0 {
		c.list = append(c.list, api.Message{Role: t.role, Content: text, Reasoning: strings.Join(t.reasoning, "\n"), ToolCalls: t.calls})
	}
	if len(c.list) > api.MaxMessages {
		return api.Invalid("messages", "messages and tool results are more than %d together; leave some out", api.MaxMessages)
	}
	return nil
}
