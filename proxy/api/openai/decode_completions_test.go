package openai

import (
	"strings"
	"testing"

	"tandem/proxy/api"
)

func TestDecodePrompts(t *testing.T) {
	for body, change := range map[string]func(*api.Request){
		`{"prompt":[5,0,7]}`:     func(r *api.Request) { r.PromptTokens = []int32{5, 0, 7} },
		`{"prompt":[[5,0],[7]]}`: func(r *api.Request) { r.Inputs = []api.Input{{Tokens: []int32{5, 0}}, {Tokens: []int32{7}}} },
		`{"prompt":["a","b"],"n":2,"best_of":2}`: func(r *api.Request) {
			r.Inputs, r.Choices = []api.Input{{Text: "a"}, {Text: "b"}}, 2
		},
		`{"prompt":["a",[7]]}`:        func(r *api.Request) { r.Inputs = []api.Input{{Text: "a"}, {Tokens: []int32{7}}} },
		`{"prompt":"a","logprobs":5}`: func(r *api.Request) { r.Prompt, r.Logprobs, r.TopLogprobs = "a", true, 5 },
		`{"prompt":"a","echo":true}`:  func(r *api.Request) { r.Prompt, r.Echo = "a", true },
		`{"prompt":"a","echo":true,"logprobs":0,"max_tokens":0}`: func(r *api.Request) {
			r.Prompt, r.Echo, r.Logprobs, r.PromptLogprobs = "a", true, true, true
			r.MaxNewTokens, r.Extra = new(1), completionExtra{promptOnly: true}
		},
		`{"prompt":[7],"echo":true}`: func(r *api.Request) { r.PromptTokens, r.Echo, r.PromptLogprobs = []int32{7}, true, true },
	} {
		want := defaultRequest()
		want.Raw, want.MaxNewTokens, want.Extra = true, new(16), completionExtra{}
		change(&want)
		wantRequest(t, Completions, body, &want)
	}
}

func TestDecodeCompletions(t *testing.T) {
	for body, change := range map[string]func(*api.Request){
		completionStart + `}`:                                      func(*api.Request) {},
		`{"prompt":["Hi"]}`:                                        func(*api.Request) {},
		completionStart + `,"max_tokens":9}`:                       func(r *api.Request) { r.MaxNewTokens = new(9) },
		completionStart + `,"echo":false,"suffix":"","best_of":1}`: func(*api.Request) {},
		completionStart + `,"echo":null,"suffix":null,"best_of":null,"logprobs":null}`: func(*api.Request) {},
	} {
		want := defaultRequest()
		want.Prompt, want.Raw, want.MaxNewTokens, want.Extra = "Hi", true, new(16), completionExtra{}
		change(&want)
		wantRequest(t, Completions, body, &want)
	}
}

func TestCompletionRefusals(t *testing.T) {
	wantRefusals(t, Completions, refusals{
		`{}`:                        "prompt",
		`{"prompt":null}`:           "prompt",
		`{"prompt":""}`:             "prompt",
		`{"prompt":7}`:              "prompt",
		`{"prompt":[]}`:             "prompt",
		`{"prompt":[""]}`:           "prompt",
		`{"prompt":[null]}`:         "prompt",
		`{"prompt":["a",""]}`:       "prompt",
		`{"prompt":[1,-2]}`:         "prompt",
		`{"prompt":[1.5]}`:          "prompt",
		`{"prompt":[1,"a"]}`:        "prompt",
		`{"prompt":[[]]}`:           "prompt",
		`{"prompt":[[3000000000]]}`: "prompt",
		`{"prompt":["` + long(101) + `","` + long(100) + `"]}`: "prompt",
		`{"prompt":["a",7]}`:             "prompt",
		`{"prompt":{"a":"b"}}`:           "prompt",
		`{"prompt":"` + long(201) + `"}`: "prompt",

		completionStart + `,"echo":1}`:                               "echo",
		completionStart + `,"echo":true,"logprobs":1,"stream":true}`: "echo",
		`{"prompt":[1,2],"echo":true,"stream":true}`:                 "echo",
		completionStart + `,"suffix":"x"}`:                           "suffix",
		completionStart + `,"best_of":2}`:                            "best_of",
		completionStart + `,"best_of":"1"}`:                          "best_of",
		completionStart + `,"logprobs":21}`:                          "logprobs",
		`{"prompt":[` + strings.Repeat(`"a",`, 99) + `"a"],"n":32}`:  "n",
	})
}
