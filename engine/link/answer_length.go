package link

import (
	"errors"
	"fmt"

	"tandem/engine/batch"
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

// errSmallerContext is the error of a request that an engine before accepted and that doesn't fit this one's context.
var errSmallerContext = errors.New("the inference engine stopped while it worked on this request, and the next one has less memory")

// replayError returns the error of a replay: an accepted request isn't at fault when this engine's context is smaller
// than the one that it was accepted for.
func replayError(err error) error {
	_, tight := errors.AsType[*contextLengthError](err)
	if tight || errors.Is(err, models.ErrPromptTooLong) || errors.Is(err, batch.ErrContextExceeded) {
		return fmt.Errorf("%w: %s", errSmallerContext, err) // without the error itself, which blames the request
	}
	return err
}

// checkReplayFits returns the error of an answer that has grown longer than this engine's context allows. It would end
// here as if the client had asked for no more.
func checkReplayFits(promptTokens, generated, contextTokens int) error {
	if generated == 0 || promptTokens+generated <= contextTokens {
		return nil
	}
	return &contextLengthError{param: "prompt",
		text: fmt.Sprintf("prompt and answer have %d tokens so far, the context holds %d", promptTokens+generated, contextTokens)}
}
