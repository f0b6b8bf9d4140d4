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
	"encoding/json"
	"fmt"
	"sync"
	"unsafe"

	"tandem/engine/grammar"
	"tandem/engine/models"
)

// answerForm is what a chat template says about answers: how the model writes tool calls and what it thinks.
type answerForm struct {
	handle    *C.tdm_form
	tools     bool // of the template's own
	reasoning bool
	rests     map[byte][]string // see restsOf
	calls     callFormCache
}

// openForm finds out the form of answers. Without one the model is served all the same: its answers are content, and
// requests with tools are refused.
func (b *Base) openForm() {
	name := C.CString("tool_use")
	defer C.free(unsafe.Pointer(name))
	errBuf := newErrorBuffer()
	defer errBuf.free()
	source, toolSource := C.tdm_template_source(b.template), C.llama_model_chat_template(b.model, name)
	handle := C.tdm_form_new(source, toolSource,
		C.tdm_template_bos(b.template), C.tdm_template_eos(b.template),
		C.llama_vocab_get_add_bos(b.vocab.handle), C.llama_vocab_get_add_eos(b.vocab.handle), errBuf.text, errBuf.size)
	if handle == nil {
		b.opts.Logger.Warn("the form of the model's answers isn't known: no tools, and reasoning is part of the content",
			"model", b.spec.Name, "error", errBuf.err())
		return
	}
	b.form = &answerForm{
		handle: handle, tools: bool(C.tdm_form_tools(handle)), reasoning: bool(C.tdm_form_reasoning(handle)),
		rests: restsOf(b.vocab, C.GoString(source), C.GoString(toolSource)),
	}
}

func (f *answerForm) close() { C.tdm_form_free(f.handle) }

// formRequest is what the library gets.
type formRequest struct {
	Messages   []formMessage              `json:"messages"`
	Tools      []formTool                 `json:"tools"`
	Choice     string                     `json:"choice"`
	Only       string                     `json:"only"`
	Parallel   bool                       `json:"parallel"`
	Options    map[string]json.RawMessage `json:"options"`
	PromptOnly bool                       `json:"prompt_only"`
	Continues  bool                       `json:"continues"` // the prompt ends with the last message
	// WantGrammar: the form of calls is asked for, too. Bind are the tools in whose arguments' place it has marks,
	// which begin with Mark.
	WantGrammar bool     `json:"want_grammar"`
	Bind        []string `json:"bind"`
	Mark        string   `json:"mark"`
}

