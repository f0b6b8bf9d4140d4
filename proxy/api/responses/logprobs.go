package responses

import (
	"bytes"
	"strconv"

	"tandem/proxy/api"
)

// lowestLogprob stands for a probability of zero, as in OpenAI's API; JSON has no infinity.
const lowestLogprob = -9999

// appendLogprobs appends tokens as entries of a list. The end token and others without text are left out.
func appendLogprobs(dst []byte, list []api.TokenLogprob) []byte {
	for i := range list {
		t := &list[i]
		if len(t.Bytes) == 0 {
			continue
		}
		dst = appendLogprob(separate(dst), t.Bytes, t.Logprob)
		dst = append(dst, `,"top_logprobs":[`...)
		for k := range t.Top {
			dst = append(appendLogprob(api.AppendComma(dst, k), t.Top[k].Bytes, t.Top[k].Logprob), '}')
		}
		dst = append(dst, "]}"...)
	}
	return dst
}

// appendEntries appends entries of a list to others.
func appendEntries(dst, entries []byte) []byte {
	if len(entries) == 0 {
		return dst
	}
	return append(separate(dst), entries...)
}

// separate appends a comma unless nothing is before it.
func separate(entries []byte) []byte { return api.AppendComma(entries, len(entries)) }

// appendLogprob appends an object of one token, without its end.
func appendLogprob(dst, text []byte, logprob float32) []byte {
	dst = api.AppendString(append(dst, `{"token":`...), text)
	dst = append(dst, `,"bytes":[`...)
	for i, b := range text {
		dst = strconv.AppendUint(api.AppendComma(dst, i), uint64(b), 10)
	}
	if !(logprob >= lowestLogprob) { // not a number, too
		logprob = lowestLogprob
	}
	return strconv.AppendFloat(append(dst, `],"logprob":`...), float64(logprob), 'g', -1, 32)
}

// messageTokens are the tokens behind the text of an answer: from the first that is in it to the last, or to the end of
// the answer if no call follows. Where the text isn't found among the tokens behind the reasoning, all of them count.
func messageTokens(r *api.Result) []api.TokenLogprob {
	var all []byte
	for i := range r.Logprobs {
		all = append(all, r.Logprobs[i].Bytes...)
	}
	start := max(0, bytes.Index(all, []byte(r.Reasoning))) + len(r.Reasoning)
	found := bytes.Index(all[min(start, len(all)):], []byte(r.Text))
	if r.Text == "" || found < 0 {
		return r.Logprobs
	}
	start += found
	first, last, offset := 0, len(r.Logprobs), 0
	for i := range r.Logprobs {
		if offset <= start {
			first = i
		}
		if offset >= start+len(r.Text) && len(r.ToolCalls) > 0 {
			last = i
			break
		}
		offset += len(r.Logprobs[i].Bytes)
	}
	return r.Logprobs[first:last]
}

// heldTokens are tokens that came without text while no message was open. They are those of reasoning and of calls, or
// the first ones of a message whose text was held back since it could have become a stop string.
type heldTokens struct {
	text    []byte
	entries [][]byte // of the list of log-probabilities
	ends    []int    // of each token in text
}

// maxHeldTokens is more than a stop string can hold back.
const maxHeldTokens = api.MaxStopBytes + 8

func (h *heldTokens) add(list []api.TokenLogprob) {
	for i := range list {
		if len(list[i].Bytes) == 0 {
			continue
		}
		h.text = append(h.text, list[i].Bytes...)
		h.entries = append(h.entries, appendLogprobs(nil, list[i:i+1]))
		h.ends = append(h.ends, len(h.text))
	}
	if n := len(h.entries) - maxHeldTokens; n > 0 {
		cut := h.ends[n-1]
		h.text, h.entries, h.ends = h.text[cut:], h.entries[n:], h.ends[n:]
		for i := range h.ends {
			h.ends[i] -= cut
		}
	}
}

// take ends the holding back when a message begins with a text and the tokens that came with it. It returns what of the
// held ones is the message's, and what of the others: the fewest tokens that begin as the text does. Where none do, as
// in a template that changes the text, only those that came with it count.
func (h *heldTokens) take(text []byte, more []api.TokenLogprob) (entries []byte, rest []api.TokenLogprob) {
	held := *h
	*h = heldTokens{}
	all, starts := held.text, append([]int{0}, held.ends...)
	for i := range more {
		all = append(all, more[i].Bytes...)
		starts = append(starts, len(all))
	}
	n := len(starts) - 1
	for n >= 0 && !bytes.HasPrefix(all[starts[n]:], text) {
		n--
	}
	switch {
	case n < 0:
		return nil, more
	case n >= len(held.entries):
		return nil, more[n-len(held.entries):]
	}
	for _, entry := range held.entries[n:] {
		entries = appendEntries(entries, entry)
	}
	return entries, more
}
