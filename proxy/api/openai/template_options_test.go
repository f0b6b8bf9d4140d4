package openai

import (
	"testing"
)

func TestDecodeTemplateOptions(t *testing.T) {
	for fields, options := range map[string]string{
		`"reasoning_effort":"low"`:                                                `{"reasoning_effort":"low"}`,
		`"reasoning_effort":"none"`:                                               `{"enable_thinking":false,"reasoning_effort":"none"}`,
		`"enable_thinking":true`:                                                  `{"enable_thinking":true}`,
		`"continue_final_message":true`:                                           `{"continue_final_message":true}`,
		`"chat_template_kwargs":{"b":[1],"a":"x"}`:                                `{"a":"x","b":[1]}`,
		`"chat_template_kwargs":{"enable_thinking":true},"enable_thinking":false`: `{"enable_thinking":false}`,
		`"chat_template_kwargs":{}`:                                               ``,
	} {
		want := defaultRequest()
		want.Messages, want.SplitOutput = user("Hi"), true
		if options != "" {
			want.TemplateOptions = []byte(options)
		}
		wantRequest(t, Chat, chatStart+","+fields+"}", &want)
	}
}