type formMessage struct {
	Role       string     `json:"role"`
	Content    string     `json:"content"`
	Reasoning  string     `json:"reasoning_content,omitempty"`
	Name       string     `json:"name,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
	ToolCalls  []formCall `json:"tool_calls,omitempty"`
}

type formCall struct {
	ID       string       `json:"id,omitempty"`
	Type     string       `json:"type"`
	Function formFunction `json:"function"`
}

type formTool struct {
	Type     string       `json:"type"`
	Function formFunction `json:"function"`
}

type formFunction struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Arguments   *string         `json:"arguments,omitempty"`
}

// preparedForm is what it makes of that: the prompt, and how the answer to it looks.
type preparedForm struct {
	Prompt           string        `json:"prompt"`
	GenerationPrompt string        `json:"generation_prompt"` // the beginning of the answer that the prompt already has
	Format           int           `json:"format"`
	Parser           string        `json:"parser"`
	Preserved        []string      `json:"preserved"`
	Stops            []string      `json:"stops"`
	Thinks           bool          `json:"thinks"`
	ThinkStart       string        `json:"think_start"`
	ThinkEnds        []string      `json:"think_ends"`
	Triggers         []formTrigger `json:"triggers"`
	callForm
}

// callForm is how calls of a request's tools look. It doesn't depend on the messages.
type callForm struct {
	Grammar   string         `json:"grammar"`    // GBNF of an answer with a call
	CallRules []string       `json:"call_rules"` // the rules for calls alone
	Marks     []argumentMark `json:"marks"`

	arguments []grammar.Arguments // what the marks stand for
}

type formTrigger struct {
	Type  int    `json:"type"` // 0 token, 1 word, 2 pattern, 3 pattern of the whole
	Value string `json:"value"`
	Token int32  `json:"token"`
}

// callFormsMax is how many forms of calls are kept: agents send the same tools with each message.
const callFormsMax = 32

// callFormCache keeps the forms of calls that were made last.
type callFormCache struct {
	mu    sync.Mutex // guards what follows
	forms map[string]callForm
	order []string // of the keys, oldest first
}

func (c *callFormCache) get(key string) (callForm, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	form, ok := c.forms[key]
	return form, ok
}

func (c *callFormCache) put(key string, form callForm) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.forms[key]; ok {
		return
	}
	if len(c.order) >= callFormsMax {
		delete(c.forms, c.order[0])
		c.order = c.order[1:]
	}
	if c.forms == nil {
		c.forms = make(map[string]callForm)
	}
	c.forms[key], c.order = form, append(c.order, key)
}

// renders reports whether the template makes a prompt of a request. Without calls there is no grammar of its tools.
func (f *answerForm) renders(request *formRequest) bool {
	only := *request
	only.PromptOnly, only.WantGrammar, only.Choice = true, false, "none"
	_, err := f.prepare(&only)
	return err == nil
}

// prepare passes a request to the library.
func (f *answerForm) prepare(request *formRequest) (*preparedForm, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(request); err != nil {
		return nil, fmt.Errorf("encode a request for the chat template: %w", err)
	}
	errBuf := newErrorBuffer()
	defer errBuf.free()
	watchdog := grammar.StartHangWatchdog("finding out the form of an answer")
	defer watchdog.Stop()
	var size C.size_t
	out := C.tdm_form_prepare(f.handle, (*C.char)(unsafe.Pointer(unsafe.SliceData(text.Bytes()))), C.size_t(text.Len()), &size, errBuf.text, errBuf.size)
	if out == nil {
		return nil, errBuf.err()
	}
	defer C.free(unsafe.Pointer(out))
	var prepared preparedForm
	if err := json.Unmarshal(unsafe.Slice((*byte)(unsafe.Pointer(out)), int(size)), &prepared); err != nil {
		return nil, fmt.Errorf("read what the chat template gives: %w", err)
	}
	return &prepared, nil
}

// requestOf is a request in the library's form. write is applied to every text of the client.
func (f *answerForm) requestOf(in models.Input, messages []models.Message, write func(string) string) (*formRequest, error) {
	out := &formRequest{Choice: choiceOf(in.ToolChoice), Only: in.ToolChoice.Name, Parallel: in.ParallelToolCalls, Options: map[string]json.RawMessage{}}
	out.Tools = make([]formTool, 0, len(in.Tools))
	for _, t := range in.Tools {
		out.Tools = append(out.Tools, formTool{"function", formFunction{
			Name: write(t.Name), Description: write(t.Description), Parameters: rewriteStrings(t.Parameters, write),
		}})
	}
	if len(in.TemplateOptions) > 0 {
		if err := json.Unmarshal(rewriteStrings(in.TemplateOptions, write), &out.Options); err != nil {
			return nil, fmt.Errorf("options of the chat template: %w", err)
		}
	}
	if !f.tools && usesTools(in, messages) {
		messages = withOwnTools(in.Tools, messages)
	}
	for _, m := range messages {
		to := formMessage{
			Role: m.Role, Content: write(m.Content), Reasoning: write(m.Reasoning), Name: write(m.Name), ToolCallID: write(m.ToolCallID),
		}
		for _, c := range m.ToolCalls {
			arguments := string(rewriteStrings(json.RawMessage(c.Arguments), write))
			to.ToolCalls = append(to.ToolCalls, formCall{ID: write(c.ID), Type: "function", Function: formFunction{Name: write(c.Name), Arguments: &arguments}})
		}
		out.Messages = append(out.Messages, to)
	}
	return out, nil
}

func choiceOf(c models.ToolChoice) string {
	switch {
	case c.None:
		return "none"
	case c.Required:
		return "required"
	}
	return "auto"
}

func usesTools(in models.Input, messages []models.Message) bool {
	for _, m := range messages {
		if m.Role == "tool" || len(m.ToolCalls) > 0 {
			return true
		}
	}
	return len(in.Tools) > 0
}
