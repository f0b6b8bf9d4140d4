package responses

import (
	"strings"
	"testing"

	"tandem/proxy/api"
)

func TestDecodeErrors(t *testing.T) {
	long := strings.Repeat("x", api.MaxNameBytes+1)
	const userItem = `{"role":"user","content":"Hi"}`
	for body, want := range map[string]string{
		``:                          ` the body must be a JSON object`,
		`[]`:                        ` the body must be a JSON object`,
		`{"input":"Hi"`:             ` the body is not valid JSON`,
		`{"input":"a","input":"b"}`: ` the body has the field "input" twice`,
		strings.Repeat(`{"a":`, 65): ` the body is nested more than 64 levels deep`,

		`{}`:             `input input is required and must be a string or a list`,
		`{"input":null}`: `input input is required`,
		`{"input":[]}`:   `input input is required`,
		`{"input":7}`:    `input input must be a string or a list`,
		`{"input":[7]}`:  `input input must be a string or a list`,
		`{"input":[{}]}`: `input[0] input[0] refers to an item by its id`,
		`{"input":[{"type":"item_reference","id":"msg_1"}]}`:                                                               `input[0] input[0] refers to an item by its id, but items are not stored; send the item itself (the Vercel AI SDK does so with store: false)`,
		`{"input":[{"type":"web_search_call"}]}`:                                                                           `input input has nothing in it`,
		`{"instructions":"a","input":[{"type":"compaction"}]}`:                                                             `input input has nothing in it`,
		`{"input":[` + userItem + `,{"role":"user"}]}`:                                                                     `input[1].content input[1].content must be a string or a list of parts`,
		`{"input":[{"role":"user","content":7}]}`:                                                                          `input[0].content input[0].content must be a string or a list of parts`,
		`{"input":[{"role":"user","content":[7]}]}`:                                                                        `input[0].content input[0].content must be`,
		`{"input":[{"role":"user","content":[{}]}]}`:                                                                       `input[0].content[0].type input[0].content[0].type is required`,
		`{"input":[{"role":"user","content":[{"type":"input_text"}]}]}`:                                                    `input[0].content[0] input[0].content[0] has no text`,
		`{"input":[{"role":"user","content":[{"type":"input_text","text":7}]}]}`:                                           `input[0].content[0].text input[0].content[0].text must be a string`,
		`{"input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"x"}]}]}`:  `input[0].content[1].type content of the type "input_image" is not supported`,
		`{"input":[{"role":"user","content":[{"type":"input_file","file_id":"x"}]}]}`:                                      `input[0].content[0].type content of the type "input_file" is not supported`,
		`{"input":[{"role":"tool","content":"a"}]}`:                                                                        `input[0].role input[0].role is "tool", but must be user, assistant, system or developer`,
		`{"input":[{"type":"message","content":"a"}]}`:                                                                     `input[0].role input[0].role is required`,
		`{"input":[{"type":"function_call","name":"f"}]}`:                                                                  `input[0].call_id input[0].call_id must be a string that is not empty`,
		`{"input":[{"type":"function_call","call_id":"c"}]}`:                                                               `input[0].name input[0].name must be a name of`,
		`{"input":[{"type":"function_call","call_id":7}]}`:                                                                 `input[0].call_id input[0].call_id must be`,
		`{"input":[{"type":"function_call","call_id":"c","name":"f","arguments":[]}]}`:                                     `input[0].arguments input[0].arguments must be a string`,
		`{"input":[{"type":"function_call_output","output":"a"}]}`:                                                         `input[0].call_id input[0].call_id must be`,
		`{"input":[{"type":"function_call_output","call_id":"c"}]}`:                                                        `input[0].output input[0].output must be`,
		`{"input":[{"type":"function_call_output","call_id":"c","output":[{"type":"input_image"}]}]}`:                      `input[0].output[0].type content of the type "input_image"`,
		`{"input":[{"type":"custom_tool_call","call_id":"c","name":"p"}]}`:                                                 `input[0].input input[0].input must be a string`,
		`{"input":[{"type":"shell_call","call_id":"c","action":"ls"}]}`:                                                    `input[0].action input[0].action must be an object`,
		`{"input":[{"type":"reasoning","content":[{"type":"image"}]}]}`:                                                    `input[0].content[0].type content of the type "image"`,
		`{"input":[` + strings.Repeat(`{"role":"assistant","content":""},`, maxItems) + userItem + `]}`:                    `input`,
		`{"input":[` + strings.Repeat(userItem+`,{"role":"assistant","content":""},`, api.MaxMessages/2) + userItem + `]}`: `input input has 1025 messages, more than the limit of 1024`,
		`{"input":[` + strings.Repeat(`{"type":"function_call","call_id":"c","name":"f"},`, api.MaxToolCalls) + `{"type":"function_call","call_id":"c","name":"f"}]}`: `input[128] input[128] is one of more than 128 calls`,

		bodyStart + `,"model":7}`:                                           `model model must be`,
		bodyStart + `,"model":"` + long + `"}`:                              `model model must be`,
		bodyStart + `,"instructions":["a"]}`:                                `instructions instructions must be a string`,
		bodyStart + `,"max_output_tokens":0}`:                               `max_output_tokens max_output_tokens must be a whole number of 1 or more`,
		bodyStart + `,"temperature":2.5}`:                                   `temperature temperature must be`,
		bodyStart + `,"temperature":"hot"}`:                                 `temperature temperature must be`,
		bodyStart + `,"top_p":-1}`:                                          `top_p top_p must be`,
		bodyStart + `,"stream_options":{"resume":601}}`:                     `stream_options.resume stream_options.resume must be a whole number of seconds from 0 to 600`,
		bodyStart + `,"stream_options":{"resume":"60"}}`:                    `stream_options.resume stream_options.resume must be`,
		bodyStart + `,"stream_options":true}`:                               `stream_options stream_options must be an object`,
		bodyStart + `,"top_k":1001}`:                                        `top_k top_k must be`,
		bodyStart + `,"min_p":2}`:                                           `min_p min_p must be`,
		bodyStart + `,"presence_penalty":3}`:                                `presence_penalty presence_penalty must be`,
		bodyStart + `,"frequency_penalty":-3}`:                              `frequency_penalty frequency_penalty must be`,
		bodyStart + `,"seed":"7"}`:                                          `seed seed must be`,
		bodyStart + `,"seed":-0.5}`:                                         `seed seed must be`,
		bodyStart + `,"seed":-9223372036854775809}`:                         `seed seed must be`,
		bodyStart + `,"seed":9223372036854775808}`:                          `seed seed must be a whole number from -2^63 to 2^63-1`,
		bodyStart + `,"stop":""}`:                                           `stop stop must be`,
		bodyStart + `,"top_logprobs":21}`:                                   `top_logprobs top_logprobs must be`,
		bodyStart + `,"include":"all"}`:                                     `include include must be`,
		bodyStart + `,"include":[7]}`:                                       `include include must be`,
		bodyStart + `,"stream":"yes"}`:                                      `stream stream must be true or false`,
		bodyStart + `,"timings_per_token":1}`:                               `timings_per_token timings_per_token must be true or false`,
		bodyStart + `,"truncation":"middle"}`:                               `truncation truncation must be auto or disabled`,
		bodyStart + `,"reasoning":{"effort":7}}`:                            `reasoning.effort reasoning.effort must be`,
		bodyStart + `,"reasoning":{"effort":"` + long + `"}}`:               `reasoning.effort reasoning.effort must be`,
		bodyStart + `,"metadata":{"a":1}}`:                                  `metadata metadata must be an object of at most 16 strings`,
		bodyStart + `,"metadata":{"a":null}}`:                               `metadata metadata must be`,
		bodyStart + `,"metadata":"a"}`:                                      `metadata metadata must be`,
		bodyStart + `,"metadata":{"a":"` + strings.Repeat("ä", 513) + `"}}`: `metadata metadata must be`,
		bodyStart + `,"user":"` + strings.Repeat("u", 1025) + `"}`:          `user user must be a string of at most 1024 bytes`,
		bodyStart + `,"text":"plain"}`:                                      `text text must be an object`,
		bodyStart + `,"text":{"format":{"type":"xml"}}}`:                    `text.format.type text.format.type must be text, json_object or json_schema`,
		bodyStart + `,"text":{"format":{"type":"json_schema","name":"n"}}}`: `text.format.schema text.format.schema must be a JSON schema`,
		bodyStart + `,"text":{"format":{"type":"json_schema","schema":{"title":"` + strings.Repeat("x", api.MaxSchemaBytes) + `"}}}}`: `text.format.schema text.format.schema and its description have`,

		bodyStart + `,"previous_response_id":"resp_1"}`: `previous_response_id responses are not stored`,
		bodyStart + `,"conversation":"conv_1"}`:         `conversation conversations are not stored`,
		bodyStart + `,"conversation":{"id":"conv_1"}}`:  `conversation conversations are not stored`,
		bodyStart + `,"prompt":{"id":"pmpt_1"}}`:        `prompt prompt templates are not stored`,
		bodyStart + `,"background":true}`:               `background responses are not made in the background`,

		bodyStart + `,"tools":{}}`:                                                                                    `tools tools must be a list`,
		bodyStart + `,"tools":[7]}`:                                                                                   `tools`,
		bodyStart + `,"tools":[{}]}`:                                                                                  `tools[0].type tools[0].type is required`,
		bodyStart + `,"tools":[{"type":"function"}]}`:                                                                 `tools[0].name tools[0].name must be a name`,
		bodyStart + `,"tools":[{"type":"function","name":"a b"}]}`:                                                    `tools[0].name tools[0].name must be a name`,
		bodyStart + `,"tools":[{"type":"function","name":"f","parameters":[]}]}`:                                      `tools[0].parameters tools[0].parameters must be a JSON schema`,
		bodyStart + `,"tools":[{"type":"custom","name":"f","format":7}]}`:                                             `tools[0].format tools[0].format must be`,
		bodyStart + `,"tools":[{"type":"function","name":"f"},{"type":"function","name":"f"}]}`:                       `tools[1].name tools has "f" twice`,
		bodyStart + `,"tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"a b"}]}]}`:          `tools[0].tools[0].name tools[0].tools[0].name must be`,
		bodyStart + `,"tools":[` + manyTools(api.MaxTools+1) + `]}`:                                                   `tools tools has more than 256 functions`,
		bodyStart + `,"tools":[` + strings.Repeat(`{"type":"mcp"},`, maxListedTools) + `{"type":"mcp"}]}`:             `tools`,
		bodyStart + `,"tool_choice":"maybe"}`:                                                                         `tool_choice tool_choice must be none, auto, required`,
		bodyStart + `,"tool_choice":7}`:                                                                               `tool_choice tool_choice must be`,
		bodyStart + `,"tool_choice":{}}`:                                                                              `tool_choice tool_choice must be`,
		bodyStart + `,"tool_choice":"required"}`:                                                                      `tool_choice tool_choice asks for a tool, but tools is empty`,
		bodyStart + `,"tool_choice":{"type":"function","name":"f"}}`:                                                  `tool_choice.name tool_choice names "f", which is not among tools`,
		bodyStart + `,"tool_choice":{"type":"allowed_tools","mode":"none","tools":[]}}`:                               `tool_choice.mode tool_choice.mode must be auto or required`,
		bodyStart + `,"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"}]}}`: `tool_choice.tools tool_choice allows "f"`,
		bodyStart + `,"parallel_tool_calls":1}`:                                                                       `parallel_tool_calls parallel_tool_calls must be true or false`,
	} {
		r, err := Dialect.Decode([]byte(body), api.Limits{})
		if err == nil {
			t.Errorf("%.100s was taken: %+v", body, r)
			continue
		}
		if got := err.Param + " " + err.Message; err.Status() != 400 || !strings.HasPrefix(got, want) {
			t.Errorf("%.100s\ngot  %d %s\nwant %s", body, err.Status(), got, want)
		}
	}
}
