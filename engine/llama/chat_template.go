//go:build llama

package llama

/*
#include <stdlib.h>
#include "shim.h"
*/
import "C"

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"tandem/engine/grammar"
	"tandem/engine/models"
)

// roles are those that a message may have; any other could inject template text.
var roles = map[string]bool{"system": true, "user": true, "assistant": true}

// ErrMessage is wrapped by errors about messages that the template refuses.
var ErrMessage = models.ErrMessages

// Render applies the chat template and tokenises. Safe from any goroutine. Errors: models.ErrPromptTooLong, and ones
// that wrap ErrMessage, grammar.ErrInvalid or batch.ErrGrammarTooComplex.
func (b *Base) Render(ctx context.Context, in models.Input) (models.Prompt, error) {
	limit := b.limits.SequenceMax
	if in.MaxTokens > 0 {
		limit = min(limit, in.MaxTokens)
	}
	messages := messagesOf(in)
	bytes := 0
	for _, m := range messages {
		bytes += len(m.Content)
	}
	if bytes > limit*b.vocab.longest {
		return models.Prompt{}, models.ErrPromptTooLong
	}
	grammarText, err := b.grammarOf(in)
	if err != nil {
		return models.Prompt{}, err
	}
	if n := len(in.Tokens); n > 0 {
		if n > limit {
			return models.Prompt{}, models.ErrPromptTooLong
		}
		return models.Prompt{Tokens: in.Tokens, Grammar: grammarText}, nil
	}
	parts, err := b.renderParts(in, messages)
	if err != nil {
		return models.Prompt{}, err
	}
	tokens, err := b.vocab.encode(ctx, parts, limit)
	if err != nil {
		return models.Prompt{}, err
	}
	if len(tokens) == 0 {
		return models.Prompt{}, fmt.Errorf("%w: nothing is left of the prompt", ErrMessage)
	}
	prompt := models.Prompt{Tokens: tokens, Grammar: grammarText}
	if in.SplitOutput {
		prompt.Parser = []byte(contentOnly)
	}
	return prompt, nil
}

func messagesOf(in models.Input) []models.Message {
	if len(in.Messages) > 0 {
		return in.Messages
	}
	user := models.Message{Role: "user", Content: in.Prompt}
	if in.System == "" && !in.HasSystem {
		return []models.Message{user}
	}
	return []models.Message{{Role: "system", Content: in.System}, user}
}

// grammarOf returns the grammar that the answer must follow, after checking that it can be followed.
func (b *Base) grammarOf(in models.Input) (string, error) {
	source := grammar.Source{Kind: grammar.GBNF, Text: in.Grammar}
	switch {
	case len(in.JSONSchema) > 0:
		source = grammar.Source{Kind: grammar.JSONSchema, Text: string(in.JSONSchema)}
	case in.Grammar == "":
		return "", nil
	}
	return source.String(), b.checkGrammar(source)
}

func (b *Base) renderParts(in models.Input, messages []models.Message) ([]promptPart, error) {
	for _, m := range messages {
		if !roles[m.Role] {
			return nil, fmt.Errorf("%w: unknown role %q", ErrMessage, m.Role)
		}
	}
	if b.template == nil || in.Raw {
		return []promptPart{{text: []byte(plainText(messages)), fromClient: true}}, nil
	}
	return b.applyTemplate(messages)
}

// plainText is a prompt without a template: the texts, each a paragraph.
func plainText(messages []models.Message) string {
	var texts []string
	for _, m := range messages {
		if m.Role != "system" || m.Content != "" {
			texts = append(texts, m.Content)
		}
	}
	return strings.Join(texts, "\n\n")
}

func (b *Base) applyTemplate(messages []models.Message) ([]promptPart, error) {
	list := unsafe.Slice((*C.tdm_message)(C.calloc(C.size_t(len(messages)), C.sizeof_tdm_message)), len(messages))
	defer C.free(unsafe.Pointer(&list[0]))
	var pinned runtime.Pinner
	defer pinned.Unpin()
	for i, m := range messages {
		list[i].role = C.CString(m.Role)
		defer C.free(unsafe.Pointer(list[i].role))
		if m.Content != "" {
			content := unsafe.StringData(m.Content)
			pinned.Pin(content)
			list[i].content = (*C.char)(unsafe.Pointer(content))
		} else {
			list[i].content = list[i].role // never read
		}
		list[i].content_len = C.size_t(len(m.Content))
	}
	errBuf := newErrorBuffer()
	defer errBuf.free()
	var out C.tdm_rendered
	if !C.tdm_template_render(b.template, &list[0], C.size_t(len(messages)), &out, errBuf.text, errBuf.size) {
		return nil, fmt.Errorf("%w: %w", ErrMessage, errBuf.err())
	}
	defer C.tdm_rendered_free(&out)
	parts := partsOf(&out)
	if len(parts) == 0 {
		return nil, fmt.Errorf("%w: the chat template makes nothing of them", ErrMessage)
	}
	return parts, nil
}

func partsOf(r *C.tdm_rendered) []promptPart {
	n := int(r.parts)
	ends, inputs := unsafe.Slice(r.ends, n), unsafe.Slice(r.input, n)
	parts := make([]promptPart, n)
	from := 0
	for i := range parts {
		to := int(ends[i])
		parts[i] = promptPart{text: C.GoBytes(unsafe.Add(unsafe.Pointer(r.text), from), C.int(to-from)), fromClient: inputs[i] != 0}
		from = to
	}
	return parts
}
