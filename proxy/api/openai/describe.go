package openai

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"tandem/proxy/api"
	"tandem/proxy/openapi"
)

// Errors is the form of errors of this dialect.
func Errors() openapi.ErrorForm {
	kinds, codes := []string{}, []string{}
	for _, t := range api.Types() {
		f := formOf(t)
		kinds = append(kinds, f.kind)
		if f.code != "" {
			codes = append(codes, f.code)
		}
	}
	slices.Sort(kinds)
	slices.Sort(codes)
	return openapi.ErrorForm{
		Member: "code",
		Code:   func(t api.Type) string { return formOf(t).code },
		Schema: openapi.Object(openapi.Has("error", openapi.Object(
			openapi.Has("message", openapi.Text(1, 0).About("What went wrong, for people.")),
			openapi.Has("type", openapi.Words(slices.Compact(kinds)...).About("The kind of error.")),
			openapi.Has("param", openapi.Text(0, 0).OrNull().About("The field to blame, with its place, such as messages[2].role; null: none.")),
			openapi.Has("code", openapi.Words(slices.Compact(codes)...).OrNull().About("What went wrong, for programs; null: a field has to be mended.")),
		))).Named("OpenAIError"),
	}
}

// Endpoints describes the endpoints for OpenAI's clients.
func Endpoints() ([]openapi.Endpoint, error) {
	var list []openapi.Endpoint
	for _, describe := range []func() (openapi.Endpoint, error){chatEndpoint, completionEndpoint, embeddingEndpoint, rerankEndpoint, countEndpoint} {
		e, err := describe()
		if err != nil {
			return nil, err
		}
		e.Tag, e.Errors = "openai", Errors()
		list = append(list, e)
	}
	return append(list, modelEndpoints()...), nil
}

func chatEndpoint() (openapi.Endpoint, error) {
	body, err := ChatBody()
	return openapi.Endpoint{
		Path: "/v1/chat/completions", ID: "chatCompletions",
		Summary: "The next message of a conversation",
		Doc:     "As OpenAI's API has it. Fields that aren't listed are ignored.",
		Body:    body, Examples: chatExamples(),
		Replies: []openapi.Reply{{
			Status: 200, Doc: "The message.", Headers: append(openapi.InferenceHeaders(), "X-Stream-Id"),
			Content: openapi.WholeOrStream(chatReply(), &openapi.Events{Data: openapi.AnyOf(chatChunk(), Errors().Schema), Last: "[DONE]"}),
		}},
	}.Inference(), err
}

// ChatBody is the schema of the body of a chat.
func ChatBody() (*openapi.Schema, error) {
	body, err := openapi.BodyOf(chatBody{}, chatFields())
	if err != nil {
		return nil, fmt.Errorf("describe the body of /v1/chat/completions: %w", err)
	}
	return body.Named("ChatRequest"), nil
}

func completionEndpoint() (openapi.Endpoint, error) {
	body, err := openapi.BodyOf(completionBody{}, completionFields())
	if err != nil {
		return openapi.Endpoint{}, fmt.Errorf("describe the body of /v1/completions: %w", err)
	}
	return openapi.Endpoint{
		Path: "/v1/completions", ID: "completions",
		Summary: "Goes on with a text",
		Doc:     "As OpenAI's API has it: no chat template. Fields that aren't listed are ignored.",
		Body:    body.Named("CompletionRequest"), Examples: completionExamples(),
		Replies: []openapi.Reply{{
			Status: 200, Doc: "The text.", Headers: append(openapi.InferenceHeaders(), "X-Stream-Id"),
			Content: openapi.WholeOrStream(completionReply(), &openapi.Events{Data: openapi.AnyOf(completionReply(), Errors().Schema), Last: "[DONE]"}),
		}},
	}.Inference(), nil
}

