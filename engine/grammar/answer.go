package grammar

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// AnswerForm is the kind of a Source that an Answer gives: what a chat model's answer must look like, its marks
// included.
const AnswerForm Kind = "answer"

// Answer is a form that an answer must have: first the reasoning, then tool calls or JSON, whichever of them are there.
type Answer struct {
	Reasoning *Reasoning      `json:"reasoning,omitempty"`
	Calls     string          `json:"calls,omitempty"`     // GBNF, in which texts of control tokens mean the tokens
	Begin     string          `json:"begin,omitempty"`     // the rule of Calls with which it begins
	Arguments []Arguments     `json:"arguments,omitempty"` // parts of Calls that follow schemas
	Schema    json.RawMessage `json:"schema,omitempty"`    // with Calls: the answer is one or the other
}

// Reasoning is a text between marks, at the beginning of an answer.
type Reasoning struct {
	Start   string `json:"start"`
	End     string `json:"end"`
	Open    bool   `json:"open,omitempty"`    // it has begun before the answer; otherwise it may be left out
	Between string `json:"between,omitempty"` // may follow End
}

// Bounds on a form of answers. Its grammar is made by the engine from what a client sent within bounds of its own.
const (
	answerBytesMax   = 4 << 20
	answerSymbolsMax = 200_000
)

// Source is the form in which a grammar is passed on.
func (a Answer) Source() Source {
	text, err := json.Marshal(a)
	if err != nil { // the schema isn't JSON; whoever reads the source says so
		text = []byte(err.Error())
	}
	return Source{AnswerForm, string(text)}
}

// answerToLark translates a form of answers. controls are the texts of control tokens.
func answerToLark(text string, controls map[string]int32) (string, error) {
	var a Answer
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return "", invalid("a form of answers: %w", err)
	}
	var out strings.Builder
	var choices []string
	if a.Calls != "" {
		t := translator{
			in: a.Calls, begin: a.Begin, controls: controls, symbolsMax: answerSymbolsMax, ours: true,
			defined: make(map[string]bool), used: make(map[string]int), schemas: make(map[string]string),
		}
		for i, arguments := range a.Arguments {
			rule, err := arguments.rule()
			if err != nil {
				return "", fmt.Errorf("arguments of tool calls: %w", err)
			}
			t.schemas[arguments.Literal] = argumentsRule(i)
			out.WriteString(argumentsRule(i) + ": " + rule + "\n")
		}
		if err := t.grammar(); err != nil {
			return "", invalid("tool calls: %w", err)
		}
		out.WriteString(t.out.String())
		choices = append(choices, ruleName(a.Begin))
	}
	if len(a.Schema) > 0 {
		schema, err := prepareSchema(string(a.Schema))
		if err != nil {
			return "", err
		}
		out.WriteString("answer_json: %json " + schema + "\n")
		choices = append(choices, "answer_json")
	}
	if len(choices) == 0 {
		return "", invalid("a form of answers without tool calls and schema")
	}
	main := "(" + strings.Join(choices, " | ") + ")"
	if a.Reasoning != nil {
		out.WriteString(a.Reasoning.rules(controls))
		main = "reasoning " + main
		if !a.Reasoning.Open {
			main = "(" + main + " | blanks " + strings.TrimPrefix(main, "reasoning ") + ")"
		}
	}
	return "start: " + main + "\n" + out.String(), nil
}

func argumentsRule(i int) string { return fmt.Sprintf("arguments_%d", i) }

// rules writes the rules of the reasoning.
func (r *Reasoning) rules(controls map[string]int32) string {
	begin := "blanks " + literal(r.Start, controls) + " "
	if r.Open || r.Start == "" {
		begin = ""
	}
	after := " blanks"
	if r.Between != "" {
		after = " (" + literal(r.Between, controls) + ")? blanks"
	}
	blanks := "blanks: /[ \\t\\r\\n]{0,8}/\n"
	if id, ok := controls[r.End]; ok {
		return fmt.Sprintf("reasoning: %sthoughts <[%d]>%s\nthoughts: /(?s:.*)/\n%s", begin, id, after, blanks)
	}
	return fmt.Sprintf("reasoning: %sthoughts%s\nthoughts[suffix=%s]: /(?s:.*)/\n%s", begin, after, strconv.Quote(r.End), blanks)
}

// literal writes a text as one lexeme for each character, and control tokens in it as tokens.
func literal(text string, controls map[string]int32) string {
	var out strings.Builder
	for text != "" {
		if name := controlAt(text, controls); name != "" {
			fmt.Fprintf(&out, " <[%d]>", controls[name])
			text = text[len(name):]
			continue
		}
		for i, r := range text {
			out.WriteString(" /" + regexEscape(r) + "/")
			text = text[i+len(string(r)):]
			break
		}
	}
	return strings.TrimPrefix(out.String(), " ")
}

// quoteLiteral writes a text as a literal of GBNF.
func quoteLiteral(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(text) + `"`
}

// controlAt returns the longest text of a control token with which text begins, empty for none.
func controlAt(text string, controls map[string]int32) string {
	longest := ""
	for name := range controls {
		if len(name) > len(longest) && strings.HasPrefix(text, name) {
			longest = name
		}
	}
	return longest
}
