//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"unicode/utf8"
	"unsafe"

	"tandem/engine/batch"
	"tandem/engine/grammar"
	"tandem/engine/models"
)

// vocab is the model's vocabulary as tables, so that a token's text and whether it ends an answer cost no call into C.
// Read-only after readVocab.
type vocab struct {
	handle   *C.struct_llama_vocab
	pieces   []byte
	offsets  []uint32 // piece i is pieces[offsets[i]:offsets[i+1]]
	flags    []uint8
	specials specialTexts
	longest  int           // bytes of the longest token
	bos      batch.Token   // -1: the model wants none
	ends     []batch.Token // that end an answer
}

// promptPart is a part of a rendered prompt. Text from the client must never become a control token.
type promptPart struct {
	text       []byte
	fromClient bool
}

// maxRunBytes is where a run of only white space or only other bytes is cut: the tokeniser's work grows with the square
// of its length.
const maxRunBytes = 16 << 10

// maxDigitRun is where a run of digits is cut: some tokenisers scan from each digit to the last one, 40 s for 60 KB.
const maxDigitRun = 1 << 10

func readVocab(model *C.struct_llama_model) (*vocab, error) {
	handle := C.llama_model_get_vocab(model)
	n := int(C.llama_vocab_n_tokens(handle))
	if n <= 0 || C.llama_vocab_type(handle) == C.LLAMA_VOCAB_TYPE_NONE {
		return nil, errors.New("the model has no vocabulary")
	}
	v := &vocab{handle: handle, offsets: make([]uint32, n+1), flags: make([]uint8, n), bos: -1}
	for size := 16 * n; ; {
		v.pieces = make([]byte, size)
		need := int(C.tdm_vocab_pieces(handle, (*C.uint8_t)(&v.flags[0]), (*C.uint32_t)(&v.offsets[0]), (*C.char)(unsafe.Pointer(&v.pieces[0])), C.size_t(size)))
		if need <= size {
			v.pieces = slices.Clip(v.pieces[:need])
			break
		}
		size = need + 1
	}
	var specials []specialToken
	for t := range n {
		v.longest = max(v.longest, int(v.offsets[t+1]-v.offsets[t]))
		if v.flags[t]&(C.TDM_CONTROL|C.TDM_UNKNOWN) != 0 {
			specials = v.appendSpecial(specials, batch.Token(t))
		}
		if v.isEnd(batch.Token(t)) {
			v.ends = append(v.ends, batch.Token(t))
		}
	}
	v.specials = newSpecialTexts(specials)
	if bos := C.llama_vocab_bos(handle); bool(C.llama_vocab_get_add_bos(handle)) && bos >= 0 {
		v.bos = batch.Token(bos)
	}
	return v, nil
}

func (v *vocab) appendSpecial(list []specialToken, t batch.Token) []specialToken {
	text := []byte(C.GoString(C.llama_vocab_get_text(v.handle, C.llama_token(t))))
	if len(text) == 0 {
		return list
	}
	v.longest = max(v.longest, len(text))
	return append(list, specialToken{text: text, token: t, flags: v.flags[t]})
}

func (v *vocab) size() int                  { return len(v.flags) }
func (v *vocab) valid(t batch.Token) bool   { return t >= 0 && int(t) < len(v.flags) }
func (v *vocab) isEnd(t batch.Token) bool   { return v.valid(t) && v.flags[t]&C.TDM_END != 0 }
func (v *vocab) control(t batch.Token) bool { return v.valid(t) && v.flags[t]&C.TDM_CONTROL != 0 }

func (v *vocab) piece(t batch.Token) []byte {
	if !v.valid(t) {
		return nil
	}
	return v.pieces[v.offsets[t]:v.offsets[t+1]:v.offsets[t+1]]
}

// written is the text of a token, of a control token as it is written in templates.
func (v *vocab) written(t batch.Token) []byte {
	if !v.valid(t) {
		return nil
	}
	if text := v.piece(t); len(text) > 0 {
		return text
	}
	return []byte(C.GoString(C.llama_vocab_get_text(v.handle, C.llama_token(t))))
}

