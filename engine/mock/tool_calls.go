package mock

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"tandem/engine/models"
)

// With SplitOutput an answer can have reasoning and tool calls. The prompt's last message says which, since the mock
// has no model that could decide:
//
//   - `think WHY` in its first line: the answer begins with the reasoning WHY. The lines after it are the message; if
//     there are none, WHY is also the content.
//   - a line `call NAME {…}`: a call of a tool with that name and these arguments, if the request has it and its
//     tool_choice allows it. Without parallel calls only the first such line counts.
//   - a call that is required and not in the message: the named tool, or the first one, with the arguments {}.
//   - everything else is echoed as content. If the last message is a tool's, that is the tool's result, so that a
//     client which goes on until no call comes gets to an end.
//
// Such an answer is a text with the marks below, which Render makes the prompt and the parser takes apart again. So is
// a message that has these marks in it.
const (
	thinkOpen, thinkClose = "<think>", "</think>"
	callOpen, callClose   = "<tool_call>", "</tool_call>"
)

// parserState is what NewParser gets; the number is that of the format.
const parserState = "mock 1"

// script is the text with which the mock answers a message.
func script(in models.Input, text string, fromTool bool) string {
	var answer strings.Builder
	if first, rest, more := strings.Cut(text, "\n"); strings.HasPrefix(first, "think ") {
		text = strings.TrimPrefix(first, "think ")
		answer.WriteString(thinkOpen + text + thinkClose)
		if more {
			text = rest
		}
	}
	calls := callsOf(in, text)
	if len(calls) == 0 && in.ToolChoice.Required && !fromTool {
		calls = []models.ToolCall{{Name: requiredTool(in), Arguments: "{}"}}
	}
	if len(calls) == 0 {
		answer.WriteString(text)
	}
	for _, c := range calls {
		answer.WriteString(callOpen + c.Name + " " + c.Arguments + callClose)
	}
	return answer.String()
}

func requiredTool(in models.Input) string {
	if in.ToolChoice.Name != "" {
		return in.ToolChoice.Name
	}
	return in.Tools[0].Name
}

// callsOf returns the calls that a message asks for and the request allows.
func callsOf(in models.Input, text string) []models.ToolCall {
	if in.ToolChoice.None {
		return nil
	}
	var calls []models.ToolCall
	for line := range strings.Lines(text) {
		line, isCall := strings.CutPrefix(strings.TrimSpace(line), "call ")
		name, arguments, _ := strings.Cut(line, " ")
		if !isCall || !mayCall(in, name) {
			continue
		}
		if arguments == "" {
			arguments = "{}"
		}
		calls = append(calls, models.ToolCall{Name: name, Arguments: arguments})
		if !in.ParallelToolCalls {
			break
		}
	}
	return calls
}

func mayCall(in models.Input, name string) bool {
	if in.ToolChoice.Name != "" {
		return name == in.ToolChoice.Name
	}
	return slices.ContainsFunc(in.Tools, func(t models.Tool) bool { return t.Name == name })
}

// NewParser returns a parser of the mock's answers.
func (b *Base) NewParser(state []byte) (models.Parser, error) {
	switch string(state) {
	case parserState:
		return &parser{kind: models.PartContent}, nil
	case plainState:
		return nil, nil
	}
	return nil, fmt.Errorf("mock: a parser state of %d bytes that isn't its own", len(state))
}

// plainState is the state of an answer that has nothing but content.
const plainState = "mock content"

// stateOf returns the parser state of an answer.
func stateOf(answer string) string {
	if strings.Contains(answer, thinkOpen) || strings.Contains(answer, callOpen) {
		return parserState
	}
	return plainState
}

// parser takes answers apart. It holds back what may become a mark.
type parser struct {
	kind    models.PartKind // of what comes next; PartCall: the name of a call
	pending []byte
}

func (*parser) Shown() map[int32]string { return nil }
func (*parser) Close()                  {}

func (p *parser) Push(text []byte) []models.Part {
	p.pending = append(p.pending, text...)
	return p.take(false)
}

func (p *parser) Finish(bool) []models.Part { return p.take(true) }

// marks are what ends a part, and the kind of the next one.
var marks = map[models.PartKind]map[string]models.PartKind{
	models.PartContent:   {thinkOpen: models.PartReasoning, callOpen: models.PartCall},
	models.PartReasoning: {thinkClose: models.PartContent},
	models.PartCall:      {" ": models.PartArguments},
	models.PartArguments: {callClose: models.PartContent},
}

func (p *parser) take(all bool) []models.Part {
	var list []models.Part
	for {
		at, length, next := p.nextMark()
		switch {
		case at >= 0:
			list = p.add(list, p.pending[:at])
			p.kind, p.pending = next, p.pending[at+length:]
			continue
		case p.kind == models.PartCall && !all: // a name is sent as a whole
			return list
		case all:
			at = len(p.pending)
		default:
			at = len(p.pending) - p.heldBack()
		}
		list = p.add(list, p.pending[:at])
		p.pending = p.pending[at:]
		return list
	}
}

// nextMark returns the first mark in pending; at is -1 if there is none.
func (p *parser) nextMark() (at, length int, next models.PartKind) {
	at = -1
	for mark, kind := range marks[p.kind] {
		if i := bytes.Index(p.pending, []byte(mark)); i >= 0 && (at < 0 || i < at) {
			at, length, next = i, len(mark), kind
		}
	}
	return at, length, next
}

// heldBack is how many bytes at the end of pending may be the beginning of a mark.
func (p *parser) heldBack() int {
	most := 0
	for mark := range marks[p.kind] {
		for n := min(len(mark)-1, len(p.pending)); n > most; n-- {
			if bytes.HasSuffix(p.pending, []byte(mark[:n])) {
				most = n
			}
		}
	}
	return most
}

func (p *parser) add(list []models.Part, text []byte) []models.Part {
	switch {
	case p.kind == models.PartCall:
		return append(list, models.Part{Kind: p.kind, Name: string(text)})
	case len(text) == 0:
		return list
	}
	return append(list, models.Part{Kind: p.kind, Text: bytes.Clone(text)})
}
