//go:build llama

package llama

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tandem/engine/batch"
	"tandem/engine/grammar"
	"tandem/engine/models"
)

// argumentMark is a literal in a grammar of calls that stands for the arguments of a tool.
type argumentMark struct {
	Tool     string `json:"tool"`
	Property string `json:"property"` // empty: all arguments, as one object
	Literal  string `json:"literal"`
	// Texts are those that the argument may be, without quotes; none: it is JSON.
	Texts []string `json:"texts"`
}

// argumentChecksMax bounds the time for finding out which of a request's schemas can't be followed.
const argumentChecksMax = time.Second

// prepareWithCalls is prepare, with the form of calls out of the cache if it is there. tools are the request's, with
// their schemas as the client sent them.
func (b *Base) prepareWithCalls(request *formRequest, tools []models.Tool) (*preparedForm, error) {
	f := b.form
	if len(request.Tools) == 0 || request.Choice == "none" {
		return f.prepare(request)
	}
	key, err := json.Marshal([]any{tools, request.Only, request.Parallel, request.Options})
	if err != nil {
		return nil, fmt.Errorf("encode tools: %w", err)
	}
	form, known := f.calls.get(string(key))
	if known {
		prepared, err := f.prepare(request)
		if err == nil {
			prepared.callForm = form
		}
		return prepared, err
	}
	prepared, complete, err := b.prepareNewCalls(request, tools)
	if err != nil {
		return nil, err
	}
	if complete {
		f.calls.put(string(key), prepared.callForm)
	}
	return prepared, nil
}

// prepareNewCalls finds out the form of calls. Arguments follow their schemas as far as they can be followed; those of
// other tools follow what the template's own grammar knows of them. complete: there was time to try each schema.
func (b *Base) prepareNewCalls(request *formRequest, tools []models.Tool) (prepared *preparedForm, complete bool, err error) {
	complete = true
	bound := make([]string, 0, len(tools))
	for _, t := range tools {
		if len(t.Parameters) > 0 {
			bound = append(bound, t.Name)
		}
	}
	for {
		prepared, err = b.form.prepareGrammar(request, bound, tools)
		if err != nil || len(prepared.arguments) == 0 {
			return prepared, complete, err
		}
		failed, triedAll, err := b.unusableArguments(prepared, request.Parallel)
		if err != nil || len(failed) == 0 {
			return prepared, complete, err
		}
		complete = complete && triedAll
		bound = slices.DeleteFunc(bound, func(name string) bool { return slices.Contains(failed, name) })
	}
}

// prepareGrammar is prepare with the grammar of calls, which has schemas in place of the arguments of some tools.
func (f *answerForm) prepareGrammar(request *formRequest, bound []string, tools []models.Tool) (*preparedForm, error) {
	with := *request
	with.WantGrammar, with.Bind, with.Mark = true, bound, markNotIn(tools)
	prepared, err := f.prepare(&with)
	switch {
	case err != nil && f.renders(request):
		return nil, fmt.Errorf("%w: %w", models.ErrTools, err)
	case err != nil:
		return nil, err
	}
	for _, m := range prepared.Marks {
		i := slices.IndexFunc(tools, func(t models.Tool) bool { return t.Name == m.Tool })
		if i < 0 {
			return nil, fmt.Errorf("the form of calls has a tool %q that wasn't sent", m.Tool)
		}
		schema := tools[i].Parameters
		if m.Property != "" {
			schema = grammar.PropertySchema(schema, m.Property)
		}
		prepared.arguments = append(prepared.arguments, grammar.Arguments{Literal: m.Literal, Texts: m.Texts, Schema: schema, Strict: tools[i].Strict})
	}
	return prepared, nil
}

// markNotIn is a name that no text of the tools has.
func markNotIn(tools []models.Tool) string {
	mark := "arguments-of-call"
	for slices.ContainsFunc(tools, func(t models.Tool) bool { return strings.Contains(t.Name+string(t.Parameters), mark) }) {
		mark += "-"
	}
	return mark
}

// unusableArguments returns the tools whose schemas can't be followed, and those that there was no time to try. One
// whose schema has to be obeyed strictly is an error.
func (b *Base) unusableArguments(form *preparedForm, parallel bool) (failed []string, triedAll bool, err error) {
	triedAll = true
	answer := grammar.Answer{Calls: form.Grammar, Begin: form.callRule(parallel), Arguments: form.arguments}
	if err = b.checkGrammar(answer.Source()); err == nil {
		return nil, true, nil
	}
	var lenient []string
	until := time.Now().Add(argumentChecksMax)
	for i, a := range form.arguments {
		name := form.Marks[i].Tool
		if !a.Strict {
			lenient = append(lenient, name)
		}
		if slices.Contains(failed, name) {
			continue
		}
		late := time.Now().After(until) // then the rest isn't bound: finding out about each takes too long
		var alone error
		if !late {
			alone = b.checkGrammar(a.Alone())
		}
		switch {
		case alone != nil && a.Strict:
			return nil, true, toolError(name, alone)
		case alone != nil:
			failed = append(failed, name)
		case late && !a.Strict:
			failed, triedAll = append(failed, name), false
		}
	}
	switch {
	case len(failed) > 0:
		return failed, triedAll, nil
	case len(lenient) > 0: // each can be followed, but all together can't
		return lenient, triedAll, nil
	}
	return nil, true, toolError(form.Marks[0].Tool, err)
}

// toolError is about the schema of a tool.
func toolError(tool string, err error) error {
	if errors.Is(err, batch.ErrGrammarTooComplex) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", models.ErrTools, tool, err)
}
