package responses

import (
	"strconv"

	"tandem/proxy/api"
)

// encoder implements api.Encoder. The output of a response is a list of items, each of which ends before the next one
// begins: what the model thinks, what it says, and each call. A stream has them in the order in which they came; a
// whole reply, which doesn't know that order, has reasoning, message and calls.
type encoder struct {
	response
	sequence int  // number of the next event
	begun    bool // the first events were written

	open  outputItem // of the kind noItem where there is none
	items int        // that began
	ended []byte     // items that ended, as entries of a list

	logprobs bool // were asked for
	untold   api.UntoldTokens
	held     heldTokens
}

func newEncoder(start *api.ReplyStart) *encoder {
	return &encoder{response: newResponse(start), logprobs: start.Request.Logprobs}
}

func (e *encoder) AppendReply(dst []byte, r *api.Reply) []byte {
	list := e.wholeItems(&r.Results[0])
	for i := range list {
		status := completed
		if i == len(list)-1 {
			status = lastStatus(&r.Results[0])
		}
		list[i].complete(status)
		e.ended = list[i].appendObject(api.AppendComma(e.ended, i), status)
	}
	return e.appendFinal(dst, r)
}

// wholeItems are the items of a choice that is complete. An answer without any has a message without text.
func (e *encoder) wholeItems(r *api.Result) []outputItem {
	var list []outputItem
	if r.Reasoning != "" {
		list = append(list, e.newItem(reasoningItem, len(list)))
		list[len(list)-1].text = []byte(r.Reasoning)
	}
	if r.Text != "" || r.Reasoning == "" && len(r.ToolCalls) == 0 {
		m := e.newItem(messageItem, len(list))
		m.text = []byte(r.Text)
		if e.logprobs {
			m.logprobs = appendLogprobs(nil, messageTokens(r))
		}
		list = append(list, m)
	}
	for i := range r.ToolCalls {
		c := e.newCall(&r.ToolCalls[i], len(list))
		c.text = []byte(r.ToolCalls[i].Arguments)
		list = append(list, c)
	}
	return list
}

// lastStatus is the status of the item with which a choice ends.
func lastStatus(r *api.Result) string {
	if r.Metadata.FinishReason == api.FinishLength {
		return incomplete
	}
	return completed
}

func (e *encoder) AppendStart(dst []byte) []byte {
	e.begun = true
	for _, name := range []string{"response.created", "response.in_progress"} {
		dst = append(e.event(dst, name), `,"response":`...)
		dst = endEvent(e.appendResponse(dst, &progress{status: inProgress}))
	}
	return dst
}

func (e *encoder) AppendDelta(dst []byte, d *api.Delta) []byte {
	e.untold.Add(d)
	switch d.Kind {
	case api.DeltaContent:
		return e.appendText(dst, d)
	case api.DeltaReasoning:
		if len(d.Text) == 0 {
			return dst
		}
		if e.open.kind != reasoningItem {
			dst = e.begin(e.end(dst, completed), e.newItem(reasoningItem, e.items))
		}
		return e.appendItemDelta(dst, d.Text, nil)
	case api.DeltaToolCall:
		return e.begin(e.end(dst, completed), e.newCall(d.ToolCall, e.items))
	}
	if len(d.Text) == 0 || e.open.kind != callItem && e.open.kind != customCallItem {
		return dst // arguments come right after the call that they belong to
	}
	return e.appendItemDelta(dst, d.Text, nil)
}

// appendText appends a delta of a message. Tokens that come without text are kept until it is known whose they are.
func (e *encoder) appendText(dst []byte, d *api.Delta) []byte {
	isOpen := e.open.kind == messageItem
	if len(d.Text) == 0 && !isOpen {
		if e.logprobs {
			e.held.add(d.Logprobs)
		}
		return dst
	}
	if !isOpen {
		dst = e.begin(e.end(dst, completed), e.newItem(messageItem, e.items))
	}
	if len(d.Text) == 0 && len(d.Logprobs) == 0 {
		return dst
	}
	return e.appendItemDelta(dst, d.Text, d.Logprobs)
}

func (e *encoder) AppendChoiceEnd(dst []byte, _ int, r *api.Result) []byte {
	if e.items == 0 {
		dst = e.begin(dst, e.newItem(messageItem, 0))
	}
	return e.end(dst, lastStatus(r))
}

func (e *encoder) AppendEnd(dst []byte, r *api.Reply) []byte {
	name := "response.completed"
	if r.Usage.FinishReason == api.FinishLength {
		name = "response.incomplete"
	}
	return endEvent(e.appendFinal(append(e.event(dst, name), `,"response":`...), r))
}

