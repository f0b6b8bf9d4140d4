package responses

import (
	"fmt"
	"math"

	"tandem/proxy/api"
	"tandem/proxy/api/openai"
	"tandem/proxy/openapi"
)

// Endpoints describes the endpoints for clients of OpenAI's Responses API.
func Endpoints() ([]openapi.Endpoint, error) {
	body, err := openapi.BodyOf(requestBody{}, fields())
	if err != nil {
		return nil, fmt.Errorf("describe the body of /v1/responses: %w", err)
	}
	body = body.Named("ResponsesRequest")
	const question = `"model":"demo:v1.0","input":"What is the capital of France?"`
	create := openapi.Endpoint{
		Path: "/v1/responses", ID: "responses", Summary: "The next response of a conversation",
		Doc:  "As OpenAI's Responses API has it. Nothing is stored. Fields that aren't listed are ignored.",
		Body: body,
		Examples: []openapi.Example{
			{Name: "answer", Summary: "A question", Body: `{` + question + `,"max_output_tokens":64,"temperature":0,"seed":7}`},
			{Name: "stream", Summary: "The same as a stream", Body: `{` + question + `,"max_output_tokens":64,"temperature":0,"seed":7,"stream":true}`},
			{Name: "stored", Summary: "What isn't stored", Body: `{` + question + `,"previous_response_id":"resp_1"}`},
		},
		Replies: []openapi.Reply{{
			Status: 200, Doc: "The response.", Headers: append(openapi.InferenceHeaders(), "X-Stream-Id"),
			Content: openapi.WholeOrStream(responseSchema(), &openapi.Events{
				Failed: "response.failed", Named: eventSchemas(), Final: []string{"response.completed", "response.incomplete"},
			}),
		}},
	}.Inference()
	count := openapi.Endpoint{
		Path: "/v1/responses/input_tokens", ID: "responsesInputTokens", Summary: "How many tokens an input has", Body: body,
		Examples: []openapi.Example{{Name: "count", Summary: "A question", Body: `{` + question + `}`}},
		Replies: openapi.JSONReply("The number.", openapi.Object(
			openapi.Has("object", openapi.Constant("response.input_tokens")), openapi.Has("input_tokens", openapi.Count()),
		).Named("ResponsesInputTokens")),
	}.Call()
	list := []openapi.Endpoint{create, count}
	for i := range list {
		list[i].Tag, list[i].Errors = "openai", openai.Errors()
	}
	return list, nil
}

