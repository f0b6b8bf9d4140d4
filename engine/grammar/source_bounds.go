package grammar

import "strings"

// prepare checks a source against the bounds and translates it for llguidance. controls are the texts of control
// tokens.
func (s Source) prepare(controls map[string]int32) (kind, text string, err error) {
	most := textBytesMax
	switch s.Kind {
	case JSONSchema:
		most = schemaBytesMax
	case AnswerForm:
		most = answerBytesMax
	}
	if len(s.Text) > most {
		return "", "", invalid("it has %d bytes, at most %d are allowed", len(s.Text), most)
	}
	if strings.IndexByte(s.Text, 0) >= 0 {
		return "", "", invalid("it holds a zero byte")
	}
	switch s.Kind {
	case JSONSchema:
		text, err = prepareSchema(s.Text)
		return "json_schema", text, err
	case Regex:
		return "regex", s.Text, checkGroups(s.Text)
	case Lark:
		return "lark", s.Text, checkGroups(s.Text)
	case AnswerForm:
		text, err = answerToLark(s.Text, controls)
		return "lark", text, err
	case GBNF:
		text, err = gbnfToLark(s.Text)
		return "lark", text, err
	}
	return "", "", invalid("unknown kind %q", s.Kind)
}

// checkGroups refuses a text that is nested so deeply that a parser would run out of stack.
func checkGroups(text string) error {
	open := 0
	for i := range len(text) {
		switch text[i] {
		case '(', '[', '{':
			open++
		case ')', ']', '}':
			open--
		}
		if open > groupsMax {
			return invalid("groups are nested more than %d deep", groupsMax)
		}
	}
	return nil
}
