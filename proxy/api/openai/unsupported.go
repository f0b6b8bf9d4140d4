package openai

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// ignoredFields are OpenAI's and other servers' fields that have no effect here on purpose: what they say is about the
// request and not the answer, or only a hint.
var ignoredFields = map[string]bool{
	"user": true, "metadata": true, "store": true, "service_tier": true, "safety_identifier": true, "prompt_cache_key": true,
	"prompt_cache_retention": true, "verbosity": true, "prediction": true, "priority": true, "cache_prompt": true, "max_tokens_per_doc": true,
	"truncate": true, "input_type": true, "parallel_tool_calls": true, "tools": true, "tool_choice": true,
}

// refusal is a field that isn't supported, with the values that ask for nothing.
type refusal struct {
	param    string
	value    jsontext.Value // as the client wrote it, nil when absent
	harmless string         // compact JSON values besides null, false, {} and [], separated by spaces
	why      string
}

// refuse returns the error of the first field that asks for what isn't supported, so that a client that gets an answer
// can rely on it that nothing was left out.
func refuse(list []refusal) *api.Error {
	for i := range list {
		if f := &list[i]; f.asksForSomething() {
			return api.Invalid(f.param, "%s", f.why)
		}
	}
	return nil
}

func (f *refusal) asksForSomething() bool {
	switch f.value.Kind() {
	case jsontext.KindInvalid, 'n', 'f': // absent, null, false
		return false
	}
	if err := f.value.Compact(); err != nil {
		return true
	}
	text := string(f.value)
	return text != "{}" && text != "[]" && !slices.Contains(strings.Fields(f.harmless), text)
}
