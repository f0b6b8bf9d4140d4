//go:build llama

package llama

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tandem/engine/grammar"
	"tandem/engine/models"
)

// answerShape is the prompt of a request and how the answer to it looks.
type answerShape struct {
	parts []promptPart
	form  *preparedForm // nil: the answer is content
	begun string        // the end of the prompt that is the beginning of the answer's content
}

// shapeOf renders a request. What needs no more than roles and texts is rendered with the runtime's marks; the rest by
// the library, with marks in the texts.
func (b *Base) shapeOf(in models.Input, messages []models.Message) (*answerShape, error) {
	if in.Continue {
		return b.continuedShape(in, messages)
	}
	noForm := b.form == nil || in.Raw
	if noForm {
		in.TemplateOptions = nil // they have no effect, as any that a template doesn't know
	}
	simple := isSimple(in, messages)
	if noForm {
		if !simple {
			return nil, fmt.Errorf("%w: %s", ErrMessage, "tools and reasoning need a chat template with a known form")
		}
		parts, err := b.renderParts(in, messages)
		return &answerShape{parts: parts}, err
	}
	var parts []promptPart
	if simple {
		var err error
		if parts, err = b.renderParts(in, messages); err != nil {
			return nil, err
		}
		if !b.form.reasoning || !in.SplitOutput && len(in.JSONSchema) == 0 {
			return &answerShape{parts: parts}, nil
		}
	}
	form, marked, err := b.prepareMarked(in, messages)
	switch {
	case err != nil && simple: // the template takes the messages, but the library can't read its form for them
		b.opts.Logger.Debug("the form of an answer isn't known", "model", b.spec.Name, "error", err)
		return &answerShape{parts: parts}, nil
	case err != nil:
		return nil, messageError(err)
	case !simple:
		parts = marked
	}
	return &answerShape{parts: parts, form: form}, nil
}

// messageError blames messages for what isn't the fault of tools.
func messageError(err error) error {
	if errors.Is(err, models.ErrTools) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrMessage, err)
}

// isSimple reports whether messages have nothing but roles and texts, and the template gets nothing else.
func isSimple(in models.Input, messages []models.Message) bool {
	return len(in.TemplateOptions) == 0 && !usesTools(in, messages) && !slices.ContainsFunc(messages, func(m models.Message) bool {
		return m.Reasoning != "" || m.Name != "" || m.ToolCallID != ""
	})
}

// prepareMarked prepares a request, a second time with marks in the client's texts if they need some.
func (b *Base) prepareMarked(in models.Input, messages []models.Message) (*preparedForm, []promptPart, error) {
	for _, m := range messages {
		if !roles[m.Role] {
			return nil, nil, fmt.Errorf("unknown role %q", m.Role)
		}
	}
	tools := in.Tools
	var err error
	if in.Tools, err = toolsForLibrary(in.Tools); err != nil {
		return nil, nil, err
	}
	request, err := b.form.requestOf(in, messages, func(s string) string { return s })
	if err != nil {
		return nil, nil, err
	}
	form, err := b.prepareWithCalls(request, tools)
	if err != nil {
		return nil, nil, err
	}
	marks := newClientMarks(b.vocab, b.form.rests, textsOf(in, messages)...)
	if marks == nil {
		return nil, nil, fmt.Errorf("the messages have every character of the private use area")
	}
	if request, err = b.form.requestOf(in, messages, marks.write); err != nil {
		return nil, nil, err
	}
	prompt := form.Prompt
	if marks.used {
		request.PromptOnly = true
		marked, err := b.form.prepare(request)
		if err != nil {
			return nil, nil, err
		}
		prompt = marked.Prompt
	}
	return form, marks.parts(prompt), nil
}

// toolsForLibrary returns tools in words that the library knows: it refuses true and false as schemas, and templates
// read the members of each property. A schema that is too much for it is an error.
func toolsForLibrary(tools []models.Tool) ([]models.Tool, error) {
	out := slices.Clone(tools)
	check := grammar.NewConverterCheck()
	for i, t := range out {
		if len(t.Parameters) == 0 {
			continue
		}
		schema := grammar.WithoutBooleans(t.Parameters)
		err := check.Add(t.Name, schema)
		if err != nil {
			schema = grammar.WithPlainReferences(schema)
			err = check.Add(t.Name, schema)
		}
		if err != nil {
			return nil, toolError(t.Name, err)
		}
		out[i].Parameters = schema
	}
	return out, nil
}

// textsOf are the texts of a request in which marks are looked for.
func textsOf(in models.Input, messages []models.Message) []string {
	texts := []string{string(in.TemplateOptions)}
	for _, t := range in.Tools {
		texts = append(texts, t.Description, string(t.Parameters))
	}
	for _, m := range messages {
		texts = append(texts, m.Content, m.Reasoning, m.Name, m.ToolCallID)
		for _, c := range m.ToolCalls {
			texts = append(texts, c.ID, c.Name, c.Arguments)
		}
	}
	return texts
}

