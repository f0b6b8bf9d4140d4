package e2e

// answerKind is what an answer in a test of the dialects consists of.
type answerKind uint8

const (
	plainAnswer      answerKind = iota // text
	thoughtAnswer                      // reasoning, then text
	twoCallsAnswer                     // reasoning, then two calls
	everythingAnswer                   // reasoning, text (which the mock leaves out), two calls
)

// The functions that requests offer, with the schema of their arguments.
var (
	citySchema = map[string]any{"type": "object", "required": []string{"city"}, "additionalProperties": false,
		"properties": map[string]any{"city": map[string]any{"type": "string", "maxLength": 20}}}
	chatTools = []any{
		map[string]any{"type": "function", "function": map[string]any{"name": "get_weather", "description": "Weather of a city", "parameters": citySchema}},
		map[string]any{"type": "function", "function": map[string]any{"name": "get_time", "parameters": citySchema}},
	}
	responsesTools = []any{
		map[string]any{"type": "function", "name": "get_weather", "description": "Weather of a city", "parameters": citySchema},
		map[string]any{"type": "function", "name": "get_time", "parameters": citySchema},
	}
	messagesTools = []any{
		map[string]any{"name": "get_weather", "description": "Weather of a city", "input_schema": citySchema},
		map[string]any{"name": "get_time", "input_schema": citySchema},
	}
)

// chatRequest, completionRequest and so on are bodies that get an answer of a kind.
func chatRequest(kind answerKind) map[string]any {
	model, message := asks(kind)
	return map[string]any{"model": model, "messages": []any{map[string]any{"role": "user", "content": message}}, "seed": 7,
		"stream": true, "stream_options": map[string]any{"include_usage": true}, "max_tokens": 300}
}

func completionRequest(kind answerKind) map[string]any {
	model, message := asks(kind)
	return map[string]any{"model": model, "prompt": message, "seed": 7, "stream": true,
		"stream_options": map[string]any{"include_usage": true}, "max_tokens": 60}
}

func responsesRequest(kind answerKind) map[string]any {
	model, message := asks(kind)
	return map[string]any{"model": model, "input": message, "seed": 7, "stream": true, "max_output_tokens": 300}
}

func messagesRequest(kind answerKind) map[string]any {
	model, message := asks(kind)
	return map[string]any{"model": model, "messages": []any{map[string]any{"role": "user", "content": message}},
		"stream": true, "max_tokens": 300, "temperature": 0}
}

// withText are kinds of what is said, the first of them only where the engine writes text beside calls.
func withText(text string, others ...string) []string {
	if withLlama {
		return append(others, text)
	}
	return others
}

