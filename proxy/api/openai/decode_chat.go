package openai

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// chatBody is the body of POST /v1/chat/completions. Fields that aren't here are ignored.
type chatBody struct {
	parameters
	Messages            messageList      `json:"messages"`
	MaxCompletionTokens *api.WholeNumber `json:"max_completion_tokens"` // the newer name of max_tokens
	Logprobs            bool             `json:"logprobs"`
	TopLogprobs         *api.WholeNumber `json:"top_logprobs"`
	Tools               []tool           `json:"tools"`
	ToolChoice          toolChoice       `json:"tool_choice"`
	ParallelToolCalls   *bool            `json:"parallel_tool_calls"`
	templateOptions

	Functions        jsontext.Value `json:"functions"`
	FunctionCall     jsontext.Value `json:"function_call"`
	Modalities       jsontext.Value `json:"modalities"`
	Audio            jsontext.Value `json:"audio"`
	WebSearchOptions jsontext.Value `json:"web_search_options"`

	Unknown jsontext.Value `json:",embed"`
}

// chatMessage is one message as the client wrote it.
type chatMessage struct {
	Role         string            `json:"role"`
	Content      content           `json:"content"`
	Reasoning    string            `json:"reasoning_content"`
	ToolCalls    []messageToolCall `json:"tool_calls"`
	ToolCallID   string            `json:"tool_call_id"`
	Name         string            `json:"name"` // of a tool message: the function; that of others is ignored
	FunctionCall jsontext.Value    `json:"function_call"`
	Audio        jsontext.Value    `json:"audio"`
}

func (b *chatBody) request(limits api.Limits) (*api.Request, *api.Error) {
	messages, err := b.Messages.check(limits.MaxPromptBytes())
	if err != nil {
		return nil, err
	}
	if err := b.refuseUnsupported(); err != nil {
		return nil, err
	}
	if b.MaxCompletionTokens != nil {
		if *b.MaxCompletionTokens < 1 {
			return nil, invalidField("max_completion_tokens")
		}
		b.MaxTokens = b.MaxCompletionTokens
	}
	r, err := b.parameters.request(limits)
	if err != nil {
		return nil, err
	}
	r.Messages, r.SplitOutput = messages, true
	r.UnknownFields = api.UnknownFields(b.Unknown, ignoredFields)
	if r.Logprobs, r.TopLogprobs, err = b.logprobs(); err != nil {
		return nil, err
	}
	if r.TemplateOptions, err = b.templateOptions.encode(); err != nil {
		return nil, err
	}
	if err := b.ToolChoice.apply(r, b.Tools, b.ParallelToolCalls, limits.MaxPromptBytes()); err != nil {
		return nil, err
	}
	return r, nil
}

func (b *chatBody) logprobs() (wanted bool, top int, err *api.Error) {
	switch {
	case b.TopLogprobs == nil:
		return b.Logprobs, 0, nil
	case *b.TopLogprobs > api.MaxTopLogprobs:
		return false, 0, invalidField("top_logprobs")
	case *b.TopLogprobs > 0 && !b.Logprobs:
		return false, 0, api.Invalid("top_logprobs", "top_logprobs needs logprobs to be true")
	}
	return b.Logprobs, int(*b.TopLogprobs), nil
}

func (b *chatBody) refuseUnsupported() *api.Error {
	const useTools = "functions and function_call are not supported; use tools and tool_choice"
	return refuse([]refusal{
		{"functions", b.Functions, "", useTools},
		{"function_call", b.FunctionCall, `"none" "auto"`, useTools},
		{"modalities", b.Modalities, `["text"]`, "only text is supported; leave modalities out"},
		{"audio", b.Audio, "", "only text is supported; leave audio out"},
		{"web_search_options", b.WebSearchOptions, "", "web search is not supported; leave web_search_options out"},
	})
}

// messageList is a list of at most api.MaxMessages messages. It is read one by one, so that a list of many tiny
// messages doesn't take many times its size in memory.
type messageList []chatMessage

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
		var m chatMessage
		if err := json.UnmarshalDecode(dec, &m); err != nil {
			return err
		}
		*l = append(*l, m)
	}
	_, err := dec.ReadToken()
	return err
}