func embeddingEndpoint() (openapi.Endpoint, error) {
	body, err := openapi.BodyOf(embeddingBody{}, openapi.Fields{
		"model":           {Doc: modelDoc, Schema: openapi.ModelNames()},
		"input":           {Doc: "One text or several, as texts or as token ids.", Required: true, Schema: promptSchema()},
		"encoding_format": {Doc: "float: a list of numbers. base64: 32-bit numbers, lowest byte first.", Schema: openapi.Words("float", "base64"), Default: "float"},
		"dimensions":      {Doc: "Only so many of the first numbers, brought to length 1 again.", Schema: openapi.Integer(1, math.MaxInt32)},
	})
	if err != nil {
		return openapi.Endpoint{}, fmt.Errorf("describe the body of /v1/embeddings: %w", err)
	}
	entry := openapi.Object(
		openapi.Has("object", openapi.Constant("embedding")), openapi.Has("index", openapi.Count().About("Which of the inputs.")),
		openapi.Has("embedding", openapi.AnyOf(openapi.List(openapi.Number(), 1, 0), openapi.Text(1, 0))),
	)
	return openapi.Endpoint{
		Path: "/v1/embeddings", ID: "embeddings", Summary: "Embeddings of texts", Doc: "Fields that aren't listed are ignored.",
		Body:     body.Named("EmbeddingRequest"),
		Examples: []openapi.Example{{Name: "text", Summary: "A text, two numbers of it", Body: `{"model":"demo:base","input":"The capital of France","dimensions":2}`}},
		Replies: wholeReply("The embeddings.", openapi.Object(
			openapi.Has("object", openapi.Constant("list")), openapi.Has("data", openapi.List(entry, 1, 0)),
			openapi.Has("model", openapi.Text(1, 0)), openapi.Has("usage", promptUsage()),
		).Named("EmbeddingReply")),
	}.Inference(), nil
}

func rerankEndpoint() (openapi.Endpoint, error) {
	document := openapi.AnyOf(openapi.Text(0, 0), openapi.Object(openapi.Has("text", openapi.Text(0, 0))))
	body, err := openapi.BodyOf(rerankBody{}, openapi.Fields{
		"model":            {Doc: modelDoc, Schema: openapi.ModelNames()},
		"query":            {Doc: "What is looked for.", Required: true, Schema: openapi.Text(1, 0)},
		"documents":        {Doc: "What may fit it.", Required: true, Schema: openapi.List(document, 1, api.MaxInputs)},
		"top_n":            {Doc: "Only so many of the best.", Schema: openapi.IntegerFrom(1)},
		"return_documents": {Doc: "Repeats the documents in the reply.", Default: false},
		"raw_scores":       {Doc: "Scores as the model gives them, not between 0 and 1.", Default: false},
	})
	if err != nil {
		return openapi.Endpoint{}, fmt.Errorf("describe the body of /v1/rerank: %w", err)
	}
	result := openapi.Object(
		openapi.Has("index", openapi.Count().About("Which of the documents.")), openapi.Has("relevance_score", openapi.Number()),
		openapi.May("document", openapi.Object(openapi.Has("text", openapi.Text(0, 0)))),
	)
	return openapi.Endpoint{
		Path: "/v1/rerank", ID: "rerank", Summary: "How well documents fit a query", Doc: "Not in OpenAI's API. Fields that aren't listed are ignored.",
		Body: body.Named("RerankRequest"),
		Examples: []openapi.Example{{Name: "documents", Summary: "Two documents, at a model that isn't a reranker",
			Body: `{"model":"demo:base","query":"What is the capital of France?","documents":["Paris",{"text":"Rome"}],"return_documents":true}`}},
		Replies: wholeReply("The documents, the best first.", openapi.Object(
			openapi.Has("object", openapi.Constant("list")), openapi.Has("model", openapi.Text(1, 0)),
			openapi.Has("results", openapi.List(result, 1, 0)), openapi.Has("usage", promptUsage()),
		).Named("RerankReply")),
	}.Inference(), nil
}

func wholeReply(doc string, s *openapi.Schema) []openapi.Reply {
	return []openapi.Reply{{Status: 200, Doc: doc, Headers: openapi.InferenceHeaders(), Content: []openapi.Content{{Type: "application/json", Schema: s}}}}
}

