package openai

import (
	"strconv"
	"unicode/utf8"

	"tandem/proxy/api"
)

// completionEncoder implements api.Encoder for completions.
type completionEncoder struct {
	envelope
	stream      chunks
	request     *api.Request
	promptOnly  bool  // max_tokens was 0: the one token that was generated is left out
	textOffsets []int // of each choice of a stream: characters so far
}

// textCompletion is the kind of whole replies and of chunks.
const textCompletion = "text_completion"

func newCompletionEncoder(start *api.ReplyStart) *completionEncoder {
	e := &completionEncoder{envelope: newEnvelope(start, "cmpl-"), request: start.Request}
	e.stream = e.chunks(textCompletion)
	extra, _ := start.Request.Extra.(completionExtra)
	e.promptOnly = extra.promptOnly
	e.textOffsets = make([]int, e.choices)
	return e
}

func (e *completionEncoder) AppendReply(dst []byte, r *api.Reply) []byte {
	dst = e.appendHead(dst, textCompletion)
	for i := range r.Results {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = e.appendChoice(dst, i, &r.Results[i])
	}
	return append(e.appendTimings(appendUsage(append(dst, ']'), &r.Usage), &r.Usage), '}')
}

func (e *completionEncoder) appendChoice(dst []byte, i int, r *api.Result) []byte {
	text, logprobs := r.Text, r.Logprobs
	if e.promptOnly {
		text, logprobs = "", nil
	}
	if e.request.Echo {
		text = e.promptText(i, r) + text
		logprobs = append(r.PromptLogprobs[:len(r.PromptLogprobs):len(r.PromptLogprobs)], logprobs...)
	}
	dst = api.AppendMember(dst, `{"text":`, text)
	dst = strconv.AppendInt(append(dst, `,"index":`...), int64(i), 10)
	dst, _ = e.appendLogprobs(append(dst, `,"logprobs":`...), logprobs, 0)
	return append(api.AppendMember(dst, `,"finish_reason":`, string(r.Metadata.FinishReason)), '}')
}

// promptText is the prompt of a choice: as the client wrote it, or the text of its tokens.
func (e *completionEncoder) promptText(choice int, r *api.Result) string {
	one := e.request.ForInput(choice / max(1, e.request.Choices))
	if len(one.PromptTokens) == 0 || r == nil {
		return one.Prompt
	}
	var text []byte
	for i := range r.PromptLogprobs {
		text = append(text, r.PromptLogprobs[i].Bytes...)
	}
	return string(text)
}

func (e *completionEncoder) AppendStart(dst []byte) []byte {
	if !e.request.Echo {
		return dst
	}
	for i := range e.choices {
		dst = e.appendDelta(dst, &api.Delta{Choice: i, Text: []byte(e.promptText(i, nil))})
	}
	return dst
}

func (e *completionEncoder) AppendDelta(dst []byte, d *api.Delta) []byte {
	if e.promptOnly {
		return dst
	}
	return e.appendDelta(dst, d)
}

// appendDelta appends a text of the prompt or of the answer.
func (e *completionEncoder) appendDelta(dst []byte, d *api.Delta) []byte {
	if len(d.Text) == 0 && len(d.Logprobs) == 0 {
		return dst
	}
	dst = api.AppendString(append(e.stream.begin(dst), `{"text":`...), d.Text)
	dst = strconv.AppendInt(append(dst, `,"index":`...), int64(d.Choice), 10)
	dst, e.textOffsets[d.Choice] = e.appendLogprobs(append(dst, `,"logprobs":`...), d.Logprobs, e.textOffsets[d.Choice])
	return e.stream.endDelta(append(dst, `,"finish_reason":null}`...), &e.envelope, d)
}

func (e *completionEncoder) AppendChoiceEnd(dst []byte, choice int, r *api.Result) []byte {
	dst = strconv.AppendInt(append(e.stream.begin(dst), `{"text":"","index":`...), int64(choice), 10)
	dst = append(append(dst, `,"logprobs":null,"finish_reason":"`...), r.Metadata.FinishReason...)
	return e.stream.endChoice(append(dst, `"}`...), &e.envelope, r)
}

func (e *completionEncoder) AppendEnd(dst []byte, r *api.Reply) []byte {
	if e.usage {
		dst = e.stream.appendUsage(dst, &r.Usage)
	}
	return append(dst, doneEvent...)
}

func (e *completionEncoder) AppendErrorEvent(dst []byte, err *api.Error) []byte {
	return appendErrorEvent(dst, err, completionParams, e.requestID)
}

// appendLogprobs appends the four lists of the completions API, or null if they weren't asked for. offset is how many
// characters came before; that after the last token is returned. Tokens without text, such as the end token, are left
// out.
func (e *completionEncoder) appendLogprobs(dst []byte, list []api.TokenLogprob, offset int) ([]byte, int) {
	if !e.logprobs || len(list) == 0 && !e.request.Echo {
		return append(dst, "null"...), offset
	}
	shown := make([]*api.TokenLogprob, 0, len(list))
	for i := range list {
		if len(list[i].Bytes) > 0 {
			shown = append(shown, &list[i])
		}
	}
	dst = appendList(append(dst, `{"tokens":`...), shown, func(dst []byte, l *api.TokenLogprob) []byte {
		return api.AppendString(dst, legacyTokenText(l.Bytes))
	})
	dst = appendList(append(dst, `,"token_logprobs":`...), shown, func(dst []byte, l *api.TokenLogprob) []byte {
		if l.Logprob != l.Logprob { // the first token of a prompt
			return append(dst, "null"...)
		}
		return appendFiniteLogprob(dst, l.Logprob)
	})
	dst = append(dst, `,"top_logprobs":`...)
	if e.request.TopLogprobs == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = appendList(dst, shown, appendLegacyTop)
	}
	dst = appendList(append(dst, `,"text_offset":`...), shown, func(dst []byte, l *api.TokenLogprob) []byte {
		dst = strconv.AppendInt(dst, int64(offset), 10)
		offset += utf8.RuneCount(l.Bytes)
		return dst
	})
	return append(dst, '}'), offset
}

func appendList(dst []byte, list []*api.TokenLogprob, appendOne func([]byte, *api.TokenLogprob) []byte) []byte {
	dst = append(dst, '[')
	for i, l := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendOne(dst, l)
	}
	return append(dst, ']')
}

// appendLegacyTop appends an object from texts to log-probabilities. Of tokens with the same text the likeliest is
// there.
func appendLegacyTop(dst []byte, l *api.TokenLogprob) []byte {
	if len(l.Top) == 0 {
		return append(dst, "null"...)
	}
	seen := make(map[string]bool, len(l.Top))
	dst = append(dst, '{')
	for i := range l.Top {
		text := legacyTokenText(l.Top[i].Bytes)
		if seen[text] {
			continue
		}
		if len(seen) > 0 {
			dst = append(dst, ',')
		}
		seen[text] = true
		dst = appendFiniteLogprob(append(api.AppendString(dst, text), ':'), l.Top[i].Logprob)
	}
	return append(dst, '}')
}

// legacyTokenText is a token's text, or for a part of a character its bytes in OpenAI's form.
func legacyTokenText(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	const digits = "0123456789abcdef"
	text := []byte("bytes:")
	for _, c := range b {
		text = append(text, '\\', 'x', digits[c>>4], digits[c&15])
	}
	return string(text)
}