// dialectStreams are streams of every dialect and of everything that a stream can have in it.
func dialectStreams() []dialectStream {
	resume := map[string]any{"include_usage": true, "resume": 60}
	return []dialectStream{
		{name: "chat", path: "/v1/chat/completions", read: takeChat, body: chatRequest(plainAnswer), says: []string{"role", "content", "finish", "usage", "done"}},
		{name: "chat n=2", path: "/v1/chat/completions", read: takeChat, body: with(chatRequest(plainAnswer), "n", 2),
			says: []string{"content", "content", "finish", "finish", "usage"}},
		{name: "chat logprobs", path: "/v1/chat/completions", read: takeChat, body: with(chatRequest(plainAnswer), "logprobs", true, "top_logprobs", 3),
			says: []string{"content", "logprob", "logprob", "logprob"}},
		{name: "chat reasoning", path: "/v1/chat/completions", read: takeChat, body: chatRequest(thoughtAnswer), says: []string{"reasoning_content", "content"}},
		{name: "chat tools", path: "/v1/chat/completions", read: takeChat,
			body: with(chatRequest(twoCallsAnswer), "tools", chatTools, "tool_choice", "required"), says: []string{"reasoning_content", "call", "arguments", "call", "arguments", "finish"}},
		{name: "completions logprobs", path: "/v1/completions", read: takeCompletion, body: with(completionRequest(plainAnswer), "logprobs", 2, "n", 2),
			says: []string{"content", "content", "logprob", "logprob", "usage"}},
		{name: "responses", path: "/v1/responses", read: takeResponses, body: with(responsesRequest(plainAnswer), "include", []string{"message.output_text.logprobs"}, "top_logprobs", 2),
			says: []string{"response.created", "response.output_text.delta", "logprob", "response.output_text.done", "response.completed"}},
		{name: "responses tools", path: "/v1/responses", read: takeResponses, body: with(responsesRequest(twoCallsAnswer), "tools", responsesTools, "tool_choice", "required"),
			says: []string{"response.reasoning_text.delta", "response.function_call_arguments.delta", "response.function_call_arguments.delta", "response.completed"}},
		{name: "messages", path: "/v1/messages", read: takeMessages, body: with(messagesRequest(thoughtAnswer), "thinking", map[string]any{"type": "enabled", "budget_tokens": 1024}),
			says: []string{"message_start", "thinking_delta", "text_delta", "message_delta", "message_stop"}},
		{name: "chat auto tools", path: "/v1/chat/completions", read: takeChat, body: with(chatRequest(everythingAnswer), "tools", chatTools),
			says: withText("content", "reasoning_content", "call", "arguments", "call", "arguments", "finish")},
		{name: "responses auto tools", path: "/v1/responses", read: takeResponses, body: with(responsesRequest(everythingAnswer), "tools", responsesTools),
			says: withText("response.output_text.delta", "response.reasoning_text.delta", "response.function_call_arguments.delta", "response.function_call_arguments.delta")},
		{name: "messages auto tools", path: "/v1/messages", read: takeMessages, body: with(messagesRequest(everythingAnswer), "tools", messagesTools,
			"thinking", map[string]any{"type": "enabled", "budget_tokens": 1024}),
			says: withText("text_delta", "thinking_delta", "input_json_delta", "input_json_delta", "message_stop")},
		{name: "messages tools", path: "/v1/messages", read: takeMessages, body: with(messagesRequest(twoCallsAnswer), "tools", messagesTools,
			"tool_choice", map[string]any{"type": "any"}, "thinking", map[string]any{"type": "enabled", "budget_tokens": 1024}),
			says: []string{"thinking_delta", "input_json_delta", "input_json_delta", "message_stop"}},
		{name: "chat resumed", path: "/v1/chat/completions", read: takeChat, body: with(chatRequest(plainAnswer), "stream_options", resume), says: []string{"content", "usage"}, resumed: true},
		{name: "chat tools resumed", path: "/v1/chat/completions", read: takeChat, resumed: true,
			body: with(chatRequest(twoCallsAnswer), "tools", chatTools, "stream_options", resume), says: []string{"call", "call", "usage"}},
		{name: "completions resumed", path: "/v1/completions", read: takeCompletion, resumed: true,
			body: with(completionRequest(plainAnswer), "stream_options", resume), says: []string{"content", "usage"}},
		{name: "responses tools resumed", path: "/v1/responses", read: takeResponses, resumed: true,
			body: with(responsesRequest(twoCallsAnswer), "tools", responsesTools, "tool_choice", "required", "stream_options", resume),
			says: []string{"response.reasoning_text.delta", "response.function_call_arguments.delta", "response.function_call_arguments.delta", "response.completed"}},
		{name: "messages tools resumed", path: "/v1/messages", read: takeMessages, resumed: true,
			body: with(messagesRequest(twoCallsAnswer), "tools", messagesTools, "tool_choice", map[string]any{"type": "any"},
				"thinking", map[string]any{"type": "enabled", "budget_tokens": 1024}, "stream_options", resume),
			says: []string{"thinking_delta", "input_json_delta", "input_json_delta", "message_stop"}},
	}
}
