package anthropic

import (
	"fmt"
	"slices"

	"tandem/proxy/api"
	"tandem/proxy/openapi"
)

// Errors is the form of errors of this dialect.
func Errors() openapi.ErrorForm {
	list := []string{}
	for _, t := range api.Types() {
		list = append(list, kindOf(t))
	}
	slices.Sort(list)
	return openapi.ErrorForm{
		Member: "type",
		Code:   kindOf,
		Schema: openapi.Object(
			openapi.Has("type", openapi.Constant("error")),
			openapi.Has("error", openapi.Object(
				openapi.Has("type", openapi.Words(slices.Compact(list)...).About("What went wrong, for programs.")),
				openapi.Has("message", openapi.Text(1, 0).About("What went wrong, for people; it names the field to mend.")),
			)),
			openapi.May("request_id", openapi.Text(1, 0).About("As in X-Request-Id. Absent in streams.")),
		).Named("AnthropicError"),
	}
}

// Endpoints describes the endpoints for Anthropic's clients.
func Endpoints() ([]openapi.Endpoint, error) {
	body, err := openapi.BodyOf(messagesBody{}, fields())
	if err != nil {
		return nil, fmt.Errorf("describe the body of /v1/messages: %w", err)
	}
	counted, err := openapi.BodyOf(messagesBody{}, countedFields())
	if err != nil {
		return nil, fmt.Errorf("describe the body of /v1/messages/count_tokens: %w", err)
	}
	const question = `"model":"demo:v1.0","messages":[{"role":"user","content":"What is the capital of France?"}]`
	messages := openapi.Endpoint{
		Path: messagesPath, ID: "messages", Summary: "The next message of a conversation",
		Doc:  "As Anthropic's API has it. Fields that aren't listed are ignored.",
		Body: body.Named("MessagesRequest"),
		Examples: []openapi.Example{
			{Name: "answer", Summary: "A question", Body: `{` + question + `,"max_tokens":64,"temperature":0}`},
			{Name: "stream", Summary: "The same as a stream", Body: `{` + question + `,"max_tokens":64,"temperature":0,"stream":true}`},
			{Name: "no_max_tokens", Summary: "Without max_tokens", Body: `{` + question + `}`},
		},
		Replies: []openapi.Reply{{
			Status: 200, Doc: "The message.", Headers: append(openapi.InferenceHeaders(), "Request-Id", "X-Stream-Id"),
			Content: openapi.WholeOrStream(messageSchema(), &openapi.Events{Failed: "error", Named: eventSchemas(), Final: []string{"message_stop"}}),
		}},
	}.Inference()
	count := openapi.Endpoint{
		Path: messagesPath + "/count_tokens", ID: "countTokens", Summary: "How many tokens a message has",
		Doc:      "The body is that of /v1/messages; what doesn't make up the prompt is ignored.",
		Body:     counted.Named("CountTokensRequest"),
		Examples: []openapi.Example{{Name: "count", Summary: "A question", Body: `{` + question + `}`}},
		Replies:  openapi.JSONReply("The number.", openapi.Object(openapi.Has("input_tokens", openapi.Count())).Named("InputTokens")),
	}.Call()
	list := []openapi.Endpoint{messages, count}
	for i := range list {
		list[i].Tag, list[i].Errors = "anthropic", Errors()
	}
	return list, nil
}

const messagesPath = "/v1/messages"