func promptUsage() *openapi.Schema {
	return openapi.Object(openapi.Has("prompt_tokens", openapi.Count()), openapi.Has("total_tokens", openapi.Count())).Named("PromptUsage")
}

func countEndpoint() (openapi.Endpoint, error) {
	body, err := ChatBody()
	return openapi.Endpoint{
		Path: "/v1/chat/completions/input_tokens", ID: "chatInputTokens", Summary: "How many tokens a conversation has",
		Body:     body,
		Examples: []openapi.Example{{Name: "count", Summary: "A question", Body: `{"model":"demo:v1.0","messages":[{"role":"user","content":"What is the capital of France?"}]}`}},
		Replies:  openapi.JSONReply("The number.", openapi.Object(openapi.Has("input_tokens", openapi.Count())).Named("InputTokens")),
	}.Call(), err
}

func modelEndpoints() []openapi.Endpoint {
	models := openapi.Object(openapi.Has("object", openapi.Constant("list")), openapi.Has("data", openapi.List(modelEntry(), 0, 0))).Named("OpenAIModels")
	id := openapi.Parameter{Name: "id", In: "path", Required: true, Schema: openapi.Text(1, 0),
		Description: "The name of a model, or name and version with a colon between them. Slashes may stand as they are."}
	streamID := openapi.Parameter{Name: "id", In: "path", Required: true, Schema: openapi.Text(1, 0), Description: "X-Stream-Id of the stream."}
	lastEvent := openapi.Parameter{Name: "Last-Event-ID", In: "header", Schema: openapi.Text(0, 0), Description: "The id of the last event that was read; without it the stream comes from its start."}
	stream := openapi.WholeOrStream(nil, &openapi.Events{Data: openapi.AnyOf(chatChunk(), completionReply(), Errors().Schema), Last: "[DONE]"})[1:]
	return []openapi.Endpoint{
		{
			Method: "get", Path: "/v1/streams/{id}", ID: "resumeStream", Tag: "openai", Key: true, Summary: "The rest of a stream",
			Doc:        "Of one that was begun with stream_options.resume and the same key, at any endpoint that has the field. The events are those of that endpoint; here the ones of chats and completions are described.",
			Parameters: append([]openapi.Parameter{streamID, lastEvent}, openapi.CommonParameters()...),
			Examples: []openapi.Example{
				{Name: "rest", Summary: "A stream from its start", Path: "/v1/streams/{id}"},
				{Name: "unknown", Summary: "A stream that isn't kept", Path: "/v1/streams/nothing"},
			},
			Replies: []openapi.Reply{{Status: 200, Doc: "The events.", Headers: []string{"X-Model-Revision", "X-Stream-Id"}, Content: stream}},
			Errors:  Errors(), ErrorTypes: openapi.ConnectionErrors(api.TypeUnauthorized, api.TypeNotFound),
		},
		{
			Method: "get", Path: "/v1/models", ID: "listModels", Tag: "openai", Summary: "Every name that model can have",
			Parameters: openapi.CommonParameters(), Examples: []openapi.Example{{Name: "models", Summary: "The models"}},
			Replies: openapi.JSONReply("The names.", models), Errors: Errors(), ErrorTypes: openapi.ConnectionErrors(),
		},
		{
			Method: "get", Path: "/v1/models/{id}", ID: "getModel", Tag: "openai", Summary: "One of them",
			Parameters: append([]openapi.Parameter{id}, openapi.CommonParameters()...),
			Examples: []openapi.Example{
				{Name: "model", Summary: "One model", Path: "/v1/models/demo:v1.0"},
				{Name: "unknown", Summary: "A model that isn't installed", Path: "/v1/models/nothing"},
			},
			Replies: openapi.JSONReply("The name.", modelEntry()), Errors: Errors(), ErrorTypes: openapi.ConnectionErrors(api.TypeModelNotFound),
		},
	}
}

const modelDoc = "The name of a model, or name and version with a colon between them. Default: DEFAULT_MODEL."

