package openai

import (
	"strconv"

	"tandem/proxy/api"
)

const doneEvent = "data: [DONE]\n\n"

// envelope is what the objects of a reply have in common: a whole reply, or the chunks of a stream.
type envelope struct {
	requestID   string
	idPrefix    string
	model       string // with its version
	fingerprint string // of the model's files; empty: not known
	createdUnix int64
	choices     int
	usage       bool // a stream ends with the numbers of tokens
	logprobs    bool
	timings     bool
}

func newEnvelope(start *api.ReplyStart, idPrefix string) envelope {
	e := envelope{
		requestID: start.RequestID, idPrefix: idPrefix, model: start.ModelID,
		createdUnix: start.Created.Unix(), choices: start.Request.ChoiceCount(), usage: start.Request.IncludeUsage, logprobs: start.Request.Logprobs,
		timings: start.Request.Timings,
	}
	if len(start.Revision) >= fingerprintDigits {
		e.fingerprint = "fp_" + start.Revision[:fingerprintDigits]
	}
	return e
}

// fingerprintDigits is how much of the checksum of a model's files is in system_fingerprint; X-Model-Revision has all.
const fingerprintDigits = 16

// appendHead appends an object up to its choices.
func (e *envelope) appendHead(dst []byte, object string) []byte {
	dst = api.AppendMember(dst, `{"id":`, e.idPrefix+e.requestID)
	dst = api.AppendMember(dst, `,"object":`, object)
	dst = strconv.AppendInt(append(dst, `,"created":`...), e.createdUnix, 10)
	dst = api.AppendMember(dst, `,"model":`, e.model)
	if e.fingerprint != "" {
		dst = api.AppendMember(dst, `,"system_fingerprint":`, e.fingerprint)
	}
	return append(dst, `,"choices":[`...)
}

// appendIndex begins a choice.
func appendIndex(dst []byte, choice int) []byte {
	return strconv.AppendInt(append(dst, `{"index":`...), int64(choice), 10)
}

// chunks writes the chunks of a stream: what is the same in all of them is written once.
type chunks struct {
	head  string // up to the choices
	usage string // says that there is none yet if one will follow
}

func (e *envelope) chunks(object string) chunks {
	c := chunks{head: string(e.appendHead([]byte("data: "), object))}
	if e.usage {
		c.usage = `,"usage":null`
	}
	return c
}

// begin appends what is before the only choice of a chunk; end, endDelta and endChoice append what follows it.
func (c *chunks) begin(dst []byte) []byte { return append(dst, c.head...) }

func (c *chunks) end(dst []byte) []byte {
	return append(append(append(dst, ']'), c.usage...), "}\n\n"...)
}

// endDelta is end for a chunk with a delta.
func (c *chunks) endDelta(dst []byte, e *envelope, d *api.Delta) []byte {
	return append(e.appendDeltaTimings(append(append(dst, ']'), c.usage...), d), "}\n\n"...)
}

// endChoice is end for the last chunk of a choice.
func (c *chunks) endChoice(dst []byte, e *envelope, r *api.Result) []byte {
	return append(e.appendTimings(append(append(dst, ']'), c.usage...), &r.Metadata), "}\n\n"...)
}

// appendUsage appends the chunk without choices.
func (c *chunks) appendUsage(dst []byte, m *api.Metadata) []byte {
	dst = appendUsage(append(append(dst, c.head...), ']'), m)
	return append(dst, "}\n\n"...)
}

// appendUsage appends the member usage. The details are there with zeros, too: clients read them without asking
// whether they exist.
func appendUsage(dst []byte, m *api.Metadata) []byte {
	dst = api.AppendInt(dst, `,"usage":{"prompt_tokens":`, m.PromptTokens)
	dst = api.AppendInt(dst, `,"completion_tokens":`, m.TokensGenerated)
	dst = api.AppendInt(dst, `,"total_tokens":`, m.PromptTokens+m.TokensGenerated)
	dst = api.AppendInt(dst, `,"prompt_tokens_details":{"cached_tokens":`, m.CachedTokens)
	dst = api.AppendInt(dst, `},"completion_tokens_details":{"reasoning_tokens":`, m.ReasoningTokens)
	return append(dst, "}}"...)
}

// appendTimings appends the member timings of a whole answer if it was asked for.
func (e *envelope) appendTimings(dst []byte, m *api.Metadata) []byte {
	if !e.timings {
		return dst
	}
	return api.AppendTimings(dst, m)
}

// appendDeltaTimings appends the member timings of a chunk.
func (e *envelope) appendDeltaTimings(dst []byte, d *api.Delta) []byte {
	if !e.timings {
		return dst
	}
	return api.AppendTokenTimings(dst, d.Tokens, d.Took)
}
