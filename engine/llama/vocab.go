//go:build llama

package llama

/*
#include "shim.h"
*/
import "C"

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
	"unsafe"

	"tandem/engine/batch"
	"tandem/engine/grammar"
	"tandem/engine/models"
)

// vocab is the model's vocabulary as tables, so that text and end of a token cost no call. Read-only after readVocab.
type vocab struct {
	handle   *C.struct_llama_vocab
	pieces   []byte
	offsets  []uint32 // piece i is pieces[offsets[i]:offsets[i+1]]
	flags    []uint8
	specials map[byte][]special // by first byte, longest first: what parse_special would turn into one token
	longest  int                // bytes of the longest token
	bos      batch.Token        // -1: the model wants none
}

type special struct {
	text  []byte
	token batch.Token
	flags uint8
}

// part of a rendered prompt. A client's text must never give a control token.
type part struct {
	text  []byte
	input bool
}

// runMax is where a run without a change between white space and the rest is cut: the tokeniser's work grows with its square.
const runMax = 16 << 10

// digitsMax is where a run of digits is cut: some tokenisers look from each of them to the last one, 40 s for 60 KB.
const digitsMax = 1 << 10

func readVocab(model *C.struct_llama_model) (*vocab, error) {
	handle := C.llama_model_get_vocab(model)
	n := int(C.llama_vocab_n_tokens(handle))
	if n <= 0 || C.llama_vocab_type(handle) == C.LLAMA_VOCAB_TYPE_NONE {
		return nil, errors.New("the model has no vocabulary")
	}
	v := &vocab{handle: handle, offsets: make([]uint32, n+1), flags: make([]uint8, n), specials: make(map[byte][]special), bos: -1}
	for size := 16 * n; ; {
		v.pieces = make([]byte, size)
		need := int(C.tdm_vocab_pieces(handle, (*C.uint8_t)(&v.flags[0]), (*C.uint32_t)(&v.offsets[0]), (*C.char)(unsafe.Pointer(&v.pieces[0])), C.size_t(size)))
		if need <= size {
			v.pieces = slices.Clip(v.pieces[:need])
			break
		}
		size = need + 1
	}
	for t := range n {
		v.longest = max(v.longest, int(v.offsets[t+1]-v.offsets[t]))
		if v.flags[t]&(C.TDM_CONTROL|C.TDM_UNKNOWN) != 0 {
			v.addSpecial(batch.Token(t))
		}
	}
	for _, list := range v.specials {
		slices.SortFunc(list, func(a, b special) int { return cmp.Compare(len(b.text), len(a.text)) })
	}
	if bos := C.llama_vocab_bos(handle); bool(C.llama_vocab_get_add_bos(handle)) && bos >= 0 {
		v.bos = batch.Token(bos)
	}
	return v, nil
}