func chatExamples() []openapi.Example {
	const question = `"model":"demo:v1.0","messages":[{"role":"user","content":"What is the capital of France?"}],"max_tokens":64,"temperature":0,"seed":7`
	return []openapi.Example{
		{Name: "answer", Summary: "A question", Body: `{` + question + `}`},
		{Name: "stream", Summary: "The same as a stream", Body: `{` + question + `,"stream":true,"stream_options":{"include_usage":true}}`},
		{Name: "logprobs", Summary: "With log-probabilities", Body: `{"model":"demo:v1.0","messages":[{"role":"user","content":"Say hi."}],"max_tokens":2,"temperature":0,"seed":7,"logprobs":true,"top_logprobs":1}`},
		{Name: "bad_role", Summary: "A role that there isn't", Body: `{"model":"demo:v1.0","messages":[{"role":"robot","content":"Hi"}]}`},
	}
}

func completionExamples() []openapi.Example {
	return []openapi.Example{
		{Name: "text", Summary: "A text to go on with", Body: `{"model":"demo:base","prompt":"The capital of France is","max_tokens":8,"temperature":0,"seed":7}`},
		{Name: "stream", Summary: "The same as a stream", Body: `{"model":"demo:base","prompt":"The capital of France is","max_tokens":8,"temperature":0,"seed":7,"stream":true}`},
	}
}

// parameterFields are the fields of both endpoints.
func parameterFields() openapi.Fields {
	const penalty = " -2 to 2; 0: off."
	return openapi.Fields{
		"model":              {Doc: modelDoc, Schema: openapi.ModelNames()},
		"max_tokens":         {Doc: "How many tokens the answer may have. Cut to what the context has left.", Schema: openapi.IntegerFrom(1)},
		"temperature":        {Doc: "0 always takes the most likely token. Default: the model's, then 1.", Schema: openapi.Range(0, api.MaxTemperature)},
		"top_p":              {Doc: "Only the most likely tokens that have this probability together; 1: off. Default: the model's, then 1.", Schema: openapi.Range(0, 1)},
		"top_k":              {Doc: "Only that many of the most likely tokens; 0: off. Not in OpenAI's API.", Schema: openapi.Integer(0, api.MaxTopK)},
		"min_p":              {Doc: "Only tokens that have this share of the most likely one's probability; 0: off. Not in OpenAI's API.", Schema: openapi.Range(0, 1)},
		"repeat_penalty":     {Doc: "Makes tokens that were among the last 64 less likely; 1: off. Not in OpenAI's API.", Schema: openapi.Above(0, api.MaxPenalty)},
		"repetition_penalty": {Doc: "Another name of repeat_penalty, which goes over it.", Schema: openapi.Above(0, api.MaxPenalty)},
		"presence_penalty":   {Doc: "Subtracted once from the logits of tokens that the answer has." + penalty, Schema: openapi.Range(-api.MaxPenalty, api.MaxPenalty)},
		"frequency_penalty":  {Doc: "Subtracted from the logits of tokens as often as the answer has them." + penalty, Schema: openapi.Range(-api.MaxPenalty, api.MaxPenalty)},
		"seed":               {Doc: "Equal requests with equal seeds draw alike. Its lowest 53 bits count. Default: a random one.", Schema: openapi.Integer(math.MinInt64, math.MaxInt64)},
		"stop":               {Doc: "The answer ends before the first of these texts.", Schema: openapi.StopStrings()},
		"stream":             {Doc: "Answer as server-sent events.", Default: false},

		"stream_options":               {Doc: "What a stream has besides text."},
		"stream_options.resume":        {Doc: "Seconds for which the stream is kept for GET /v1/streams/{id} while nobody reads it. Not in OpenAI's API.", Schema: openapi.Integer(0, int64(api.MaxResumeSeconds))},
		"stream_options.include_usage": {Doc: "A last chunk with the numbers of tokens.", Default: false},

		"json_schema":                        {Doc: "The same as response_format with that schema. Not in OpenAI's API.", Schema: openapi.Map(&openapi.Schema{})},
		"timings_per_token":                  {Doc: "Whether the reply and each chunk with text have the engine's times. Not in OpenAI's API.", Default: false},
		"response_format.schema":             {Doc: "With json_object: what it has to be. Not in OpenAI's API.", Schema: openapi.Map(&openapi.Schema{})},
		"response_format":                    {Doc: "What the answer has to be. Not together with grammar."},
		"response_format.type":               {Doc: "text: anything. json_object: a JSON object. json_schema: JSON that fits a schema.", Required: true, Schema: openapi.Words("text", "json_object", "json_schema")},
		"response_format.json_schema":        {Doc: "Required with the type json_schema. Its other members are ignored."},
		"response_format.json_schema.schema": {Doc: fmt.Sprintf("A JSON schema of at most %d bytes.", api.MaxSchemaBytes), Required: true, Schema: openapi.Map(&openapi.Schema{})},

		"n":          {Doc: "How many answers.", Schema: openapi.Integer(1, api.MaxChoices), Default: 1},
		"logit_bias": {Doc: "What is added to the logits of tokens, by their ids.", Schema: logitBiasSchema()},
		"ignore_eos": {Doc: "The end token is never drawn. Not in OpenAI's API.", Default: false},
		"grammar":    {Doc: "A grammar (GBNF) that the answer has to follow. Not in OpenAI's API.", Schema: openapi.Text(0, api.MaxSchemaBytes)},
	}
}