// specialAt returns the longest special token whose text begins at text[i], nil for none.
func (v *vocab) specialAt(text []byte, i int) *specialToken {
	longest, _ := matchSpecial(&v.specials, text[i:])
	return longest
}

// encode turns a prompt into at most limit tokens.
func (v *vocab) encode(ctx context.Context, parts []promptPart, limit int) ([]batch.Token, error) {
	e := encoder{vocab: v, ctx: ctx, limit: limit}
	if v.bos >= 0 {
		e.out = append(e.out, v.bos)
	}
	e.parts(parts)
	return e.out, e.err
}

// clientSpans are the parts of a prompt that the client wrote, in their order.
type clientSpans []textSpan

type textSpan struct{ from, to int }

// overlap reports whether any byte of [from, to) was written by the client.
func (s clientSpans) overlap(from, to int) bool {
	i := sort.Search(len(s), func(i int) bool { return s[i].to > from })
	for i < len(s) && s[i].from == s[i].to {
		i++
	}
	return i < len(s) && s[i].from < to
}

// specialInClientText reports whether a special token's text is, in whole or in part, the client's.
func (v *vocab) specialInClientText(text []byte, spans clientSpans) bool {
	next := 0
	for _, s := range spans {
		for i := max(next, s.from-v.longest); i < s.to; i++ {
			if sp := v.specialAt(text, i); sp != nil && spans.overlap(i, i+len(sp.text)) {
				return true
			}
		}
		next = max(next, s.to)
	}
	return false
}

// encoder collects the tokens of one prompt; the first error ends it.
type encoder struct {
	vocab *vocab
	ctx   context.Context
	limit int
	out   []batch.Token
	err   error
}

// comparesMax bounds the time in which the library looks for each special token in a text, to about 1 s.
const comparesMax = 100_000_000

// parts adds a prompt in which only the template's own texts may become control tokens. When the client's text contains
// no special token's text, the whole prompt is tokenised at once, as llama-server does it; otherwise, and where that
// would take too long, the template's own special tokens are found here and all text between them is encoded as plain
// text.
func (e *encoder) parts(parts []promptPart) {
	var text []byte
	var spans clientSpans
	for _, p := range parts {
		if p.fromClient {
			spans = append(spans, textSpan{from: len(text), to: len(text) + len(p.text)})
		}
		text = append(text, p.text...)
	}
	switch {
	case len(text) > e.limit*e.vocab.longest:
		e.err = models.ErrPromptTooLong
	case e.vocab.specials.compares(text) > comparesMax || e.vocab.specialInClientText(text, spans):
		e.encodeSeparately(text, spans)
	default:
		e.encodeWhole(text, spans)
	}
}

// encodeWhole tokenises the whole text with special tokens; it is cut only where the client wrote a long run.
func (e *encoder) encodeWhole(text []byte, spans clientSpans) {
	from := 0
	for _, s := range spans {
		for _, cut := range longRuns(text[s.from:s.to]) {
			e.tokenize(text[from:s.from+cut], true)
			from = s.from + cut
		}
	}
	e.tokenize(text[from:], true)
}

// encodeSeparately encodes the template's special tokens as such and everything else as plain text.
func (e *encoder) encodeSeparately(text []byte, spans clientSpans) {
	from := 0
	for i := 0; i < len(text); {
		sp := e.vocab.specialAt(text, i)
		if sp == nil || spans.overlap(i, i+len(sp.text)) {
			i++
			continue
		}
		left := text[from:i]
		if sp.flags&C.TDM_LSTRIP != 0 {
			left = bytes.TrimRight(left, " \t\r\n")
		}
		e.encodePlain(left)
		e.out = append(e.out, sp.token)
		i += len(sp.text)
		if sp.flags&C.TDM_RSTRIP != 0 {
			for i < len(text) && bytes.IndexByte([]byte(" \t\r\n"), text[i]) >= 0 {
				i++
			}
		}
		from = i
	}
	e.encodePlain(text[from:])
}