// AppendErrorEvent ends the stream with a response that failed and has what came of it. Clients need the events of the
// start before it. OpenAI's event named error isn't sent: it says less, and its clients read either.
func (e *encoder) AppendErrorEvent(dst []byte, err *api.Error) []byte {
	if !e.begun {
		dst = e.AppendStart(dst)
	}
	if e.open.kind != noItem {
		e.open.complete(incomplete)
		e.ended = e.open.appendObject(api.AppendComma(e.ended, e.items-1), incomplete)
	}
	dst = append(e.event(dst, "response.failed"), `,"response":`...)
	return endEvent(e.appendResponse(dst, &progress{status: failed, output: e.ended, err: err}))
}

// begin appends the events with which an item begins, and opens it.
func (e *encoder) begin(dst []byte, it outputItem) []byte {
	e.open = it
	e.items++
	dst = strconv.AppendInt(append(e.event(dst, "response.output_item.added"), `,"output_index":`...), int64(it.index), 10)
	dst = endEvent(it.appendAdded(append(dst, `,"item":`...)))
	if !it.hasPart() {
		return dst
	}
	dst = e.itemEvent(dst, "response.content_part.added")
	return endEvent(it.appendPart(append(dst, `,"part":`...)))
}

// appendItemDelta appends the event of a new part of the open item. That of a custom tool's input waits for the end,
// since it is JSON until then.
func (e *encoder) appendItemDelta(dst, text []byte, logprobs []api.TokenLogprob) []byte {
	it := &e.open
	it.text = append(it.text, text...)
	if it.kind == customCallItem {
		return dst
	}
	dst = e.itemEvent(dst, it.names().delta)
	dst = api.AppendString(append(dst, `,"delta":`...), text)
	if it.kind != messageItem {
		return endEvent(e.appendUntold(dst))
	}
	dst = append(dst, `,"logprobs":[`...)
	if e.logprobs {
		list, rest := []byte(nil), logprobs
		if len(it.text) == len(text) { // the message begins
			list, rest = e.held.take(text, logprobs)
		}
		list = appendLogprobs(list, rest)
		dst = append(dst, list...)
		it.logprobs = appendEntries(it.logprobs, list)
	}
	return endEvent(e.appendUntold(append(dst, ']')))
}

// appendUntold appends the member timings of a delta's event if it was asked for.
func (e *encoder) appendUntold(dst []byte) []byte {
	if !e.request.Timings {
		return dst
	}
	return e.untold.AppendTimings(dst)
}

// end appends the events with which the open item ends, if there is one.
func (e *encoder) end(dst []byte, status string) []byte {
	it := &e.open
	if it.kind == noItem {
		return dst
	}
	if added := it.complete(status); added != "" {
		dst = api.AppendMember(e.itemEvent(dst, it.names().delta), `,"delta":`, added)
		dst = endEvent(e.appendUntold(dst))
	}
	dst = endEvent(it.appendResult(e.itemEvent(dst, it.names().done)))
	if it.hasPart() {
		dst = e.itemEvent(dst, "response.content_part.done")
		dst = endEvent(it.appendPart(append(dst, `,"part":`...)))
	}
	dst = strconv.AppendInt(append(e.event(dst, "response.output_item.done"), `,"output_index":`...), int64(it.index), 10)
	dst = endEvent(it.appendObject(append(dst, `,"item":`...), status))
	e.ended = it.appendObject(api.AppendComma(e.ended, it.index), status)
	e.open = outputItem{}
	return dst
}

// event appends an event up to the members that only its kind has.
func (e *encoder) event(dst []byte, name string) []byte {
	dst = append(append(append(dst, "event: "...), name...), "\ndata: {\"type\":\""...)
	dst = append(append(dst, name...), `","sequence_number":`...)
	dst = strconv.AppendInt(dst, int64(e.sequence), 10)
	e.sequence++
	return dst
}

// itemEvent appends an event about the open item.
func (e *encoder) itemEvent(dst []byte, name string) []byte {
	dst = append(append(append(e.event(dst, name), `,"item_id":"`...), e.open.id...), `","output_index":`...)
	dst = strconv.AppendInt(dst, int64(e.open.index), 10)
	if e.open.hasPart() {
		dst = append(dst, `,"content_index":0`...)
	}
	return dst
}

func endEvent(dst []byte) []byte { return append(dst, "}\n\n"...) }
