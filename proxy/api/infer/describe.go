package infer

import (
	"fmt"

	"tandem/proxy/api"
	"tandem/proxy/openapi"
)

// Errors is the form of errors of this dialect, and of every endpoint that belongs to no other one.
func Errors() openapi.ErrorForm {
	return openapi.ErrorForm{
		Member: "type",
		Code:   func(t api.Type) string { return string(t) },
		Schema: openapi.Object(openapi.Has("error", openapi.Object(
			openapi.Has("type", openapi.Words(api.Types()...).About("What went wrong, for programs.")),
			openapi.Has("message", openapi.Text(1, 0).About("What went wrong, for people.")),
			openapi.Has("param", openapi.Text(0, 0).OrNull().About("The field or header to blame; null: none.")),
			openapi.Has("request_id", openapi.Text(1, 0).About("As in X-Request-Id.")),
		))).Named("Error"),
	}
}

// Endpoints describes POST /infer.
func Endpoints() ([]openapi.Endpoint, error) {
	body, err := openapi.BodyOf(requestBody{}, fieldDescriptions())
	if err != nil {
		return nil, fmt.Errorf("describe the body of /infer: %w", err)
	}
	body.Others = &openapi.Others{Forbidden: true}
	return []openapi.Endpoint{openapi.Endpoint{
		Path: "/infer", ID: "infer", Tag: "inference",
		Summary: "One answer to one prompt",
		Doc:     "One inference, whole or as a stream of server-sent events.",

		Body: body.Named("InferRequest"), Examples: examples(),
		Replies: []openapi.Reply{{
			Status: 200, Doc: "The answer.", Headers: openapi.InferenceHeaders(),
			Content: openapi.WholeOrStream(replySchema(), &openapi.Events{Data: eventSchema(), Failed: "error"}),
		}},
		Errors: Errors(),
	}.Inference()}, nil
}

func examples() []openapi.Example {
	return []openapi.Example{
		{Name: "answer", Summary: "A question", Body: `{"prompt":"What is the capital of France?","base_model":"demo","adapter_version":"v1.0","max_new_tokens":64,"seed":7}`},
		{Name: "stream", Summary: "The same as a stream", Body: `{"prompt":"What is the capital of France?","base_model":"demo","adapter_version":"v1.0","max_new_tokens":64,"seed":7,"stream":true}`},
		{Name: "out_of_range", Summary: "A field that is out of range", Body: `{"prompt":"What is the capital of France?","temperature":3}`},
		{Name: "unknown_version", Summary: "A version that isn't installed", Body: `{"prompt":"What is the capital of France?","base_model":"demo","adapter_version":"v9"}`},
	}
}

// fieldDescriptions says what each field of requestBody means.
func fieldDescriptions() openapi.Fields {
	return openapi.Fields{
		"prompt":          {Doc: "What the user says. It goes through the model's chat template; no text in it becomes a control token.", Required: true, Schema: openapi.Text(1, api.MaxPromptBytes)},
		"system":          {Doc: "System message of the chat template. An empty one counts, too: it switches the template's own default text off."},
		"base_model":      {Doc: "A model of /models. Default: DEFAULT_MODEL.", Schema: openapi.Text(0, api.MaxNameBytes)},
		"adapter_version": {Doc: "A version of that model; base is the model without adapter. Default: the model's default version.", Schema: openapi.Text(0, api.MaxNameBytes)},
		"max_new_tokens":  {Doc: "How many tokens the answer may have. Cut to what the context has left.", Schema: openapi.Integer(1, api.MaxNewTokens), Default: api.DefaultNewTokens},
		"temperature":     {Doc: "0 always takes the most likely token. Default: the model's, then 0.", Schema: openapi.Range(0, api.MaxTemperature)},
		"top_p":           {Doc: "Only the most likely tokens that have this probability together; 1: off. Default: the model's, then 0.95.", Schema: openapi.Above(0, 1)},
		"top_k":           {Doc: "Only that many of the most likely tokens; 0: off. Default: the model's, then 40.", Schema: openapi.Integer(0, api.MaxTopK)},
		"min_p":           {Doc: "Only tokens that have this share of the most likely one's probability; 0: off. Default: the model's, then 0.05.", Schema: openapi.Range(0, 1)},
		"repeat_penalty":  {Doc: "Makes tokens that were among the last 64 less likely; 1: off. Default: the model's, then 1.", Schema: openapi.Above(0, api.MaxPenalty)},
		"seed":            {Doc: "Equal requests with equal seeds draw alike. Default: a random one, which the reply names.", Schema: openapi.Integer(0, api.MaxSeed)},
		"stop":            {Doc: "The answer ends before the first of these texts.", Schema: openapi.StopStrings()},
		"domain":          {Doc: "Label of the business metrics, if it is one of monitoring.domains.", Schema: openapi.Text(0, api.MaxDomainBytes)},
		"stream":          {Doc: "Answer as server-sent events.", Default: false},
		"json_schema":     {Doc: fmt.Sprintf("A JSON schema of at most %d bytes. The answer is JSON that fits it.", api.MaxSchemaBytes), Schema: openapi.Map(&openapi.Schema{})},
	}
}

func replySchema() *openapi.Schema {
	return openapi.Object(
		openapi.Has("result", openapi.Text(0, 0).About("The answer.")),
		openapi.Has("metadata", openapi.Object(
			openapi.Has("model", openapi.Text(1, 0).About("The model that was used.")),
			openapi.Has("version", openapi.Text(1, 0).About("Its version that was used.")),
			openapi.Has("tokens_generated", openapi.Count().About("Tokens of the answer, the end token included.")),
			openapi.Has("response_time", seconds("From the request's arrival to the answer's end, in seconds.")),
			openapi.Has("generation_time", seconds("Sum of the engine's token times, in seconds.")),
			openapi.Has("finish_reason", openapi.Words(api.FinishStop, api.FinishLength).About("stop: the model's end or a stop string. length: max_new_tokens or the context ended it.")),
			openapi.Has("prompt_tokens", openapi.Count().About("Tokens of the prompt.")),
			openapi.Has("cached_tokens", openapi.Count().About("Those of them that weren't computed, since the KV cache had them.")),
			openapi.Has("seed", openapi.Integer(0, api.MaxSeed).About("The seed that was used.")),
		)),
	).Named("InferReply")
}

// eventSchema is the data of an event: a part of the text, or at the end the whole reply.
func eventSchema() *openapi.Schema {
	return openapi.AnyOf(
		openapi.Object(openapi.Has("text", openapi.Text(0, 0).About("The next part of the answer."))),
		replySchema(),
	).Named("InferEvent")
}

func seconds(doc string) *openapi.Schema {
	return openapi.AtLeast(0).About(doc)
}
