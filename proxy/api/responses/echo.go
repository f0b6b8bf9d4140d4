package responses

import (
	"bytes"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"tandem/proxy/api"
)

// Bounds of what a response only repeats.
const (
	maxEchoedBytes   = 1024
	maxMetadata      = 16
	maxMetadataName  = 64  // characters
	maxMetadataValue = 512 // characters
)

// echo is Request.Extra: what the response says of its request.
type echo struct {
	members []byte       // of the response, as they are written; the first has a comma before it
	tools   []toolOrigin // of Request.Tools
}

func (b *requestBody) echo(r *api.Request, tools *toolSet) (*echo, *api.Error) {
	if !isMetadata(b.Metadata) {
		return nil, invalidField("metadata")
	}
	dst := []byte(`,"instructions":`)
	if b.Instructions != nil {
		dst = api.AppendString(dst, *b.Instructions)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"max_output_tokens":`...)
	if b.MaxOutputTokens != nil {
		dst = strconv.AppendUint(dst, uint64(*b.MaxOutputTokens), 10)
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"max_tool_calls":null,"metadata":`...)
	if b.Metadata.Kind() == '{' {
		dst = appendJSON(dst, b.Metadata)
	} else {
		dst = append(dst, "{}"...)
	}
	dst = api.AppendBool(dst, `,"parallel_tool_calls":`, b.wantsParallelCalls())
	dst = append(dst, `,"previous_response_id":null,"prompt":null`...)
	dst = appendNullable(dst, `,"prompt_cache_key":`, b.PromptCacheKey)
	dst = appendNullable(dst, `,"reasoning":{"effort":`, b.Reasoning.Effort)
	dst = appendNullable(dst, `,"summary":null},"safety_identifier":`, b.SafetyIdentifier)
	dst = append(dst, `,"service_tier":"default","store":false`...)
	dst = appendFloat(dst, `,"temperature":`, b.Temperature)
	dst = append(b.Text.appendEcho(append(dst, `,"text":{"format":`...)), '}')
	dst = b.ToolChoice.appendEcho(append(dst, `,"tool_choice":`...), r, tools)
	dst = tools.appendEcho(append(dst, `,"tools":`...))
	dst = api.AppendInt(dst, `,"top_logprobs":`, r.TopLogprobs)
	dst = appendFloat(dst, `,"top_p":`, b.TopP)
	dst = appendNullable(append(dst, `,"truncation":"disabled"`...), `,"user":`, b.User)
	return &echo{members: slices.Clip(dst), tools: tools.origins}, nil
}

func isMetadata(v jsontext.Value) bool {
	if len(v) == 0 || v.Kind() == 'n' {
		return true
	}
	const maxBytes = maxMetadata * (maxMetadataName + maxMetadataValue) * len(`\u0000\u0000`)
	var m map[string]*string
	if len(v) > maxBytes || json.Unmarshal(v, &m) != nil || len(m) > maxMetadata {
		return false
	}
	for name, value := range m {
		if value == nil || utf8.RuneCountInString(name) > maxMetadataName || utf8.RuneCountInString(*value) > maxMetadataValue {
			return false
		}
	}
	return true
}

func appendNullable(dst []byte, name, v string) []byte {
	if v == "" {
		return append(append(dst, name...), "null"...)
	}
	return api.AppendMember(dst, name, v)
}

func appendFloat(dst []byte, name string, v *float32) []byte {
	if dst = append(dst, name...); v == nil {
		return append(dst, "null"...)
	}
	return strconv.AppendFloat(dst, float64(*v), 'g', -1, 32)
}

// lineTerminators are escaped in JSON of a client's, as api.AppendString does.
var lineTerminators = [][2][]byte{
	{[]byte("\u0085"), []byte(`\u0085`)}, {[]byte("\u2028"), []byte(`\u2028`)}, {[]byte("\u2029"), []byte(`\u2029`)},
}

// appendJSON appends JSON of a client's on one line.
func appendJSON(dst []byte, v jsontext.Value) []byte {
	v = bytes.Clone(v)
	if err := v.Compact(); err != nil {
		return append(dst, "null"...) // it was decoded before, so it is valid
	}
	for _, c := range lineTerminators {
		if bytes.Contains(v, c[0]) {
			v = bytes.ReplaceAll(v, c[0], c[1])
		}
	}
	return append(dst, v...)
}

// appendEcho appends what the model was to do with tools.
func (c *toolChoice) appendEcho(dst []byte, r *api.Request, s *toolSet) []byte {
	switch {
	case r.ToolChoice.Mode == api.ToolsNone:
		return append(dst, `"none"`...)
	case r.ToolChoice.Mode == api.ToolsNamed:
		return append(s.origins[s.index(r.ToolChoice.Name)].appendReference(dst), '}')
	case c.object != nil && c.object.Type == "allowed_tools":
		dst = append(append(append(dst, `{"type":"allowed_tools","mode":"`...), modeName(r.ToolChoice.Mode)...), `","tools":[`...)
		for i := range s.origins {
			dst = append(s.origins[i].appendReference(api.AppendComma(dst, i)), '}')
		}
		return append(dst, "]}"...)
	}
	return append(append(append(dst, '"'), modeName(r.ToolChoice.Mode)...), '"')
}

func modeName(m api.ToolMode) string {
	if m == api.ToolsRequired {
		return "required"
	}
	return "auto"
}

// appendReference appends an object that names a tool, without its end.
func (o *toolOrigin) appendReference(dst []byte) []byte {
	kind := "function"
	if o.custom {
		kind = "custom"
	}
	dst = api.AppendMember(append(append(dst, `{"type":"`...), kind...), `","name":`, o.name)
	if o.namespace != "" {
		dst = api.AppendMember(dst, `,"namespace":`, o.namespace)
	}
	return dst
}

// appendEcho appends the tools that the model was offered.
func (s *toolSet) appendEcho(dst []byte) []byte {
	dst = append(dst, '[')
	for i := range s.functions {
		f := &s.functions[i]
		dst = s.origins[i].appendReference(api.AppendComma(dst, i))
		dst = appendNullable(dst, `,"description":`, f.Description)
		if s.origins[i].custom {
			dst = append(dst, '}')
			continue
		}
		if dst = append(dst, `,"parameters":`...); f.Parameters != nil {
			dst = appendJSON(dst, f.Parameters)
		} else {
			dst = append(dst, "null"...)
		}
		dst = append(strconv.AppendBool(append(dst, `,"strict":`...), f.Strict), '}')
	}
	return append(dst, ']')
}