func logitBiasSchema() *openapi.Schema {
	s := openapi.Map(openapi.Range(-maxLogitBias, maxLogitBias))
	s.PropertyNames, s.MaxProperties = openapi.Matching("^[0-9]{1,9}$"), api.MaxLogitBias
	return s
}

func chatFields() openapi.Fields {
	fields := parameterFields()
	const noTools = "Not supported: use tools and tool_choice."
	const textOnly = "Not supported: there is only text."
	maps.Copy(fields, openapi.Fields{
		"messages":                                   {Doc: fmt.Sprintf("The conversation, of at most %d bytes of text.", api.MaxPromptBytes), Required: true, Entries: chatMessage{}, MinItems: 1, MaxItems: api.MaxMessages},
		"messages[].role":                            {Doc: "Who says it. developer is another word for system.", Required: true, Schema: openapi.Words("system", "developer", "user", "assistant", "tool")},
		"messages[].content":                         {Doc: "What is said. Parts are joined without anything between them. Only an assistant's may be null.", Schema: openapi.Text(0, api.MaxPromptBytes), Entries: contentPart{}},
		"messages[].content[].type":                  {Doc: "Only text is supported.", Required: true, Schema: openapi.Words("text")},
		"messages[].content[].text":                  {Doc: "The text.", Required: true},
		"messages[].reasoning_content":               {Doc: "What an assistant thought."},
		"messages[].name":                            {Doc: "Of a tool's message: the function. Otherwise ignored."},
		"messages[].tool_call_id":                    {Doc: "Which call a tool's message answers; required there."},
		"messages[].tool_calls":                      {Doc: "What an assistant called; ignored in other messages.", MaxItems: api.MaxToolCalls},
		"messages[].tool_calls[].id":                 {Doc: "Names the call."},
		"messages[].tool_calls[].type":               {Doc: "Only functions are supported.", Schema: openapi.Words("function")},
		"messages[].tool_calls[].function":           {Doc: "The call.", Required: true},
		"messages[].function_call":                   {Doc: noTools, Schema: openapi.Unsupported()},
		"messages[].audio":                           {Doc: textOnly, Schema: openapi.Unsupported()},
		"messages[].tool_calls[].function.name":      {Doc: "The function.", Required: true, Schema: openapi.ToolNames()},
		"messages[].tool_calls[].function.arguments": {Doc: "JSON in a string, or an object.", Schema: openapi.AnyOf(openapi.Text(0, 0), openapi.Map(&openapi.Schema{}))},

		"max_completion_tokens": {Doc: "The newer name of max_tokens, which goes over it.", Schema: openapi.IntegerFrom(1)},
		"logprobs":              {Doc: "The log-probabilities of the answer's tokens.", Default: false},
		"top_logprobs":          {Doc: "And of the most likely tokens at each place. Needs logprobs.", Schema: openapi.Integer(0, api.MaxTopLogprobs)},

		"tools":                        {Doc: "Functions that the model may call.", MaxItems: api.MaxTools},
		"tools[].type":                 {Doc: "Only functions are supported.", Required: true, Schema: openapi.Words("function")},
		"tools[].function":             {Doc: "The function.", Required: true},
		"tools[].function.name":        {Doc: "Its name, which no other tool has.", Required: true, Schema: openapi.ToolNames()},
		"tools[].function.description": {Doc: "What it does, for the model."},
		"tools[].function.parameters":  {Doc: fmt.Sprintf("JSON schema of its arguments, of at most %d bytes.", api.MaxSchemaBytes), Schema: openapi.Map(&openapi.Schema{})},
		"tools[].function.strict":      {Doc: "A schema that can't be obeyed is refused. Otherwise it is obeyed as far as it can be.", Default: false},

		"tool_choice":                     {Doc: "Whether tools may, must, or mustn't be called, or which one must be.", Schema: openapi.Words("none", "auto", "required"), Object: toolChoiceObject{}},
		"tool_choice.type":                {Doc: "function: that one must be called. allowed_tools: only these count.", Required: true, Schema: openapi.Words("function", "allowed_tools")},
		"tool_choice.function":            {Doc: "Of the type function."},
		"tool_choice.function.name":       {Doc: "One of tools."},
		"tool_choice.allowed_tools":       {Doc: "Of the type allowed_tools."},
		"tool_choice.allowed_tools.mode":  {Doc: "Whether one of them must be called.", Schema: openapi.Words("none", "auto", "required")},
		"tool_choice.allowed_tools.tools": {Doc: "Which ones."},

		"tool_choice.allowed_tools.tools[].type":          {Doc: "Always function."},
		"tool_choice.allowed_tools.tools[].function":      {Doc: "The function.", Required: true},
		"tool_choice.allowed_tools.tools[].function.name": {Doc: "One of tools.", Required: true},

		"parallel_tool_calls":  {Doc: "More than one call in an answer.", Default: true},
		"chat_template_kwargs": {Doc: fmt.Sprintf("Values for the chat template, of at most %d bytes. Not in OpenAI's API.", maxTemplateOptionBytes), Schema: openapi.Map(&openapi.Schema{})},
		"reasoning_effort":     {Doc: "A value for the chat template. none switches thinking off as well.", Schema: openapi.Text(0, api.MaxNameBytes)},
		"enable_thinking":      {Doc: "A value for the chat template. Not in OpenAI's API."},

		"continue_final_message": {Doc: "The answer goes on with the text of the last message, which is the assistant's. Not in OpenAI's API.", Default: false},

		"functions":          {Doc: noTools, Schema: openapi.Unsupported()},
		"function_call":      {Doc: noTools, Schema: openapi.Unsupported("none", "auto")},
		"modalities":         {Doc: textOnly, Schema: openapi.Unsupported([]string{"text"})},
		"audio":              {Doc: textOnly, Schema: openapi.Unsupported()},
		"web_search_options": {Doc: "Not supported.", Schema: openapi.Unsupported()},
	})
	return fields
}