// fields says what each field of requestBody means. What an item of the input may have depends on its type, and items
// of unknown types are ignored, so most of its fields can be anything.
func fields() openapi.Fields {
	anything := &openapi.Schema{}
	const stored = "Not supported: nothing is stored."
	echoed := openapi.Text(0, maxEchoedBytes)
	return openapi.Fields{
		"model":               {Doc: "The name of a model, or name and version with a colon between them. Default: DEFAULT_MODEL.", Schema: openapi.ModelNames()},
		"instructions":        {Doc: "A system text in front of the input."},
		"parallel_tool_calls": {Doc: "More than one call in an answer.", Default: true},
		"max_output_tokens":   {Doc: "How many tokens the answer may have. Cut to what the context has left.", Schema: openapi.IntegerFrom(1)},
		"temperature":         {Doc: "0 always takes the most likely token. Default: the model's, then 1.", Schema: openapi.Range(0, api.MaxTemperature)},
		"top_p":               {Doc: "Only the most likely tokens that have this probability together; 1: off.", Schema: openapi.Range(0, 1)},
		"top_logprobs":        {Doc: "The most likely tokens at each place, with log-probabilities.", Schema: openapi.Integer(0, api.MaxTopLogprobs)},
		"include":             {Doc: "message.output_text.logprobs asks for log-probabilities; everything else is ignored.", Schema: openapi.List(openapi.Text(0, 0), 0, maxIncludes)},
		"truncation":          {Doc: "auto is taken, too, but nothing is ever cut off.", Schema: openapi.Words("auto", "disabled")},
		"stream":              {Doc: "Answer as server-sent events.", Default: false},
		"stream_options":      {Doc: "How a stream is sent. Members of OpenAI's API are ignored."},
		"metadata":            {Doc: "Repeated in the reply.", Schema: metadataSchema()},
		"user":                {Doc: "Repeated in the reply.", Schema: echoed},
		"safety_identifier":   {Doc: "Repeated in the reply.", Schema: echoed},
		"prompt_cache_key":    {Doc: "Repeated in the reply.", Schema: echoed},

		"stream_options.resume": {Doc: "Seconds for which the stream is kept for GET /v1/streams/{id} while nobody reads it. Not in OpenAI's API.", Schema: openapi.Integer(0, int64(api.MaxResumeSeconds))},

		"seed":              {Doc: "Equal requests with equal seeds draw alike. Its lowest 53 bits count. Default: a random one. Not in OpenAI's API.", Schema: openapi.Integer(math.MinInt64, math.MaxInt64)},
		"stop":              {Doc: "The answer ends before the first of these texts. Not in OpenAI's API.", Schema: openapi.StopStrings()},
		"top_k":             {Doc: "Only that many of the most likely tokens; 0: off. Not in OpenAI's API.", Schema: openapi.Integer(0, api.MaxTopK)},
		"min_p":             {Doc: "Only tokens that have this share of the most likely one's probability; 0: off. Not in OpenAI's API.", Schema: openapi.Range(0, 1)},
		"presence_penalty":  {Doc: "Subtracted once from the logits of tokens that the answer has. Not in OpenAI's API.", Schema: openapi.Range(-api.MaxPenalty, api.MaxPenalty)},
		"timings_per_token": {Doc: "Whether the response and each event with text have the engine's times. Not in OpenAI's API.", Default: false},
		"frequency_penalty": {Doc: "Subtracted from the logits of tokens as often as the answer has them. Not in OpenAI's API.", Schema: openapi.Range(-api.MaxPenalty, api.MaxPenalty)},

		"previous_response_id": {Doc: stored, Schema: openapi.Absent()},
		"conversation":         {Doc: stored, Schema: openapi.Absent()},
		"prompt":               {Doc: stored, Schema: openapi.Absent()},
		"background":           {Doc: stored, Schema: openapi.Absent()},

		"input":             {Doc: fmt.Sprintf("A text of the user, or items; at most %d bytes of text.", api.MaxPromptBytes), Required: true, Schema: openapi.Text(0, 0), Entries: item{}, MinItems: 1, MaxItems: maxItems},
		"input[].type":      {Doc: "message (also where there is only a role), reasoning, function_call, custom_tool_call, their outputs, and those of other tools. Unknown ones are ignored."},
		"input[].role":      {Doc: "Of a message: user, assistant, system or developer. One of the last two behind others is a text of the user."},
		"input[].content":   {Doc: `A text, or parts such as {"type":"input_text","text":"Hello"}.`, Schema: anything},
		"input[].summary":   {Doc: "Of reasoning: parts.", Schema: anything},
		"input[].id":        {Doc: "Ignored, except where it names a call."},
		"input[].call_id":   {Doc: "Names the call of a tool."},
		"input[].name":      {Doc: "The tool."},
		"input[].namespace": {Doc: "Of the tool."},
		"input[].arguments": {Doc: "Of a call: JSON in a string, or an object.", Schema: anything},
		"input[].input":     {Doc: "Of a call of a custom tool."},
		"input[].action":    {Doc: "Of a call of a shell.", Schema: anything},
		"input[].operation": {Doc: "Of a call of apply_patch.", Schema: anything},
		"input[].output":    {Doc: "What a call gave: a text or parts; anything else counts as its JSON.", Schema: anything},
		"input[].error":     {Doc: "What went wrong with an mcp_call.", Schema: anything},
		"input[].status":    {Doc: "How a call ended."},

		"tools":               {Doc: fmt.Sprintf("Tools that the model may call, at most %d functions. Those that only OpenAI has are left out.", api.MaxTools), Entries: listedTool{}, MaxItems: maxListedTools},
		"tools[].type":        {Doc: "function, custom or namespace; others are left out.", Required: true, Schema: openapi.Text(1, 0)},
		"tools[].name":        {Doc: "Its name, which no other tool has; 1 to 128 letters, digits and _ - ."},
		"tools[].description": {Doc: "What it does, for the model."},
		"tools[].parameters":  {Doc: "Of a function: JSON schema of its arguments.", Schema: anything},
		"tools[].strict":      {Doc: "A schema that can't be obeyed is refused. Otherwise it is obeyed as far as it can be.", Default: false},
		"tools[].format":      {Doc: "Of a custom tool: what its input may be.", Schema: anything},
		"tools[].tools":       {Doc: "Of a namespace.", Schema: openapi.List(openapi.Map(&openapi.Schema{}), 0, api.MaxTools)},

		"tool_choice":           {Doc: "Whether tools may, must, or mustn't be called, or which one must be.", Schema: openapi.Words("none", "auto", "required"), Object: toolChoiceObject{}},
		"tool_choice.type":      {Doc: "function, custom: that one must be called. allowed_tools: only these count. Others mean nothing.", Required: true, Schema: openapi.Text(1, 0)},
		"tool_choice.name":      {Doc: "One of tools."},
		"tool_choice.namespace": {Doc: "Of the tool."},
		"tool_choice.mode":      {Doc: "With allowed_tools: auto or required."},
		"tool_choice.tools":     {Doc: "With allowed_tools: which ones.", Schema: openapi.List(openapi.Map(&openapi.Schema{}), 0, maxListedTools)},

		"text":                    {Doc: "What the answer has to be."},
		"text.format":             {Doc: "Its format."},
		"text.format.type":        {Doc: "text: anything. json_object: a JSON object. json_schema: JSON that fits a schema.", Required: true, Schema: openapi.Words("text", "json_object", "json_schema")},
		"text.format.name":        {Doc: "Repeated in the reply.", Schema: openapi.Text(0, api.MaxNameBytes)},
		"text.format.description": {Doc: "Repeated in the reply."},
		"text.format.schema":      {Doc: fmt.Sprintf("A JSON schema of at most %d bytes; required with the type json_schema.", api.MaxSchemaBytes), Schema: anything},

		"reasoning":        {Doc: "How the model thinks."},
		"reasoning.effort": {Doc: "A value for the chat template. none switches thinking off.", Schema: openapi.Text(0, api.MaxNameBytes)},
	}
}

