//go:build llama

package llama

import (
	"fmt"
	"strings"

	"tandem/engine/models"
)

// continuedShape renders a conversation that ends with a message of the assistant, with whose text the answer goes on.
// The template writes that message as any other, and the prompt ends where its text does.
func (b *Base) continuedShape(in models.Input, messages []models.Message) (*answerShape, error) {
	in.Continue = false
	head, last := messages[:len(messages)-1], messages[len(messages)-1]
	refuse := func(why string) error {
		return fmt.Errorf("%w: an answer can't go on with the last message: %s", ErrMessage, why)
	}
	switch {
	case last.Role != "assistant":
		return nil, refuse("it isn't the assistant's")
	case len(last.ToolCalls) > 0:
		return nil, refuse("it has tool calls")
	case in.ToolChoice.Required, len(in.JSONSchema) > 0, in.Grammar != "":
		return nil, refuse("a required tool call, a schema or a grammar is that of a whole answer")
	case strings.TrimSpace(last.Content) == "" && len(head) > 0:
		return b.shapeOf(in, head)
	case b.template == nil || in.Raw:
		parts, err := b.renderParts(in, messages)
		return &answerShape{parts: parts}, err
	case b.form == nil:
		return nil, refuse("the form of the model's answers isn't known")
	case len(head) == 0:
		return nil, refuse("there is none before it")
	}
	form, _, err := b.prepareMarked(in, head)
	if err != nil {
		return nil, messageError(err)
	}
	prompt, marks, err := b.renderUpTo(in, messages)
	if err != nil {
		return nil, messageError(err)
	}
	return b.goOn(form, prompt, marks, last.Content), nil
}

// goOn is the shape of an answer to a prompt that ends with a text.
func (b *Base) goOn(form *preparedForm, prompt string, marks *clientMarks, text string) *answerShape {
	continued := *form
	shape := &answerShape{form: &continued}
	if at := strings.LastIndex(prompt, strings.TrimSpace(marks.write(text))); at >= 0 {
		begin, closing := form.beginOf(prompt[:at])
		prompt = prompt[:at] + closing + prompt[at:]
		continued.GenerationPrompt = begin
		shape.begun = strings.NewReplacer(string(marks.before), "", string(marks.after), "").Replace(prompt[at+len(closing):])
	}
	shape.parts = marks.parts(prompt)
	return shape
}

// renderUpTo renders a conversation up to the end of its last message's text.
func (b *Base) renderUpTo(in models.Input, messages []models.Message) (string, *clientMarks, error) {
	marks := newClientMarks(b.vocab, b.form.rests, textsOf(in, messages)...)
	if marks == nil {
		return "", nil, fmt.Errorf("the messages have every character of the private use area")
	}
	var err error
	if in.Tools, err = toolsForLibrary(in.Tools); err != nil {
		return "", nil, err
	}
	request, err := b.form.requestOf(in, messages, marks.write)
	if err != nil {
		return "", nil, err
	}
	end := string(marks.after) + string(marks.before) // the marks of texts never stand like this
	request.Messages[len(request.Messages)-1].Content += end
	request.PromptOnly, request.Continues = true, true
	rendered, err := b.form.prepare(request)
	if err != nil {
		return "", nil, err
	}
	at := strings.LastIndex(rendered.Prompt, end)
	if at < 0 {
		return "", nil, fmt.Errorf("the chat template doesn't show the last message")
	}
	return rendered.Prompt[:at], marks, nil
}

// beginOf is what stands before an answer's content, for its parser: what a template has written at the end of a
// prompt, or would have written before an answer, with the reasoning ended. closing ends it in the prompt, too, where
// the template has left it open.
func (f *preparedForm) beginOf(prompt string) (begin, closing string) {
	start, end := strings.TrimSpace(f.ThinkStart), f.thinkEnd()
	begin = f.GenerationPrompt
	if start != "" {
		begin, _, _ = strings.Cut(begin, start)
	}
	from := strings.LastIndex(prompt, begin)
	if begin == "" || from < 0 { // the form of answers is another template's
		begin = f.GenerationPrompt
	} else if begin = prompt[from:]; f.isThinkingAfter(begin) {
		closing = end
	}
	switch {
	case f.isThinkingAfter(begin):
		begin += end
	case !strings.Contains(begin, start) && strings.Contains(begin, end) && f.isThinkingAfter(f.GenerationPrompt):
		begin = f.GenerationPrompt + end // the parser expects it to be begun
	}
	return begin, closing
}

// isThinkingAfter reports whether an answer that begins so is still in its reasoning.
func (f *preparedForm) isThinkingAfter(begin string) bool {
	end := f.thinkEnd()
	at := strings.LastIndex(begin, strings.TrimSpace(f.ThinkStart))
	return f.Thinks && end != "" && at >= 0 && !strings.Contains(begin[at:], end)
}
