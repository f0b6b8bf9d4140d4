package link

import (
	"fmt"

	"tandem/engine/models"
)

// contextLengthError is the error of a request that doesn't fit the model's context.
type contextLengthError struct {
	param, text  string
	promptTokens int // of a prompt that is too long; 0: not counted
}

func (e *contextLengthError) Error() string { return e.text }

// maxAnswerTokens is how long the answer may become: what the request asks for, cut to what the prompt leaves of the
// context. requested is 0 when the request doesn't say. With fit more than the context is no error, and nothing asked
// for is all that is left, unless the model has a default.
func maxAnswerTokens(requested int, fit bool, d *models.Defaults, promptTokens, contextTokens int) (int, error) {
	if requested > contextTokens && !fit {
		return 0, &contextLengthError{param: "max_new_tokens",
			text: fmt.Sprintf("max_new_tokens is %d, the context holds %d tokens", requested, contextTokens)}
	}
	if promptTokens >= contextTokens {
		return 0, &contextLengthError{param: "prompt", promptTokens: promptTokens,
			text: fmt.Sprintf("the prompt has %d tokens, the context of %d leaves no room for an answer", promptTokens, contextTokens)}
	}
	switch {
	case requested != 0:
	case d.MaxNewTokens != nil:
		requested = *d.MaxNewTokens
	case fit:
		requested = contextTokens
	default:
		requested = defaultMaxNewTokens
	}
	return min(requested, contextTokens-promptTokens), nil
}