func metadataSchema() *openapi.Schema {
	s := openapi.Map(openapi.Text(0, maxMetadataValue))
	s.PropertyNames, s.MaxProperties = openapi.Text(0, maxMetadataName), maxMetadata
	return s
}

func responseSchema() *openapi.Schema {
	text := func() *openapi.Schema { return openapi.Text(0, 0).OrNull() }
	open := openapi.Map(&openapi.Schema{})
	return openapi.Object(
		openapi.Has("id", openapi.Text(1, 0)), openapi.Has("object", openapi.Constant("response")),
		openapi.Has("created_at", openapi.Count().About("Unix time in seconds.")),
		openapi.Has("status", openapi.Words(inProgress, completed, incomplete, failed)),
		openapi.Has("background", openapi.Constant(false)),
		openapi.Has("completed_at", openapi.Count().OrNull()),
		openapi.Has("error", openapi.Object(
			openapi.Has("code", openapi.Words(serverError, rateLimited, invalidPrompt, contextExceeded)), openapi.Has("message", openapi.Text(1, 0)),
			openapi.Has("type", openapi.Words(api.Types()...)),
		).Named("ResponseError").OrNull().About("Of a response that failed.")),
		openapi.Has("incomplete_details", openapi.Object(openapi.Has("reason", openapi.Constant("max_output_tokens"))).OrNull()),
		openapi.Has("model", openapi.Text(1, 0)),
		openapi.Has("output", openapi.List(itemSchema(), 0, 0)),
		openapi.Has("usage", usageSchema().OrNull().About("null before the end.")),
		openapi.Has("instructions", text()), openapi.Has("max_output_tokens", openapi.Count().OrNull()), openapi.Has("max_tool_calls", openapi.Null()),
		openapi.Has("metadata", openapi.Map(openapi.Text(0, 0))), openapi.Has("parallel_tool_calls", openapi.Bool()),
		openapi.Has("previous_response_id", openapi.Null()), openapi.Has("prompt", openapi.Null()), openapi.Has("prompt_cache_key", text()),
		openapi.Has("reasoning", openapi.Object(openapi.Has("effort", text()), openapi.Has("summary", openapi.Null()))),
		openapi.Has("safety_identifier", text()), openapi.Has("service_tier", openapi.Constant("default")), openapi.Has("store", openapi.Constant(false)),
		openapi.Has("temperature", openapi.Number().OrNull()), openapi.Has("text", openapi.Object(openapi.Has("format", open))),
		openapi.Has("tool_choice", openapi.AnyOf(openapi.Text(1, 0), open)), openapi.Has("tools", openapi.List(open, 0, 0)),
		openapi.Has("top_logprobs", openapi.Count()), openapi.Has("top_p", openapi.Number().OrNull()),
		openapi.Has("truncation", openapi.Constant("disabled")), openapi.Has("user", text()), openapi.Timings(),
	).Named("Response")
}

func usageSchema() *openapi.Schema {
	return openapi.Object(
		openapi.Has("input_tokens", openapi.Count()),
		openapi.Has("input_tokens_details", openapi.Object(openapi.Has("cache_write_tokens", openapi.Constant(0)), openapi.Has("cached_tokens", openapi.Count().About("Taken from the KV cache.")))),
		openapi.Has("output_tokens", openapi.Count()),
		openapi.Has("output_tokens_details", openapi.Object(openapi.Has("reasoning_tokens", openapi.Count()))),
		openapi.Has("total_tokens", openapi.Count()),
	).Named("ResponseUsage")
}

