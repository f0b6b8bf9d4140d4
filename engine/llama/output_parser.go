//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
#include "shim_answer.h"
*/
import "C"

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"unsafe"

	"tandem/engine/batch"
	"tandem/engine/models"
)

const (
	// contentOnly is the parser state of answers that are content as a whole.
	contentOnly = "content 1"
	// stateHead begins the parser state of every other one; the number is that of the form of the rest.
	stateHead = "parser 1\n"

	// parseEvery: an answer is parsed again when it has grown by more than this part of it. The parser begins anew each
	// time, so parsing after every token would take time with the square of the length.
	parseEvery = 512
	// openBracketsMax is how many brackets of an answer may be open. The parser follows them by recursion.
	openBracketsMax = 256
	// unfitBytesMax is how much of an answer may come of which its form allows nothing. A parser can't always tell a
	// form that is broken from one whose next text isn't complete.
	unfitBytesMax = 64
)

// savedParser is what a parser state holds.
type savedParser struct {
	Format           int              `json:"format"`
	GenerationPrompt string           `json:"generation_prompt"`
	Parser           string           `json:"parser"`
	Begun            string           `json:"begun,omitempty"` // text of the prompt with which the answer goes on
	Shown            map[int32]string `json:"shown,omitempty"`
}

// parserState is what NewParser needs for the answer of a shape.
func (b *Base) parserState(shape *answerShape) []byte {
	f := shape.form
	if f == nil || f.Parser == "" {
		return []byte(contentOnly)
	}
	state, err := json.Marshal(savedParser{f.Format, f.GenerationPrompt, f.Parser, shape.begun, b.shownTokens(f)})
	if err != nil {
		return []byte(contentOnly)
	}
	return append([]byte(stateHead), state...)
}

// shownTokens are the control tokens in the texts that the parser looks for.
func (b *Base) shownTokens(f *preparedForm) map[int32]string {
	shown := make(map[int32]string)
	for _, text := range append(append([]string{f.ThinkStart}, f.ThinkEnds...), f.Preserved...) {
		for i := 0; i < len(text); i++ {
			if sp := b.vocab.specialAt([]byte(text), i); sp != nil && !b.vocab.isEnd(sp.token) {
				shown[sp.token] = string(sp.text)
			}
		}
	}
	return shown
}

// NewParser returns the parser of one answer.
func (b *Base) NewParser(state []byte) (models.Parser, error) {
	if string(state) == contentOnly {
		return nil, nil
	}
	rest, ok := bytes.CutPrefix(state, []byte(stateHead))
	if !ok {
		return nil, fmt.Errorf("a parser state of %d bytes that isn't one of this engine's", len(state))
	}
	var saved savedParser
	if err := json.Unmarshal(rest, &saved); err != nil {
		return nil, fmt.Errorf("read a parser state of %d bytes: %w", len(state), err)
	}
	errBuf := newErrorBuffer()
	defer errBuf.free()
	handle := C.tdm_parser_new(cBytes(saved.Parser), C.size_t(len(saved.Parser)), cBytes(saved.GenerationPrompt), C.size_t(len(saved.GenerationPrompt)),
		C.int32_t(saved.Format), errBuf.text, errBuf.size)
	if handle == nil {
		return nil, fmt.Errorf("make a parser of %d bytes: %w", len(saved.Parser), errBuf.err())
	}
	p := &outputParser{handle: handle, shown: saved.Shown, log: b.opts.Logger}
	p.begin(saved.Begun)
	return p, nil
}

// begin puts a text before the answer that counts as sent.
func (p *outputParser) begin(text string) {
	if text == "" {
		return
	}
	p.text = []byte(text)
	p.fitted = len(p.text)
	p.open.count(p.text)
	p.sent.content = text
	if p.open.most > openBracketsMax {
		p.failed = true
		return
	}
	msg, err := p.parse(true)
	if err == nil && (msg.reasoning != "" || len(msg.calls) > 0 || !strings.HasPrefix(text, msg.content)) {
		p.sent = msg // the client has written some of the form itself
		p.sent.calls = nil
	}
}

// cBytes is a text for a call into C that copies it.
func cBytes(s string) *C.char { return (*C.char)(unsafe.Pointer(unsafe.StringData(s))) }

// WriteOut is the text of tokens, control tokens as they are written.
func (b *Base) WriteOut(tokens []int32) []byte {
	var text []byte
	for _, t := range tokens {
		text = append(text, b.vocab.written(batch.Token(t))...)
	}
	return text
}

// outputParser parses the whole answer again and again, and returns what is new since the last time.
type outputParser struct {
	handle *C.tdm_parser
	shown  map[int32]string
	log    *slog.Logger

	text   []byte
	parsed int  // length of text when it was parsed last
	fitted int  // the same, when something could be sent
	failed bool // the rest is content
	open   bracketCount

	sent answerMessage
}

// answerMessage is an answer, or as much of it as was sent.
type answerMessage struct {
	reasoning, content string
	calls              []models.ToolCall
}

func (p *outputParser) Shown() map[int32]string { return p.shown }

func (p *outputParser) Close() {
	if p.handle != nil {
		C.tdm_parser_free(p.handle)
		p.handle = nil
	}
}

