//go:build llama

package llama

import (
	"encoding/json"
	"strings"

	"tandem/engine/models"
)

// withOwnTools writes tools, calls and results into the texts of messages, for templates that have no form for them.
// The form is the one that most models with tools know: JSON between <tool_call> tags.
func withOwnTools(tools []models.Tool, messages []models.Message) []models.Message {
	var out []models.Message
	for _, m := range messages {
		switch {
		case m.Role == "tool":
			text := "<tool_response>\n" + m.Content + "\n</tool_response>"
			if last := len(out) - 1; last >= 0 && out[last].Role == "user" && messagesOfTools(out[last]) {
				out[last].Content += "\n" + text
				continue
			}
			out = append(out, models.Message{Role: "user", Content: text})
		case len(m.ToolCalls) > 0:
			parts := []string{m.Content}
			if m.Content == "" {
				parts = nil
			}
			for _, c := range m.ToolCalls {
				parts = append(parts, "<tool_call>\n"+callJSON(c)+"\n</tool_call>")
			}
			out = append(out, models.Message{Role: m.Role, Content: strings.Join(parts, "\n"), Reasoning: m.Reasoning})
		default:
			out = append(out, m)
		}
	}
	if len(tools) == 0 {
		return out
	}
	text := describeTools(tools)
	if len(out) > 0 && out[0].Role == "system" {
		out[0].Content = strings.TrimPrefix(out[0].Content+"\n\n"+text, "\n\n")
		return out
	}
	return append([]models.Message{{Role: "system", Content: text}}, out...)
}

func messagesOfTools(m models.Message) bool { return strings.HasPrefix(m.Content, "<tool_response>\n") }

func callJSON(c models.ToolCall) string {
	name, _ := json.Marshal(c.Name) // a string always has a JSON form
	return `{"name": ` + string(name) + `, "arguments": ` + c.Arguments + `}`
}

func describeTools(tools []models.Tool) string {
	var b strings.Builder
	b.WriteString("You may call functions to help with the user's request. These functions are there, each with a JSON schema of its arguments:\n<tools>\n")
	for _, t := range tools {
		name, _ := json.Marshal(t.Name)
		description, _ := json.Marshal(t.Description)
		parameters := string(t.Parameters)
		if parameters == "" {
			parameters = `{"type": "object", "properties": {}}`
		}
		b.WriteString(`{"name": ` + string(name) + `, "description": ` + string(description) + `, "parameters": ` + parameters + "}\n")
	}
	b.WriteString("</tools>\nTo call one, write its name and arguments as JSON between tags:\n<tool_call>\n" +
		`{"name": "NAME", "arguments": {…}}` + "\n</tool_call>")
	return b.String()
}
