// Package anthropic is the dialect of clients of Anthropic's Messages API: POST /v1/messages, and the body of
// POST /v1/messages/count_tokens. What users need to know is in docs/anthropic.md.
package anthropic