func completionFields() openapi.Fields {
	fields := parameterFields()
	maps.Copy(fields, openapi.Fields{
		"prompt":     {Doc: "One prompt or several, as texts or as token ids. n times their number is at most " + fmt.Sprint(api.MaxInputs) + ".", Required: true, Schema: promptSchema()},
		"max_tokens": {Doc: "How many tokens the answer may have. Cut to what the context has left. 0 only with echo: the prompt alone.", Schema: openapi.IntegerFrom(0), Default: defaultCompletionTokens},
		"best_of":    {Doc: "The same as n.", Schema: openapi.Integer(1, api.MaxChoices)},
		"echo":       {Doc: "Repeats the prompt before the answer. With logprobs or token ids not in a stream.", Default: false},
		"logprobs":   {Doc: "The log-probabilities of the tokens, and of so many of the most likely ones at each place.", Schema: openapi.Integer(0, api.MaxTopLogprobs)},
		"suffix":     {Doc: "Not supported.", Schema: openapi.Unsupported("")},
	})
	return fields
}

func promptSchema() *openapi.Schema {
	text := openapi.Text(1, api.MaxPromptBytes)
	tokens := openapi.List(openapi.Integer(0, math.MaxInt32), 1, 0)
	return openapi.AnyOf(text, tokens, openapi.List(openapi.AnyOf(text, tokens), 1, api.MaxInputs))
}