// Push parses the answer if it has grown enough. Whether it has depends on the texts alone.
func (p *outputParser) Push(text []byte) []models.Part {
	if len(text) == 0 {
		return nil
	}
	p.text = append(p.text, text...)
	if p.failed {
		return []models.Part{{Kind: models.PartContent, Text: bytes.Clone(text)}}
	}
	p.open.count(text)
	if p.open.most > openBracketsMax {
		p.failed = true
		return p.contentRest()
	}
	if (len(p.text)-p.parsed)*parseEvery <= len(p.text) {
		return nil
	}
	p.parsed = len(p.text)
	msg, err := p.parse(true)
	if err == nil {
		if parts := p.diff(msg, false); len(parts) > 0 || len(msg.calls) > 0 {
			p.fitted = len(p.text)
			return parts
		}
	}
	if len(p.sent.calls) > 0 || len(p.text)-p.fitted <= unfitBytesMax {
		return nil
	}
	if _, err := p.parse(false); err == nil { // the text isn't complete enough
		return nil
	}
	p.failed = true
	return p.contentRest()
}

// Finish parses the whole answer. If that can't be, what wasn't sent is content.
func (p *outputParser) Finish(cut bool) []models.Part {
	if p.failed || len(p.text) == 0 {
		return nil
	}
	msg, err := p.parse(cut)
	if err == nil {
		return p.diff(msg, true)
	}
	p.log.Debug("an answer isn't in the form of its model", "bytes", len(p.text), "error", err)
	var parts []models.Part
	if msg, err = p.parse(true); err == nil && len(p.sent.calls) == 0 && len(msg.calls) == 0 {
		parts = p.diff(msg, true)
	}
	return append(parts, p.contentRest()...)
}

// contentRest is the text after what was sent, as content; nothing if calls were sent, since arguments aren't always
// what the model wrote.
func (p *outputParser) contentRest() []models.Part {
	if len(p.sent.calls) > 0 {
		return nil
	}
	rest := string(p.text)
	for _, sent := range []string{p.sent.reasoning, p.sent.content} {
		if i := strings.Index(rest, sent); sent != "" && i >= 0 {
			rest = rest[i+len(sent):]
		}
	}
	if rest == "" {
		return nil
	}
	return []models.Part{{Kind: models.PartContent, Text: []byte(rest)}}
}

// diff returns what a message has beyond what was sent.
func (p *outputParser) diff(msg answerMessage, last bool) (parts []models.Part) {
	// The blanks at its end are the tag's.
	p.grow(&parts, models.PartReasoning, &p.sent.reasoning, strings.TrimRight(msg.reasoning, " \t\r\n"))
	p.grow(&parts, models.PartContent, &p.sent.content, msg.content)
	for i, c := range msg.calls {
		if i == len(p.sent.calls) {
			// A name is sent once it is complete.
			if c.Name == "" || c.Arguments == "" && !last && i == len(msg.calls)-1 {
				break
			}
			parts = append(parts, models.Part{Kind: models.PartCall, ID: c.ID, Name: c.Name})
			p.sent.calls = append(p.sent.calls, models.ToolCall{ID: c.ID, Name: c.Name})
		}
		if i < len(p.sent.calls)-1 { // arguments belong to the call that began last
			continue
		}
		p.grow(&parts, models.PartArguments, &p.sent.calls[i].Arguments, c.Arguments)
	}
	return parts
}

// grow appends what a text has gained. A parser may change its mind; what was sent stays then, and the text goes on
// when it begins with that again.
func (p *outputParser) grow(parts *[]models.Part, kind models.PartKind, sent *string, now string) {
	if len(now) <= len(*sent) {
		return
	}
	if !strings.HasPrefix(now, *sent) {
		p.log.Debug("the parser of an answer changed its mind", "kind", kind, "sent", len(*sent), "bytes", len(now))
		return
	}
	text := strings.ToValidUTF8(now[len(*sent):], "\uFFFD")
	*parts = append(*parts, models.Part{Kind: kind, Text: []byte(text)})
	*sent = now
}

// parse returns the whole of what is found in the text.
func (p *outputParser) parse(partial bool) (answerMessage, error) {
	errBuf := newErrorBuffer()
	defer errBuf.free()
	var size C.size_t
	out := C.tdm_parser_parse(p.handle, (*C.char)(unsafe.Pointer(unsafe.SliceData(p.text))), C.size_t(len(p.text)), C.bool(partial), &size, errBuf.text, errBuf.size)
	if out == nil {
		return answerMessage{}, errBuf.err()
	}
	defer C.free(unsafe.Pointer(out))
	return readMessage(unsafe.Slice((*byte)(unsafe.Pointer(out)), int(size))), nil
}

// readMessage reads the records of tdm_parser_parse.
func readMessage(records []byte) (msg answerMessage) {
	for len(records) >= 5 {
		kind, n := records[0], int(binary.NativeEndian.Uint32(records[1:5]))
		text := string(records[5 : 5+n])
		records = records[5+n:]
		last := len(msg.calls) - 1
		switch kind {
		case 1:
			msg.content = text
		case 2:
			msg.reasoning = text
		case 3:
			msg.calls = append(msg.calls, models.ToolCall{ID: text})
		case 4:
			msg.calls[last].Name = text
		case 5:
			msg.calls[last].Arguments = text
		}
	}
	return msg
}

// bracketCount counts brackets that are open, those in texts as well.
type bracketCount struct{ now, most int }

func (b *bracketCount) count(text []byte) {
	for _, c := range text {
		switch c {
		case '[', '{':
			b.now++
			b.most = max(b.most, b.now)
		case ']', '}':
			b.now = max(b.now-1, 0)
		}
	}
}
