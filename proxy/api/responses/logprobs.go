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
// the answer if nothing follows the text. Where the text isn't found among the tokens as it is, all of them count.
func messageTokens(r *api.Result) []api.TokenLogprob {
	var all []byte
	for i := range r.Logprobs {
		all = append(all, r.Logprobs[i].Bytes...)
	}
	start := bytes.LastIndex(all, []byte(r.Text))
	if r.Text == "" || start < 0 {
		return r.Logprobs
	}
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

// take returns those of the tokens that belong to a text which came with more tokens: the fewest with which the tokens
// begin as the text does. The others are forgotten.
func (h *heldTokens) take(text []byte, more []api.TokenLogprob) (entries []byte) {
	held := *h
	*h = heldTokens{}
	if len(held.entries) == 0 {
		return nil
	}
	all := held.text
	for i := range more {
		all = append(all, more[i].Bytes...)
	}
	for n := len(held.entries); n >= 0; n-- {
		start := 0
		if n > 0 {
			start = held.ends[n-1]
		}
		if bytes.HasPrefix(all[start:], text) {
			for _, entry := range held.entries[n:] {
				entries = appendEntries(entries, entry)
			}
			return entries
		}
	}
	return nil
}
