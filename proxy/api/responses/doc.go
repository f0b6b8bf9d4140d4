// Package responses is the dialect of clients of OpenAI's Responses API: POST /v1/responses, without anything stored
// between two requests. What users need to know is in docs/responses.md.
package responses
