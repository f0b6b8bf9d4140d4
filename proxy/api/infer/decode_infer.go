package infer

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/go-playground/validator/v10"

	"tandem/proxy/api"
)

// requestBody is the body as the client wrote it. The validate tags hold the plain ranges; lengths in
// bytes are checked by hand, since the validator counts characters and would read a long prompt once more.
type requestBody struct {
	Prompt         string           `json:"prompt"`
	System         *string          `json:"system"`
	BaseModel      string           `json:"base_model"`
	AdapterVersion string           `json:"adapter_version"`
	MaxNewTokens   *api.WholeNumber `json:"max_new_tokens" validate:"omitnil,gte=1,lte=1048576"`
	Temperature    *float32         `json:"temperature" validate:"omitnil,gte=0,lte=2"`
	TopP           *float32         `json:"top_p" validate:"omitnil,gt=0,lte=1"`
	TopK           *api.WholeNumber `json:"top_k" validate:"omitnil,gte=0,lte=1000"`
	MinP           *float32         `json:"min_p" validate:"omitnil,gte=0,lte=1"`
	RepeatPenalty  *float32         `json:"repeat_penalty" validate:"omitnil,gt=0,lte=2"`
	Seed           *api.WholeNumber `json:"seed" validate:"omitnil,lte=9007199254740991"`
	Stop           api.StopStrings  `json:"stop" validate:"dive,required"`
	Domain         string           `json:"domain"`
	Stream         bool             `json:"stream"`
	JSONSchema     jsontext.Value   `json:"json_schema"`
}

// fieldRequirements gives for each field the words that follow "must be" in an error.
var fieldRequirements = map[string]string{
	"prompt":          "a string that is not empty",
	"system":          "a string",
	"base_model":      fmt.Sprintf("a string of at most %d bytes", api.MaxNameBytes),
	"adapter_version": fmt.Sprintf("a string of at most %d bytes", api.MaxNameBytes),
	"max_new_tokens":  fmt.Sprintf("a whole number from 1 to %d", api.MaxNewTokens),
	"temperature":     fmt.Sprintf("a number from 0 (always the most likely token) to %d", api.MaxTemperature),
	"top_p":           "a number above 0 and at most 1 (off)",
	"top_k":           fmt.Sprintf("a whole number from 0 (off) to %d", api.MaxTopK),
	"min_p":           "a number from 0 (off) to 1",
	"repeat_penalty":  fmt.Sprintf("a number above 0 and at most %d; 1 is off", api.MaxPenalty),
	"seed":            fmt.Sprintf("a whole number from 0 to %d", api.MaxSeed),
	"stop":            fmt.Sprintf("a string or a list of at most %d strings, none empty, each of at most %d bytes", api.MaxStops, api.MaxStopBytes),
	"domain":          fmt.Sprintf("a string of at most %d bytes", api.MaxDomainBytes),
	"stream":          "true or false",
	"json_schema":     "a JSON object",
}

var knownFields = slices.Sorted(func(yield func(string) bool) {
	for name := range fieldRequirements {
		if !yield(name) {
			return
		}
	}
})

var rangeValidator = func() *validator.Validate {
	v := validator.New(validator.WithRequiredStructEnabled())
	v.RegisterTagNameFunc(func(f reflect.StructField) string { return f.Tag.Get("json") })
	return v
}()

func decode(body []byte, limits api.Limits) (*api.Request, *api.Error) {
	if api.NestedDeeperThan(body, api.MaxNestingDepth) {
		return nil, api.Invalid("", "the body is nested more than %d levels deep", api.MaxNestingDepth)
	}
	if kind := jsontext.Value(body).Kind(); kind != '{' {
		return nil, api.Invalid("", `the body must be a JSON object such as {"prompt":"Hello"}`)
	}
	var b requestBody
	if err := json.Unmarshal(body, &b, json.RejectUnknownMembers(true)); err != nil {
		return nil, decodeError(err)
	}
	if err := b.checkLengths(limits); err != nil {
		return nil, err
	}
	if err := rangeValidator.Struct(&b); err != nil {
		return nil, rangeError(err)
	}
	return b.request(), nil
}