// itemSchema is an item of the output.
func itemSchema() *openapi.Schema {
	item := func(kind itemKind, members ...openapi.Property) *openapi.Schema {
		return openapi.Object(append([]openapi.Property{
			openapi.Has("id", openapi.Text(1, 0)), openapi.Has("type", openapi.Constant(namesOfItems[kind].kind)),
			openapi.Has("status", openapi.Words(inProgress, completed, incomplete)),
		}, members...)...)
	}
	call := []openapi.Property{openapi.Has("call_id", openapi.Text(1, 0)), openapi.Has("name", openapi.ToolNames()), openapi.May("namespace", openapi.Text(1, 0))}
	return openapi.AnyOf(
		item(reasoningItem, openapi.Has("summary", openapi.Constant([]string{})), openapi.Has("content", openapi.List(reasoningPart(), 0, 1))),
		item(messageItem, openapi.Has("role", openapi.Constant("assistant")), openapi.Has("content", openapi.List(textPart(), 0, 1))),
		item(callItem, append(call[:len(call):len(call)], openapi.Has("arguments", openapi.Text(0, 0)))...),
		item(customCallItem, append(call[:len(call):len(call)], openapi.Has("input", openapi.Text(0, 0)))...),
	).Named("ResponseItem")
}

func reasoningPart() *openapi.Schema {
	return openapi.Object(openapi.Has("type", openapi.Constant("reasoning_text")), openapi.Has("text", openapi.Text(0, 0)))
}

func textPart() *openapi.Schema {
	return openapi.Object(openapi.Has("type", openapi.Constant("output_text")), openapi.Has("text", openapi.Text(0, 0)),
		openapi.Has("annotations", openapi.Constant([]string{})), openapi.Has("logprobs", openapi.List(logprobSchema(), 0, 0))).Named("OutputText")
}

func logprobSchema() *openapi.Schema {
	one := func(more ...openapi.Property) *openapi.Schema {
		return openapi.Object(append([]openapi.Property{
			openapi.Has("token", openapi.Text(0, 0)), openapi.Has("bytes", openapi.List(openapi.Integer(0, 255), 0, 0)), openapi.Has("logprob", openapi.Range(lowestLogprob, 0)),
		}, more...)...)
	}
	return one(openapi.Has("top_logprobs", openapi.List(one(), 0, api.MaxTopLogprobs))).Named("ResponseLogprob")
}

// eventSchemas are the data of the events of a stream.
func eventSchemas() map[string]*openapi.Schema {
	list := map[string]*openapi.Schema{}
	add := func(kind string, members ...openapi.Property) {
		list[kind] = openapi.Object(append([]openapi.Property{openapi.Has("type", openapi.Constant(kind)), openapi.Has("sequence_number", openapi.Count())}, members...)...)
	}
	for _, kind := range []string{"created", "in_progress", completed, incomplete, failed} {
		add("response."+kind, openapi.Has("response", responseSchema()))
	}
	text, output := openapi.Text(0, 0), openapi.Has("output_index", openapi.Count().About("Which item."))
	item := []openapi.Property{openapi.Has("item_id", openapi.Text(1, 0)), output}
	part := append(item[:2:2], openapi.Has("content_index", openapi.Constant(0)))
	with := func(members []openapi.Property, more ...openapi.Property) []openapi.Property {
		return append(members[:len(members):len(members)], more...)
	}
	add("response.output_item.added", output, openapi.Has("item", itemSchema()))
	add("response.output_item.done", output, openapi.Has("item", itemSchema()))
	anyPart := openapi.Has("part", openapi.AnyOf(textPart(), reasoningPart()))
	add("response.content_part.added", with(part, anyPart)...)
	add("response.content_part.done", with(part, anyPart)...)
	logprobs := openapi.Has("logprobs", openapi.List(logprobSchema(), 0, 0))
	add(namesOfItems[messageItem].delta, with(part, openapi.Has("delta", text), logprobs, openapi.TokenTimings())...)
	add(namesOfItems[messageItem].done, with(part, openapi.Has("text", text), logprobs)...)
	add(namesOfItems[reasoningItem].delta, with(part, openapi.Has("delta", text), openapi.TokenTimings())...)
	add(namesOfItems[reasoningItem].done, with(part, openapi.Has("text", text))...)
	add(namesOfItems[callItem].delta, with(item, openapi.Has("delta", text), openapi.TokenTimings())...)
	add(namesOfItems[callItem].done, with(item, openapi.Has("name", openapi.ToolNames()), openapi.Has("arguments", text))...)
	add(namesOfItems[customCallItem].delta, with(item, openapi.Has("delta", text), openapi.TokenTimings())...)
	add(namesOfItems[customCallItem].done, with(item, openapi.Has("input", text))...)
	return list
}
