// Package openai is the dialect of clients of OpenAI's API: POST /v1/chat/completions, POST /v1/completions and the
// list of models. What users need to know is in docs/openai.md.
package openai