// envelopeMembers are the members that whole replies and chunks have in common.
func envelopeMembers(object string) []openapi.Property {
	return []openapi.Property{
		openapi.Has("id", openapi.Text(1, 0).About("A prefix and the request's id.")),
		openapi.Has("object", openapi.Constant(object)),
		openapi.Has("created", openapi.Count().About("When the request came, Unix time in seconds.")),
		openapi.Has("model", openapi.Text(1, 0).About("The model and version that were used.")),
		openapi.May("system_fingerprint", openapi.Matching("^fp_[0-9a-f]+$").About("Names the model's files.")),
	}
}

func usageSchema() *openapi.Schema {
	return openapi.Object(
		openapi.Has("prompt_tokens", openapi.Count().About("Tokens of the prompts; each counts once.")),
		openapi.Has("completion_tokens", openapi.Count().About("Tokens of all answers, end tokens included.")),
		openapi.Has("total_tokens", openapi.Count().About("Both together.")),
		openapi.Has("prompt_tokens_details", openapi.Object(openapi.Has("cached_tokens", openapi.Count().About("Taken from the KV cache.")))),
		openapi.Has("completion_tokens_details", openapi.Object(openapi.Has("reasoning_tokens", openapi.Count().About("What the model thought.")))),
	).Named("Usage")
}

func chatFinishReasons() *openapi.Schema {
	return openapi.Words("stop", "length", "tool_calls")
}

func toolCallSchema() *openapi.Schema {
	return openapi.Object(
		openapi.Has("id", openapi.Text(1, 0)), openapi.Has("type", openapi.Constant("function")),
		openapi.Has("function", openapi.Object(openapi.Has("name", openapi.ToolNames()), openapi.Has("arguments", openapi.Text(0, 0).About("JSON, as the model wrote it.")))),
	).Named("ToolCall")
}

func chatReply() *openapi.Schema {
	message := openapi.Object(
		openapi.Has("role", openapi.Constant("assistant")),
		openapi.Has("content", openapi.Text(0, 0).OrNull().About("The answer; null where there are only tool calls.")),
		openapi.May("reasoning_content", openapi.Text(1, 0).About("What the model thought.")),
		openapi.May("tool_calls", openapi.List(toolCallSchema(), 1, 0)),
		openapi.Has("refusal", openapi.Null()),
	)
	choice := openapi.Object(
		openapi.Has("index", openapi.Count()), openapi.Has("message", message),
		openapi.Has("logprobs", chatLogprobs().OrNull()), openapi.Has("finish_reason", chatFinishReasons()),
	)
	return openapi.Object(append(envelopeMembers("chat.completion"),
		openapi.Has("choices", openapi.List(choice, 1, 0)), openapi.Has("usage", usageSchema()), openapi.Timings())...).Named("ChatReply")
}

func chatChunk() *openapi.Schema {
	delta := openapi.Object(
		openapi.May("role", openapi.Constant("assistant")),
		openapi.May("content", openapi.Text(0, 0)),
		openapi.May("reasoning_content", openapi.Text(1, 0)),
		openapi.May("tool_calls", openapi.List(openapi.Object(
			openapi.Has("index", openapi.Count().About("Which call of the answer.")), openapi.May("id", openapi.Text(1, 0)), openapi.May("type", openapi.Constant("function")),
			openapi.Has("function", openapi.Object(openapi.May("name", openapi.ToolNames()), openapi.Has("arguments", openapi.Text(0, 0)))),
		), 1, 1)),
	)
	choice := openapi.Object(
		openapi.Has("index", openapi.Count()), openapi.Has("delta", delta),
		openapi.Has("logprobs", chatLogprobs().OrNull()), openapi.Has("finish_reason", chatFinishReasons().OrNull()),
	)
	return openapi.Object(append(envelopeMembers("chat.completion.chunk"),
		openapi.Has("choices", openapi.List(choice, 0, 1).About("One, or none in the chunk with the usage.")),
		openapi.May("usage", usageSchema().OrNull()), openapi.Timings())...).Named("ChatChunk")
}