func (s *answerShape) stops() []string {
	if s.form == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.form.Stops), func(stop string) bool { return stop == "" })
}

// callsConstrained reports whether the grammar of calls is used, and whether from the answer's beginning.
func (s *answerShape) callsConstrained(in models.Input) (constrained, fromStart bool) {
	if s.form == nil || len(in.Tools) == 0 || in.ToolChoice.None || s.form.Grammar == "" {
		return false, false
	}
	if in.ToolChoice.Required || len(in.JSONSchema) > 0 {
		return true, true
	}
	return len(s.form.Triggers) > 0, false
}

// triggers are those of a grammar that doesn't begin with the answer.
func (s *answerShape) triggers(in models.Input) []models.Trigger {
	if constrained, fromStart := s.callsConstrained(in); !constrained || fromStart || in.Grammar != "" {
		return nil
	}
	var out []models.Trigger
	for _, t := range s.form.Triggers {
		out = append(out, models.Trigger{Kind: models.TriggerKind(t.Type + 1), Value: t.Value, Token: t.Token})
	}
	return append(out, s.reasoningMarks()...)
}

// reasoningMarks are the texts between which an answer is reasoning, in which no trigger counts.
func (s *answerShape) reasoningMarks() (out []models.Trigger) {
	r := s.reasoning()
	if r == nil || s.begun != "" {
		return nil
	}
	if !r.Open {
		out = append(out, models.Trigger{Kind: models.TriggerReasoningStart, Value: r.Start})
	}
	for _, end := range s.form.ThinkEnds {
		if end = strings.TrimSpace(end); end != "" {
			out = append(out, models.Trigger{Kind: models.TriggerReasoningEnd, Value: end})
		}
	}
	return out
}

// grammar is what the answer must follow.
func (s *answerShape) grammar(in models.Input) (grammar.Source, error) {
	calls, fromStart := s.callsConstrained(in)
	if in.ToolChoice.Required && !calls {
		return grammar.Source{}, fmt.Errorf("%w: the form of tool calls isn't known for this model's chat template, so none can be required", ErrMessage)
	}
	if in.Grammar != "" && len(in.JSONSchema) == 0 {
		if calls && fromStart {
			return grammar.Source{}, fmt.Errorf("%w: a grammar and a required tool call exclude each other", grammar.ErrInvalid)
		}
		return grammar.Source{Kind: grammar.GBNF, Text: in.Grammar}, nil
	}
	var answer grammar.Answer
	if calls {
		answer.Calls, answer.Begin, answer.Arguments = s.form.Grammar, s.form.callRule(in.ParallelToolCalls), s.form.arguments
	}
	if !in.ToolChoice.Required {
		answer.Schema = in.JSONSchema
	}
	if fromStart || len(answer.Schema) > 0 {
		answer.Reasoning = s.reasoning()
	}
	switch {
	case calls || answer.Reasoning != nil && len(answer.Schema) > 0:
		return answer.Source(), nil
	case len(in.JSONSchema) > 0:
		return grammar.Source{Kind: grammar.JSONSchema, Text: string(in.JSONSchema)}, nil
	}
	return grammar.Source{}, nil
}

// callRule is the rule of the grammar with which calls begin.
func (f *preparedForm) callRule(parallel bool) string {
	const one, several = "tool-call", "tool-calls"
	switch {
	case slices.Contains(f.CallRules, several) && (parallel || !strings.Contains(f.Grammar, "\n"+several+" ::= ("+one+" space)+")):
		return several
	case slices.Contains(f.CallRules, one):
		return one
	case len(f.CallRules) > 0:
		return f.CallRules[0]
	}
	return "root"
}

// reasoning is the form of what comes before the answer proper; nil: nothing does.
func (s *answerShape) reasoning() *grammar.Reasoning {
	f := s.form
	if f == nil || !f.Thinks {
		return nil
	}
	r := grammar.Reasoning{Start: strings.TrimSpace(f.ThinkStart), End: f.thinkEnd()}
	if r.End == "" {
		return nil
	}
	at := strings.LastIndex(f.GenerationPrompt, r.Start)
	if r.Start == "" {
		at = 0 // it begins with the answer
	}
	switch {
	case at >= 0 && strings.Contains(f.GenerationPrompt[at:], r.End): // the prompt ends the reasoning itself
		return nil
	case at >= 0:
		r.Open = true
	}
	if strings.HasPrefix(r.Start, "<|channel|>") { // reasoning is a message of its own, and another one follows
		r.Between = f.GenerationPrompt
	}
	return &r
}

// thinkEnd is the tag that ends the reasoning, without blanks.
func (f *preparedForm) thinkEnd() string {
	for _, end := range f.ThinkEnds {
		end = strings.TrimSpace(end)
		if end != "" && !slices.ContainsFunc(f.Triggers, func(t formTrigger) bool { return strings.HasPrefix(t.Value, end) }) {
			return end
		}
	}
	return ""
}