func (b *requestBody) request() *api.Request {
	r := &api.Request{
		Model: b.BaseModel, Version: b.AdapterVersion,
		Prompt:       b.Prompt,
		MaxNewTokens: api.ConvertWholeNumber[int](b.MaxNewTokens), Temperature: b.Temperature, TopP: b.TopP, MinP: b.MinP,
		RepeatPenalty: b.RepeatPenalty, TopK: api.ConvertWholeNumber[int](b.TopK), Seed: api.ConvertWholeNumber[uint64](b.Seed),
		Domain: b.Domain, Stream: b.Stream,
	}
	if b.System != nil {
		r.System, r.HasSystem = *b.System, true
	}
	if len(b.Stop) > 0 {
		r.Stop = b.Stop
	}
	if b.hasSchema() {
		r.JSONSchema, r.SplitOutput = b.JSONSchema, true // what the model thinks before the JSON isn't the result
	}
	return r
}

func (b *requestBody) hasSchema() bool { return len(b.JSONSchema) > 0 && b.JSONSchema.Kind() != 'n' }

func (b *requestBody) checkLengths(limits api.Limits) *api.Error {
	if b.Prompt == "" {
		return api.Invalid("prompt", "prompt is required and must be %s", fieldRequirements["prompt"])
	}
	text := len(b.Prompt)
	if b.System != nil {
		text += len(*b.System)
	}
	if limit := limits.MaxPromptBytes(); text > limit {
		return api.Invalid("prompt", "prompt and system have %d bytes together, more than the limit of %d; shorten them", text, limit)
	}
	for _, f := range []struct {
		name  string
		value string
		limit int
	}{
		{"base_model", b.BaseModel, api.MaxNameBytes},
		{"adapter_version", b.AdapterVersion, api.MaxNameBytes},
		{"domain", b.Domain, api.MaxDomainBytes},
	} {
		if len(f.value) > f.limit {
			return invalidField(f.name)
		}
	}
	for _, stop := range b.Stop {
		if len(stop) > api.MaxStopBytes {
			return invalidField("stop")
		}
	}
	return b.checkSchema(limits.MaxSchemaBytes())
}

func (b *requestBody) checkSchema(limit int) *api.Error {
	if !b.hasSchema() {
		return nil
	}
	if b.JSONSchema.Kind() != '{' {
		return invalidField("json_schema")
	}
	if len(b.JSONSchema) > limit {
		return api.Invalid("json_schema", "json_schema has %d bytes, more than the limit of %d; simplify it", len(b.JSONSchema), limit)
	}
	return nil
}

func invalidField(field string) *api.Error {
	return api.Invalid(field, "%s must be %s", field, fieldRequirements[field])
}

// rangeError is the error for the first field that the validator found out of range.
func rangeError(err error) *api.Error {
	var found validator.ValidationErrors
	if !errors.As(err, &found) || len(found) == 0 {
		return api.Internal(err)
	}
	name, _, _ := strings.Cut(found[0].Field(), "[") // stop[3] is a part of stop
	return invalidField(name)
}

// decodeError turns an error of the JSON package into one that tells the client what to change.
func decodeError(err error) *api.Error {
	var meaning *json.SemanticError
	if errors.As(err, &meaning) {
		field := api.FirstPathElement(meaning.JSONPointer)
		if errors.Is(meaning.Err, json.ErrUnknownName) {
			return unknownField(field)
		}
		if _, ok := fieldRequirements[field]; ok {
			return invalidField(field)
		}
		return api.Invalid("", "the body does not have the expected form at byte %d", meaning.ByteOffset)
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return syntaxError(syntax)
	}
	return api.Invalid("", "the body is not valid JSON")
}

func syntaxError(err *jsontext.SyntacticError) *api.Error {
	field := api.FirstPathElement(err.JSONPointer)
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return api.Invalid(api.Clip(field), "the body has the field %s twice; send it once", api.Quote(err.JSONPointer.LastToken()))
	}
	if _, ok := fieldRequirements[field]; !ok {
		field = ""
	}
	return api.Invalid(field, "the body is not valid JSON at byte %d: %s", err.ByteOffset, strings.TrimPrefix(err.Err.Error(), "jsontext: "))
}

func unknownField(field string) *api.Error {
	for _, known := range knownFields {
		if strings.EqualFold(known, field) {
			return api.Invalid(api.Clip(field), "unknown field %s; did you mean %q?", api.Quote(field), known)
		}
	}
	return api.Invalid(api.Clip(field), "unknown field %s; known are %s", api.Quote(field), strings.Join(knownFields, ", "))
}