// check returns the conversation, of at most limitBytes of text.
func (l messageList) check(limitBytes int) ([]api.Message, *api.Error) {
	if len(l) == 0 {
		return nil, api.Invalid("messages", "messages is required and must be %s", requirements["messages"])
	}
	textBytes := 0
	list := make([]api.Message, len(l))
	for i := range l {
		m, err := l[i].check(fmt.Sprintf("messages[%d]", i))
		if err != nil {
			return nil, err
		}
		list[i] = m
		textBytes += m.TextBytes() - len(m.Role)
	}
	if textBytes > limitBytes {
		return nil, api.Invalid("messages", "messages have %d bytes of text together, more than the limit of %d; shorten them", textBytes, limitBytes)
	}
	return list, nil
}

// check returns the message; param is its place in the body.
func (m *chatMessage) check(param string) (api.Message, *api.Error) {
	role, err := m.engineRole(param)
	if err != nil {
		return api.Message{}, err
	}
	if err := refuse([]refusal{
		{param + ".function_call", m.FunctionCall, "", "function_call is not supported; use tool_calls"},
		{param + ".audio", m.Audio, "", "only text is supported; leave audio out"},
	}); err != nil {
		return api.Message{}, err
	}
	if !m.Content.given && role != "assistant" {
		return api.Message{}, invalidField(param + ".content")
	}
	to := api.Message{Role: role, Content: m.Content.text}
	switch role {
	case "assistant":
		to.Reasoning = m.Reasoning
		if to.ToolCalls, err = checkToolCalls(m.ToolCalls, param+".tool_calls"); err != nil {
			return api.Message{}, err
		}
	case "tool":
		to.Name, to.ToolCallID = m.Name, m.ToolCallID
		if m.ToolCallID == "" {
			return api.Message{}, api.Invalid(param+".tool_call_id", "%s.tool_call_id is required in messages of the role tool", param)
		}
	}
	return to, nil
}

// engineRole is the role as the engine knows it.
func (m *chatMessage) engineRole(param string) (string, *api.Error) {
	switch m.Role {
	case "system", "user", "assistant", "tool":
		return m.Role, nil
	case "developer":
		return "system", nil
	case "function":
		return "", api.Invalid(param+".role", "messages of the role function are not supported; use the role tool")
	case "":
		return "", api.Invalid(param+".role", "%s.role is required and must be %s", param, requirements["messages[].role"])
	}
	return "", api.Invalid(param+".role", "%s.role is %s, but must be %s", param, api.Quote(m.Role), requirements["messages[].role"])
}

// content is the text of a message: a string, or a list of parts of which only texts are taken.
type content struct {
	text  string
	given bool // a null content counts as absent
}

type contentPart struct {
	Type string  `json:"type"`
	Text *string `json:"text"`
}

var errContent = errors.New("neither a string nor a list of parts")

// UnmarshalJSONFrom reads either form.
func (c *content) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	switch dec.PeekKind() {
	case 'n':
		return dec.SkipValue()
	case '"':
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		c.text, c.given = token.String(), true
		return nil
	case '[':
		return c.readParts(dec)
	}
	return errContent
}

func (c *content) readParts(dec *jsontext.Decoder) error {
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	var text []byte
	for dec.PeekKind() != ']' {
		var p contentPart
		if err := json.UnmarshalDecode(dec, &p); err != nil {
			return err
		}
		if err := p.check(paramOf(dec.StackPointer())); err != nil {
			return err
		}
		text = append(text, *p.Text...)
	}
	c.text, c.given = string(text), true
	_, err := dec.ReadToken()
	return err
}

// check returns an *api.Error or nil, as the JSON package wants it.
func (p *contentPart) check(param string) error {
	switch {
	case p.Type == "":
		return api.Invalid(param+".type", "%s.type is required and must be %s", param, requirements["messages[].content[].type"])
	case p.Type != "text":
		return api.Invalid(param+".type", "content of the type %s is not supported; send parts of the type text", api.Quote(p.Type))
	case p.Text == nil:
		return api.Invalid(param+".text", "%s.text is required and must be a string", param)
	}
	return nil
}
