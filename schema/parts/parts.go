// Package parts is the form in which an engine sends an answer that is more than text: content, reasoning and tool
// calls, written one after the other as records in one stream of bytes. The stream takes the place of the answer's
// text, so positions in it (Token.textEnd) work as positions in a text do: an engine that computes an answer again
// writes the same bytes, and what was received before is skipped. The package knows neither models nor clients.
//
// A record is its kind (one byte), the length of its payload (uvarint) and the payload. That of a tool call is the
// length of its id (uvarint), the id and the name; that of the others is text.
package parts

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Kind says what a part is.
type Kind uint8

// Kinds of parts.
const (
	Content   Kind = iota + 1 // text of the answer
	Reasoning                 // what the model thinks before it answers
	ToolCall                  // a call begins; its arguments follow
	Arguments                 // JSON text, a part of the arguments of the call that began last
)

// MaxPayload bounds one record; writers split longer texts.
const MaxPayload = 64 << 10

// Part is one record.
type Part struct {
	Kind Kind
	Text []byte // of all but ToolCall; whole characters
	ID   string // of ToolCall, as the model wrote it; empty: it wrote none
	Name string // of ToolCall
}

// ErrMalformed is wrapped by the errors of Next.
var ErrMalformed = errors.New("malformed part stream")

// AppendText appends text as records of a kind that has text; none for an empty one.
func AppendText(dst []byte, kind Kind, text []byte) []byte {
	for len(text) > 0 {
		n := min(len(text), MaxPayload)
		for n < len(text) && n > MaxPayload-utf8.UTFMax && !utf8.RuneStart(text[n]) { // records have whole characters
			n--
		}
		dst = appendHead(dst, kind, n)
		dst = append(dst, text[:n]...)
		text = text[n:]
	}
	return dst
}

// AppendToolCall appends the beginning of a tool call. Id and name together must be shorter than MaxPayload by ten
// bytes.
func AppendToolCall(dst []byte, id, name string) []byte {
	var size [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(size[:], uint64(len(id)))
	dst = appendHead(dst, ToolCall, n+len(id)+len(name))
	dst = append(dst, size[:n]...)
	return append(append(dst, id...), name...)
}

func appendHead(dst []byte, kind Kind, length int) []byte {
	return binary.AppendUvarint(append(dst, byte(kind)), uint64(length))
}

// Next reads the first record of stream, which must not be empty, and returns what follows it. Text points into
// stream.
func Next(stream []byte) (p Part, rest []byte, err error) {
	kind := Kind(stream[0])
	if kind < Content || kind > Arguments {
		return Part{}, nil, fmt.Errorf("%w: kind %d", ErrMalformed, kind)
	}
	payload, rest, ok := cut(stream[1:])
	if !ok {
		return Part{}, nil, fmt.Errorf("%w: a record of kind %d is cut off or too long", ErrMalformed, kind)
	}
	if kind != ToolCall {
		return Part{Kind: kind, Text: payload}, rest, nil
	}
	id, name, ok := cut(payload)
	if !ok {
		return Part{}, nil, fmt.Errorf("%w: the id of a tool call is cut off", ErrMalformed)
	}
	return Part{Kind: kind, ID: string(id), Name: string(name)}, rest, nil
}

// cut reads a length and that many bytes.
func cut(b []byte) (payload, rest []byte, ok bool) {
	length, n := binary.Uvarint(b)
	if n <= 0 || length > MaxPayload || length > uint64(len(b)-n) {
		return nil, nil, false
	}
	return b[n : n+int(length)], b[n+int(length):], true
}