// DescribeModels adds this dialect's form to the description of GET /v1/models or GET /v1/models/{id}, of which another
// dialect has the other form.
func DescribeModels(e *openapi.Endpoint, list bool) {
	form := modelInfo()
	if list {
		form = openapi.Object(
			openapi.Has("data", openapi.List(modelInfo(), 0, maxModelsLimit)), openapi.Has("has_more", openapi.Bool()),
			openapi.Has("first_id", openapi.Text(1, 0).OrNull()), openapi.Has("last_id", openapi.Text(1, 0).OrNull()),
		).Named("AnthropicModels")
		e.Parameters = append(e.Parameters,
			openapi.Parameter{Name: "limit", In: "query", Schema: openapi.Integer(1, maxModelsLimit), Description: "Of Anthropic's form: how many entries. Default: 20."},
			openapi.Parameter{Name: "before_id", In: "query", Schema: openapi.Text(0, 0), Description: "Of Anthropic's form: the entries before this one."},
			openapi.Parameter{Name: "after_id", In: "query", Schema: openapi.Text(0, 0), Description: "Of Anthropic's form: the entries after this one."})
	}
	e.Parameters = append(e.Parameters, openapi.Parameter{Name: "Anthropic-Version", In: "header", Schema: openapi.Text(0, 0),
		Description: "With it the reply, errors included, has Anthropic's form."})
	content := &e.Replies[0].Content[0]
	content.Schema = openapi.AnyOf(content.Schema, form)
}

func modelInfo() *openapi.Schema {
	return openapi.Object(
		openapi.Has("type", openapi.Constant("model")), openapi.Has("id", openapi.Text(1, 0).About("What model has to be.")),
		openapi.Has("display_name", openapi.Text(1, 0).About("The same.")),
		openapi.Has("created_at", openapi.Text(1, 0).About("The same for all: models don't say when they were made.")),
	).Named("AnthropicModel")
}

// fields says what each field of messagesBody means.
func fields() openapi.Fields {
	schema := openapi.Map(&openapi.Schema{})
	return openapi.Fields{
		"model":             {Doc: "The name of a model, or name and version with a colon between them. Default: DEFAULT_MODEL.", Schema: openapi.ModelNames()},
		"max_tokens":        {Doc: "How many tokens the answer may have. Cut to what the context has left.", Required: true, Schema: openapi.IntegerFrom(1)},
		"system":            {Doc: "What the model is told besides the conversation.", Schema: textBlocks()},
		"stop_sequences":    {Doc: "The answer ends before the first of these texts.", Schema: openapi.StopStrings()},
		"stream":            {Doc: "Answer as server-sent events.", Default: false},
		"stream_options":    {Doc: "How a stream is sent. Not in Anthropic's API."},
		"timings_per_token": {Doc: "Whether the reply and each event with text have the engine's times. Not in Anthropic's API.", Default: false},
		"temperature":       {Doc: "0 always takes the most likely token. Default: the model's, then 1.", Schema: openapi.Range(0, 1)},
		"top_k":             {Doc: "Only that many of the most likely tokens; 0: off.", Schema: openapi.Integer(0, api.MaxTopK)},
		"top_p":             {Doc: "Only the most likely tokens that have this probability together; 1: off.", Schema: openapi.Range(0, 1)},

		"stream_options.resume": {Doc: "Seconds for which the stream is kept for GET /v1/streams/{id} while nobody reads it.", Schema: openapi.Integer(0, int64(api.MaxResumeSeconds))},

		"messages":           {Doc: fmt.Sprintf("The conversation, of at most %d bytes of text. With the text of a last one of the assistant the answer goes on.", api.MaxPromptBytes), Required: true, Entries: message{}, MinItems: 1, MaxItems: api.MaxMessages},
		"messages[].role":    {Doc: "Who says it.", Required: true, Schema: openapi.Words("user", "assistant", "system")},
		"messages[].content": {Doc: "A text, or blocks of which each has what its type needs.", Required: true, Schema: openapi.Text(0, api.MaxPromptBytes), Entries: block{}},

		"messages[].content[].type": {Doc: "tool_result is the user's; tool_use, thinking and redacted_thinking are the assistant's.", Required: true,
			Schema: openapi.Words("text", "tool_use", "tool_result", "thinking", "redacted_thinking")},
		"messages[].content[].text":        {Doc: "Of text."},
		"messages[].content[].thinking":    {Doc: "Of thinking."},
		"messages[].content[].id":          {Doc: "Of tool_use: names the call."},
		"messages[].content[].name":        {Doc: "Of tool_use: the tool."},
		"messages[].content[].input":       {Doc: "Of tool_use: an object.", Schema: schema},
		"messages[].content[].tool_use_id": {Doc: "Of tool_result: the call."},
		"messages[].content[].content":     {Doc: "Of tool_result: what the tool gave.", Schema: textBlocks()},

		"tools":                {Doc: "Tools that the model may call. Those of other types than custom are Anthropic's and are left out.", Entries: tool{}, MaxItems: api.MaxTools},
		"tools[].type":         {Doc: "custom, or nothing."},
		"tools[].name":         {Doc: "Its name, which no other tool has; 1 to 128 letters, digits and _ - ."},
		"tools[].description":  {Doc: "What it does, for the model."},
		"tools[].input_schema": {Doc: fmt.Sprintf("JSON schema of its input, of at most %d bytes.", api.MaxSchemaBytes), Schema: &openapi.Schema{}},
		"tools[].strict":       {Doc: "A schema that can't be obeyed is refused. Otherwise it is obeyed as far as it can be.", Default: false},

		"tool_choice":      {Doc: "Whether tools may, must, or mustn't be called, or which one must be."},
		"tool_choice.type": {Doc: "any: one of them. tool: the one that name says.", Required: true, Schema: openapi.Words("auto", "any", "tool", "none")},
		"tool_choice.name": {Doc: "One of tools, with the type tool."},

		"tool_choice.disable_parallel_tool_use": {Doc: "At most one call.", Default: false},

		"thinking":      {Doc: "Whether the model thinks before it answers."},
		"thinking.type": {Doc: "adaptive is the same as enabled.", Required: true, Schema: openapi.Words("enabled", "adaptive", "disabled")},

		"output_config":               {Doc: "What the answer has to be."},
		"output_config.format":        {Doc: "JSON that fits a schema."},
		"output_config.format.type":   {Doc: "The only one.", Required: true, Schema: openapi.Words("json_schema")},
		"output_config.format.schema": {Doc: fmt.Sprintf("A JSON schema of at most %d bytes.", api.MaxSchemaBytes), Required: true, Schema: schema},
		"output_format":               {Doc: "Where output_config.format was before."},
		"output_format.type":          {Doc: "The only one.", Required: true, Schema: openapi.Words("json_schema")},
		"output_format.schema":        {Doc: "A JSON schema.", Required: true, Schema: schema},
	}
}

