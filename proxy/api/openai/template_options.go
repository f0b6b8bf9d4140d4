package openai

import (
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

const maxTemplateOptionBytes = 4 << 10

// templateOptions are the fields that reach the model's chat template as values. What a template doesn't know has no
// effect.
type templateOptions struct {
	ChatTemplateKwargs jsontext.Value `json:"chat_template_kwargs"` // an object of values
	ReasoningEffort    string         `json:"reasoning_effort"`
	EnableThinking     *bool          `json:"enable_thinking"`
	ContinueLast       *bool          `json:"continue_final_message"`
}

// encode returns a JSON object of all of them, or nil when there is none.
func (o *templateOptions) encode() ([]byte, *api.Error) {
	values := map[string]jsontext.Value{}
	switch o.ChatTemplateKwargs.Kind() {
	case jsontext.KindInvalid, 'n':
	case '{':
		if len(o.ChatTemplateKwargs) > maxTemplateOptionBytes {
			return nil, invalidField("chat_template_kwargs")
		}
		if err := json.Unmarshal(o.ChatTemplateKwargs, &values); err != nil {
			return nil, invalidField("chat_template_kwargs")
		}
	default:
		return nil, invalidField("chat_template_kwargs")
	}
	if len(o.ReasoningEffort) > api.MaxNameBytes {
		return nil, invalidField("reasoning_effort")
	}
	if o.ReasoningEffort != "" {
		values["reasoning_effort"] = api.AppendString(nil, o.ReasoningEffort)
		if o.ReasoningEffort == "none" && o.EnableThinking == nil {
			values["enable_thinking"] = jsontext.Value("false")
		}
	}
	if o.EnableThinking != nil {
		values["enable_thinking"] = jsontext.Value("false")
		if *o.EnableThinking {
			values["enable_thinking"] = jsontext.Value("true")
		}
	}
	if o.ContinueLast != nil {
		values[api.ContinueOption] = strconv.AppendBool(nil, *o.ContinueLast)
	}
	if len(values) == 0 {
		return nil, nil
	}
	encoded, err := json.Marshal(values, json.Deterministic(true))
	if err != nil {
		return nil, invalidField("chat_template_kwargs")
	}
	return encoded, nil
}
