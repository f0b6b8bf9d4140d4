package link

import (
	"strings"

	"tandem/engine/batch"
	"tandem/engine/models"
	"tandem/schema/parts"
)

// partStream turns the texts of one answer into the part stream that takes their place (schema/parts). Its bytes depend
// on the texts alone, so an answer that is computed again has the same ones at the same places.
type partStream struct {
	parser    models.Parser // nil: everything is content
	end       int           // bytes of the stream so far
	tokens    int           // taken so far
	reasoning int           // tokens up to the last one that had reasoning
}

// take takes the text that the next token released and appends what the stream gains to dst. reason is how the answer
// ends with this token, 0 if it goes on.
func (p *partStream) take(dst, text []byte, reason batch.FinishReason) []byte {
	start := len(dst)
	p.tokens++
	if p.parser == nil {
		dst = parts.AppendText(dst, parts.Content, text)
		p.end += len(dst) - start
		return dst
	}
	dst = p.append(dst, p.parser.Push(text))
	if reason == batch.FinishStop || reason == batch.FinishLength {
		dst = p.append(dst, p.parser.Finish(reason == batch.FinishLength))
	}
	p.end += len(dst) - start
	return dst
}

func (p *partStream) append(dst []byte, list []models.Part) []byte {
	for _, part := range list {
		switch part.Kind {
		case models.PartContent:
			dst = parts.AppendText(dst, parts.Content, part.Text)
		case models.PartReasoning:
			dst = parts.AppendText(dst, parts.Reasoning, part.Text)
			p.reasoning = p.tokens
		case models.PartCall:
			dst = parts.AppendToolCall(dst, cutTo(part.ID, maxCallID), cutTo(part.Name, maxCallName))
		case models.PartArguments:
			dst = parts.AppendText(dst, parts.Arguments, part.Text)
		}
	}
	return dst
}

// close frees the parser.
func (p *partStream) close() {
	if p.parser != nil {
		p.parser.Close()
	}
}

// Bounds on what a model may write as id and name of a call; what is longer is nobody's.
const (
	maxCallID   = 4 << 10
	maxCallName = 4 << 10
)

func cutTo(s string, most int) string { return strings.ToValidUTF8(s[:min(len(s), most)], "\uFFFD") }