// countedFields are those of which tokens are counted; values of others don't matter.
func countedFields() openapi.Fields {
	list := fields()
	for _, name := range []string{"max_tokens", "temperature", "top_k", "top_p", "stop_sequences", "output_config.format.type", "output_config.format.schema",
		"output_format.type", "output_format.schema", "stream_options.resume"} {
		f := list[name]
		f.Doc, f.Required = "Ignored here.", false
		switch name {
		case "max_tokens", "top_k", "stream_options.resume":
			f.Schema = openapi.IntegerFrom(0)
		case "temperature", "top_p":
			f.Schema = nil
		case "stop_sequences":
			f.Schema = openapi.AnyOf(openapi.Text(0, 0), openapi.List(openapi.Text(0, 0), 0, api.MaxStops))
		case "output_config.format.type", "output_format.type":
			f.Schema = nil
		default:
			f.Schema = &openapi.Schema{}
		}
		list[name] = f
	}
	return list
}

// textBlocks is a text, or a list of blocks of text.
func textBlocks() *openapi.Schema {
	one := openapi.Object(openapi.Has("type", openapi.Words("text")), openapi.Has("text", openapi.Text(0, 0)))
	return openapi.AnyOf(openapi.Text(0, 0), openapi.List(one, 0, 0))
}

// usageMembers are those that a message has from its start.
func usageMembers() []openapi.Property {
	return []openapi.Property{
		openapi.Has("input_tokens", openapi.Count().About("Tokens of the prompt, without those from the KV cache.")),
		openapi.Has("cache_creation_input_tokens", openapi.Constant(0)),
		openapi.Has("cache_read_input_tokens", openapi.Count().About("Taken from the KV cache.")),
		openapi.Has("output_tokens", openapi.Count()),
	}
}