// chatLogprobs are those of a chat.
func chatLogprobs() *openapi.Schema {
	one := func(more ...openapi.Property) *openapi.Schema {
		return openapi.Object(append([]openapi.Property{
			openapi.Has("token", openapi.Text(0, 0).About("Its text.")),
			openapi.Has("logprob", logprobSchema()),
			openapi.Has("bytes", openapi.List(openapi.Integer(0, 255), 0, 0).About("Its bytes, maybe a part of a character.")),
		}, more...)...)
	}
	return openapi.Object(
		openapi.Has("content", openapi.List(one(openapi.Has("top_logprobs", openapi.List(one(), 0, api.MaxTopLogprobs))), 0, 0)),
		openapi.Has("refusal", openapi.Null()),
	).Named("ChatLogprobs")
}

func logprobSchema() *openapi.Schema {
	return openapi.Range(lowestLogprob, 0).About("Natural logarithm; -9999 for a probability of zero.")
}

// completionReply is a whole reply, or a chunk.
func completionReply() *openapi.Schema {
	logprobs := openapi.Object(
		openapi.Has("tokens", openapi.List(openapi.Text(0, 0), 0, 0)),
		openapi.Has("token_logprobs", openapi.List(logprobSchema().OrNull(), 0, 0)),
		openapi.Has("top_logprobs", openapi.List(openapi.Map(logprobSchema()).OrNull(), 0, 0).OrNull()),
		openapi.Has("text_offset", openapi.List(openapi.Count(), 0, 0).About("Where each token begins, in characters.")),
	).Named("CompletionLogprobs")
	choice := openapi.Object(
		openapi.Has("text", openapi.Text(0, 0)), openapi.Has("index", openapi.Count()),
		openapi.Has("logprobs", logprobs.OrNull()),
		openapi.Has("finish_reason", openapi.Words(api.FinishStop, api.FinishLength).OrNull().About("null in chunks that aren't the choice's last.")),
	)
	return openapi.Object(append(envelopeMembers(textCompletion),
		openapi.Has("choices", openapi.List(choice, 0, 0).About("In chunks one, or none in that with the usage.")),
		openapi.May("usage", usageSchema().OrNull().About("Always in a whole reply.")), openapi.Timings())...).Named("CompletionReply")
}

func modelEntry() *openapi.Schema {
	return openapi.Object(
		openapi.Has("id", openapi.Text(1, 0).About("What model has to be.")),
		openapi.Has("object", openapi.Constant("model")),
		openapi.Has("created", openapi.Count().About("The same for all: models don't say when they were made.")),
		openapi.Has("owned_by", openapi.Constant("tandem")),
		openapi.May("context_length", openapi.IntegerFrom(1).About("Tokens; absent until the model was loaded once.")),
		openapi.May("size_bytes", openapi.IntegerFrom(1).About("Of the base model's files.")),
		openapi.May("quantization", openapi.Text(1, 0).About("As the file's header says.")),
		openapi.May("architecture", openapi.Text(1, 0)),
		openapi.May("capabilities", openapi.List(openapi.Words(api.CapabilityChat, api.CapabilityCompletion, api.CapabilityTools, api.CapabilityReasoning,
			api.CapabilityEmbeddings, api.CapabilityRerank), 0, 0).About("Before a load what the model's file tells; absent where it tells nothing.")),
		openapi.Has("state", openapi.Words(api.StateLoaded, api.StateLoading, api.StateNotLoaded)),
	).Named("OpenAIModel")
}