func (e *encoder) encodePlain(text []byte) {
	from := 0
	for _, cut := range longRuns(text) {
		e.encodePlainRun(text[from:cut])
		from = cut
	}
	e.encodePlainRun(text[from:])
}

// encodePlainRun tokenises text that must not become a control token. Some vocabularies can merge one from its letters;
// then the texts of special tokens are split after their first character.
func (e *encoder) encodePlainRun(text []byte) {
	start := len(e.out)
	e.tokenize(text, false)
	if !slices.ContainsFunc(e.out[min(start, len(e.out)):], e.vocab.control) {
		return
	}
	e.out = e.out[:start]
	from := 0
	for i := range text {
		if e.vocab.specialAt(text, i) == nil {
			continue
		}
		_, first := utf8.DecodeRune(text[i:])
		e.tokenize(text[from:i+first], false)
		from = i + first
	}
	e.tokenize(text[from:], false)
	if e.err == nil && slices.ContainsFunc(e.out[start:], e.vocab.control) {
		e.err = errors.New("the client's text gives a control token of this vocabulary")
	}
}

func (e *encoder) tokenize(text []byte, specials bool) {
	if e.err == nil {
		e.err = context.Cause(e.ctx)
	}
	if e.err != nil || len(text) == 0 {
		return
	}
	buf := make([]batch.Token, len(text)+8)
	for {
		n := int(C.tdm_tokenize(e.vocab.handle, (*C.char)(unsafe.Pointer(&text[0])), C.int32_t(len(text)), (*C.int32_t)(&buf[0]), C.int32_t(len(buf)), C.bool(specials)))
		switch {
		case n >= 0:
			e.out = append(e.out, buf[:n]...)
			if len(e.out) > e.limit {
				e.err = models.ErrPromptTooLong
			}
			return
		case -n <= len(buf) || -n > 1<<30:
			e.err = fmt.Errorf("tokenise %d bytes: llama.cpp gives %d", len(text), n)
			return
		}
		buf = make([]batch.Token, -n)
	}
}

// longRuns returns where to cut runs of only white space or only other bytes that are longer than maxRunBytes, and runs
// of digits that are longer than maxDigitRun, never inside a character.
func longRuns(text []byte) []int {
	var cuts []int
	start, blank, digits := 0, false, 0
	for i, c := range text {
		if digits++; c < '0' || c > '9' {
			digits = 0
		}
		isBlank := c == ' ' || c == '\t' || c == '\n' || c == '\r'
		if i == 0 || isBlank != blank {
			start, blank = i, isBlank
		}
		if (i-start >= maxRunBytes || digits > maxDigitRun) && utf8.RuneStart(c) {
			cuts = append(cuts, i)
			start, digits = i, min(digits, 1)
		}
	}
	return cuts
}

// grammarTokens is the vocabulary in the form that package grammar needs. The texts of control tokens begin with a byte
// that is in no text, so that they match nothing by accident.
func (v *vocab) grammarTokens() grammar.Tokens {
	t := grammar.Tokens{Texts: make([][]byte, v.size()), Encode: v.encodePlain}
	for i := range t.Texts {
		t.Texts[i] = v.piece(batch.Token(i))
	}
	for _, sp := range v.specials.list {
		t.Texts[sp.token] = append([]byte{grammar.ControlMark}, sp.text...)
	}
	for _, end := range []C.llama_token{C.llama_vocab_eot(v.handle), C.llama_vocab_eos(v.handle)} {
		if v.isEnd(batch.Token(end)) && !slices.Contains(t.Ends, batch.Token(end)) {
			t.Ends = append(t.Ends, batch.Token(end))
		}
	}
	for i := range t.Texts {
		if v.isEnd(batch.Token(i)) && !slices.Contains(t.Ends, batch.Token(i)) {
			t.Ends = append(t.Ends, batch.Token(i))
		}
	}
	return t
}

// encodePlain tokenises a part of an answer; nil when that fails.
func (v *vocab) encodePlain(text []byte) []batch.Token {
	e := encoder{vocab: v, ctx: context.Background(), limit: len(text) + 8}
	e.encodePlain(text)
	if e.err != nil {
		return nil
	}
	return e.out
}