func usageSchema() *openapi.Schema {
	details := openapi.May("output_tokens_details", openapi.Object(openapi.Has("thinking_tokens", openapi.Count())))
	return openapi.Object(append(usageMembers(), details)...).Named("AnthropicUsage")
}

// contentBlock is a block of an answer.
func contentBlock() *openapi.Schema {
	return openapi.AnyOf(
		openapi.Object(openapi.Has("type", openapi.Constant("text")), openapi.Has("text", openapi.Text(0, 0))),
		openapi.Object(openapi.Has("type", openapi.Constant("thinking")), openapi.Has("thinking", openapi.Text(0, 0)), openapi.Has("signature", openapi.Text(0, 0).About("Means nothing here."))),
		openapi.Object(openapi.Has("type", openapi.Constant("tool_use")), openapi.Has("id", openapi.Text(1, 0)), openapi.Has("name", openapi.ToolNames()), openapi.Has("input", openapi.Map(&openapi.Schema{}))),
	).Named("ContentBlock")
}

func stopMembers() []openapi.Property {
	return []openapi.Property{
		openapi.Has("stop_reason", openapi.Words("end_turn", "max_tokens", "stop_sequence", "tool_use").OrNull().About("null before the end.")),
		openapi.Has("stop_sequence", openapi.Text(0, 0).OrNull().About("The text that ended the answer.")),
	}
}

func messageMembers(more ...openapi.Property) []openapi.Property {
	return append([]openapi.Property{
		openapi.Has("id", openapi.Text(1, 0)), openapi.Has("type", openapi.Constant("message")), openapi.Has("role", openapi.Constant("assistant")),
		openapi.Has("model", openapi.Text(1, 0)),
	}, more...)
}

func messageSchema() *openapi.Schema {
	members := messageMembers(openapi.Has("content", openapi.List(contentBlock(), 0, 0)), openapi.Has("usage", usageSchema()), openapi.Timings())
	return openapi.Object(append(members, stopMembers()...)...).Named("Message")
}

// startedMessage is a message of which nothing has come yet.
func startedMessage() *openapi.Schema {
	return openapi.Object(messageMembers(
		openapi.Has("content", openapi.Constant([]string{})), openapi.Has("usage", openapi.Object(usageMembers()...)),
		openapi.Has("stop_reason", openapi.Null()), openapi.Has("stop_sequence", openapi.Null()),
	)...)
}

// eventSchemas are the data of the events of a stream.
func eventSchemas() map[string]*openapi.Schema {
	delta := func(kind, member string) *openapi.Schema {
		return openapi.Object(openapi.Has("type", openapi.Constant(kind)), openapi.Has(member, openapi.Text(0, 0)))
	}
	event := func(kind string, members ...openapi.Property) *openapi.Schema {
		return openapi.Object(append([]openapi.Property{openapi.Has("type", openapi.Constant(kind))}, members...)...)
	}
	index := openapi.Has("index", openapi.Count().About("Which block."))
	return map[string]*openapi.Schema{
		"message_start":       event("message_start", openapi.Has("message", startedMessage())),
		"content_block_start": event("content_block_start", index, openapi.Has("content_block", contentBlock())),
		"content_block_delta": event("content_block_delta", index, openapi.Has("delta", openapi.AnyOf(delta("text_delta", "text"), delta("thinking_delta", "thinking"),
			delta("signature_delta", "signature"), delta("input_json_delta", "partial_json"))), openapi.TokenTimings()),
		"content_block_stop": event("content_block_stop", index),
		"message_delta":      event("message_delta", openapi.Has("delta", openapi.Object(stopMembers()...)), openapi.Has("usage", usageSchema()), openapi.Timings()),
		"message_stop":       event("message_stop"),
	}
}