func (v *vocab) addSpecial(t batch.Token) {
	text := []byte(C.GoString(C.llama_vocab_get_text(v.handle, C.llama_token(t))))
	if len(text) == 0 {
		return
	}
	v.longest = max(v.longest, len(text))
	v.specials[text[0]] = append(v.specials[text[0]], special{text: text, token: t, flags: v.flags[t]})
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

// specialAt is the longest special literal that begins at text[i], nil for none.
func (v *vocab) specialAt(text []byte, i int) *special {
	list := v.specials[text[i]]
	for k := range list {
		if bytes.HasPrefix(text[i:], list[k].text) {
			return &list[k]
		}
	}
	return nil
}

// encode turns a prompt into at most limit tokens. Where the client's text has no literal of a special token the whole text is
// tokenised at once, as llama-server does it; otherwise the template's own literals become tokens and all between them is plain text.
func (v *vocab) encode(ctx context.Context, parts []part, limit int) ([]batch.Token, error) {
	var text []byte
	var spans []span
	for _, p := range parts {
		spans = append(spans, span{from: len(text), to: len(text) + len(p.text), input: p.input})
		text = append(text, p.text...)
	}
	if len(text) > limit*v.longest {
		return nil, models.ErrPromptTooLong
	}
	e := encoder{vocab: v, ctx: ctx, limit: limit}
	if v.bos >= 0 {
		e.out = append(e.out, v.bos)
	}
	if v.touchesInput(text, spans) {
		e.separate(text, spans)
	} else {
		e.whole(text, spans)
	}
	return e.out, e.err
}

type span struct {
	from, to int
	input    bool
}

// inputAt tells whether any byte of [from, to) was written by the client.
func inputAt(spans []span, from, to int) bool {
	for _, s := range spans {
		if s.input && s.from < to && from < s.to {
			return true
		}
	}
	return false
}

// touchesInput finds a special literal that is, wholly or in part, the client's.
func (v *vocab) touchesInput(text []byte, spans []span) bool {
	for _, s := range spans {
		if !s.input {
			continue
		}
		for i := max(0, s.from-v.longest); i < s.to; i++ {
			for _, sp := range v.specials[text[i]] {
				if i+len(sp.text) > s.from && bytes.HasPrefix(text[i:], sp.text) {
					return true
				}
			}
		}
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

// whole tokenises all of it with special literals, in pieces only where the client wrote an endless run.
func (e *encoder) whole(text []byte, spans []span) {
	from := 0
	for _, s := range spans {
		if !s.input {
			continue
		}
		for _, cut := range longRuns(text[s.from:s.to]) {
			e.add(text[from:s.from+cut], true)
			from = s.from + cut
		}
	}
	e.add(text[from:], true)
}

// separate makes tokens of the template's literals and plain text of everything else.
func (e *encoder) separate(text []byte, spans []span) {
	from := 0
	for i := 0; i < len(text); {
		sp := e.vocab.specialAt(text, i)
		if sp == nil || inputAt(spans, i, i+len(sp.text)) {
			i++
			continue
		}
		left := text[from:i]
		if sp.flags&C.TDM_LSTRIP != 0 {
			left = bytes.TrimRight(left, " \t\r\n")
		}
		e.plain(left)
		e.out = append(e.out, sp.token)
		i += len(sp.text)
		if sp.flags&C.TDM_RSTRIP != 0 {
			for i < len(text) && bytes.IndexByte([]byte(" \t\r\n"), text[i]) >= 0 {
				i++
			}
		}
		from = i
	}
	e.plain(text[from:])
}

func (e *encoder) plain(text []byte) {
	from := 0
	for _, cut := range longRuns(text) {
		e.plainRun(text[from:cut])
		from = cut
	}
	e.plainRun(text[from:])
}

// plainRun tokenises text that must not give a control token. Some vocabularies can merge one from its letters; then the literals are
// taken apart.
func (e *encoder) plainRun(text []byte) {
	start := len(e.out)
	e.add(text, false)
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
		e.add(text[from:i+first], false)
		from = i + first
	}
	e.add(text[from:], false)
	if e.err == nil && slices.ContainsFunc(e.out[start:], e.vocab.control) {
		e.err = errors.New("the client's text gives a control token of this vocabulary")
	}
}

func (e *encoder) add(text []byte, specials bool) {
	if e.err == nil {
		e.err = context.Cause(e.ctx)
	}
	if e.err != nil || len(text) == 0 {
		return
	}
	room := make([]batch.Token, len(text)+8)
	for {
		n := int(C.tdm_tokenize(e.vocab.handle, (*C.char)(unsafe.Pointer(&text[0])), C.int32_t(len(text)), (*C.int32_t)(&room[0]), C.int32_t(len(room)), C.bool(specials)))
		switch {
		case n >= 0:
			e.out = append(e.out, room[:n]...)
			if len(e.out) > e.limit {
				e.err = models.ErrPromptTooLong
			}
			return
		case -n <= len(room) || -n > 1<<30:
			e.err = fmt.Errorf("tokenise %d bytes: llama.cpp gives %d", len(text), n)
			return
		}
		room = make([]batch.Token, -n)
	}
}

// longRuns gives the places to cut runs of only white space or only other bytes that are longer than runMax, and of digits that are
// longer than digitsMax, never inside a character.
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
		if (i-start >= runMax || digits > digitsMax) && utf8.RuneStart(c) {
			cuts = append(cuts, i)
			start, digits = i, min(digits, 1)
		}
	}
	return cuts
}

// forGrammars is the vocabulary as grammars see it. The texts of control tokens begin with a byte that no text has, so that they match
// nothing by accident.
func (v *vocab) forGrammars() grammar.Tokens {
	const marker = 0xff
	t := grammar.Tokens{Texts: make([][]byte, v.size()), Encode: v.encodePlain}
	for i := range t.Texts {
		t.Texts[i] = v.piece(batch.Token(i))
	}
	for _, list := range v.specials {
		for _, sp := range list {
			t.Texts[sp.token] = append([]byte{marker}, sp.text...)
		}
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
	e.plain(text)
	if e.err != nil {
		return nil
	}
	return e.out
}
