package responses

import (
	"slices"
	"strconv"
	"time"

	"tandem/proxy/api"
)

// response writes the object of a response, in a reply and in the events of a stream that have it.
type response struct {
	requestID string
	created   time.Time
	model     string // with its version
	request   *api.Request
	echo      *echo
}

func newResponse(start *api.ReplyStart) response {
	r := response{requestID: start.RequestID, created: start.Created, model: start.ModelID, request: start.Request}
	if r.echo, _ = start.Request.Extra.(*echo); r.echo == nil {
		r.echo = &echo{}
	}
	return r
}

// originOf is the tool of the client's that a function stands for.
func (r *response) originOf(function string) toolOrigin {
	i := slices.IndexFunc(r.request.Tools, func(t api.Tool) bool { return t.Name == function })
	if i < 0 || i >= len(r.echo.tools) {
		return toolOrigin{name: function}
	}
	return r.echo.tools[i]
}

// progress is how far a response is.
type progress struct {
	status string
	output []byte        // items, as entries of a list
	usage  *api.Metadata // nil before the end
	err    *api.Error    // of one that failed
}

// appendFinal appends the response with all that has ended.
func (e *encoder) appendFinal(dst []byte, r *api.Reply) []byte {
	p := progress{status: completed, output: e.ended, usage: &r.Usage}
	if r.Usage.FinishReason == api.FinishLength {
		p.status = incomplete
	}
	return e.appendResponse(dst, &p)
}

func (r *response) appendResponse(dst []byte, p *progress) []byte {
	dst = append(append(append(dst, `{"id":"resp_`...), r.requestID...), `","object":"response","created_at":`...)
	dst = strconv.AppendInt(dst, r.created.Unix(), 10)
	dst = append(append(append(dst, `,"status":"`...), p.status...), `","background":false,"completed_at":`...)
	if p.status == completed {
		dst = strconv.AppendInt(dst, r.created.Add(p.usage.ResponseTime).Unix(), 10)
	} else {
		dst = append(dst, "null"...)
	}
	if dst = append(dst, `,"error":`...); p.err != nil {
		dst = appendFailure(dst, p.err, r.requestID)
	} else {
		dst = append(dst, "null"...)
	}
	if dst = append(dst, `,"incomplete_details":`...); p.status == incomplete {
		dst = append(dst, `{"reason":"max_output_tokens"}`...)
	} else {
		dst = append(dst, "null"...)
	}
	dst = api.AppendMember(dst, `,"model":`, r.model)
	dst = append(append(append(dst, `,"output":[`...), p.output...), `],"usage":`...)
	dst = append(appendUsage(dst, p.usage), r.echo.members...)
	if r.request.Timings && p.usage != nil {
		dst = api.AppendTimings(dst, p.usage)
	}
	return append(dst, '}')
}

// appendUsage appends the numbers of tokens, or null before the end. cache_write_tokens, which OpenAI bills, must be
// there and has no meaning here.
func appendUsage(dst []byte, m *api.Metadata) []byte {
	if m == nil {
		return append(dst, "null"...)
	}
	dst = api.AppendInt(dst, `{"input_tokens":`, m.PromptTokens)
	dst = api.AppendInt(dst, `,"input_tokens_details":{"cache_write_tokens":0,"cached_tokens":`, m.CachedTokens)
	dst = api.AppendInt(dst, `},"output_tokens":`, m.TokensGenerated)
	dst = api.AppendInt(dst, `,"output_tokens_details":{"reasoning_tokens":`, m.ReasoningTokens)
	dst = api.AppendInt(dst, `},"total_tokens":`, m.PromptTokens+m.TokensGenerated)
	return append(dst, '}')
}
