package api

// AppendTools appends tools as OpenAI's API writes them.
func AppendTools(dst []byte, tools []Tool) []byte {
	dst = append(dst, '[')
	for i := range tools {
		t := &tools[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendMember(dst, `{"type":"function","function":{"name":`, t.Name)
		if t.Description != "" {
			dst = AppendMember(dst, `,"description":`, t.Description)
		}
		if len(t.Parameters) > 0 {
			dst = append(append(dst, `,"parameters":`...), t.Parameters...)
		}
		if t.Strict {
			dst = append(dst, `,"strict":true`...)
		}
		dst = append(dst, "}}"...)
	}
	return append(dst, ']')
}

// AppendToolCalls appends tool calls as the list that a message of an assistant has in OpenAI's API.
func AppendToolCalls(dst []byte, calls []ToolCall) []byte {
	dst = append(dst, '[')
	for i := range calls {
		c := &calls[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendMember(dst, `{"id":`, c.ID)
		dst = AppendMember(dst, `,"type":"function","function":{"name":`, c.Name)
		dst = append(AppendMember(dst, `,"arguments":`, c.Arguments), "}}"...)
	}
	return append(dst, ']')
}

// AppendToolChoice appends "auto", "none", "required", or an object with the name of a function.
func AppendToolChoice(dst []byte, c ToolChoice) []byte {
	switch c.Mode {
	case ToolsNone:
		return append(dst, `"none"`...)
	case ToolsRequired:
		return append(dst, `"required"`...)
	case ToolsNamed:
		return append(AppendMember(dst, `{"name":`, c.Name), '}')
	}
	return append(dst, `"auto"`...)
}
