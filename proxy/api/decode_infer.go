package api

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/go-playground/validator/v10"
)

// inferBody is the body of POST /infer as the client wrote it. The validate tags hold the plain ranges; lengths in
// bytes are checked by hand, since the validator counts characters and would read a long prompt once more.
type inferBody struct {
	Prompt         string         `json:"prompt"`
	System         *string        `json:"system"`
	BaseModel      string         `json:"base_model"`
	AdapterVersion string         `json:"adapter_version"`
	MaxNewTokens   *WholeNumber   `json:"max_new_tokens" validate:"omitnil,gte=1,lte=1048576"`
	Temperature    *float32       `json:"temperature" validate:"omitnil,gte=0,lte=2"`
	TopP           *float32       `json:"top_p" validate:"omitnil,gt=0,lte=1"`
	TopK           *WholeNumber   `json:"top_k" validate:"omitnil,gte=0,lte=1000"`
	MinP           *float32       `json:"min_p" validate:"omitnil,gte=0,lte=1"`
	RepeatPenalty  *float32       `json:"repeat_penalty" validate:"omitnil,gt=0,lte=2"`
	Seed           *WholeNumber   `json:"seed" validate:"omitnil,lte=9007199254740991"`
	Stop           StopStrings    `json:"stop" validate:"dive,required"`
	Domain         string         `json:"domain"`
	Stream         bool           `json:"stream"`
	JSONSchema     jsontext.Value `json:"json_schema"`
}

// fieldRequirements gives for each field the words that follow "must be" in an error.
var fieldRequirements = map[string]string{
	"prompt":          "a string that is not empty",
	"system":          "a string",
	"base_model":      fmt.Sprintf("a string of at most %d bytes", MaxNameBytes),
	"adapter_version": fmt.Sprintf("a string of at most %d bytes", MaxNameBytes),
	"max_new_tokens":  fmt.Sprintf("a whole number from 1 to %d", MaxNewTokens),
	"temperature":     fmt.Sprintf("a number from 0 (always the most likely token) to %d", MaxTemperature),
	"top_p":           "a number above 0 and at most 1 (off)",
	"top_k":           fmt.Sprintf("a whole number from 0 (off) to %d", MaxTopK),
	"min_p":           "a number from 0 (off) to 1",
	"repeat_penalty":  fmt.Sprintf("a number above 0 and at most %d; 1 is off", MaxPenalty),
	"seed":            fmt.Sprintf("a whole number from 0 to %d", MaxSeed),
	"stop":            fmt.Sprintf("a string or a list of at most %d strings, none empty, each of at most %d bytes", MaxStops, MaxStopBytes),
	"domain":          fmt.Sprintf("a string of at most %d bytes", MaxDomainBytes),
	"stream":          "true or false",
	"json_schema":     "a JSON object",
}

var knownInferFields = slices.Sorted(func(yield func(string) bool) {
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

// DecodeInfer checks the body of POST /infer. The error is a 400 that names the field in Param.
func DecodeInfer(body []byte, limits Limits) (*Request, *Error) {
	if NestedDeeperThan(body, MaxNestingDepth) {
		return nil, Invalid("", "the body is nested more than %d levels deep", MaxNestingDepth)
	}
	if kind := jsontext.Value(body).Kind(); kind != '{' {
		return nil, Invalid("", `the body must be a JSON object such as {"prompt":"Hello"}`)
	}
	var b inferBody
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

func (b *inferBody) request() *Request {
	r := &Request{
		Model: b.BaseModel, Version: b.AdapterVersion,
		Prompt:       b.Prompt,
		MaxNewTokens: ConvertWholeNumber[int](b.MaxNewTokens), Temperature: b.Temperature, TopP: b.TopP, MinP: b.MinP,
		RepeatPenalty: b.RepeatPenalty, TopK: ConvertWholeNumber[int](b.TopK), Seed: ConvertWholeNumber[uint64](b.Seed),
		Domain: b.Domain, Stream: b.Stream,
	}
	if b.System != nil {
		r.System, r.HasSystem = *b.System, true
	}
	if len(b.Stop) > 0 {
		r.Stop = b.Stop
	}
	if b.hasSchema() {
		r.JSONSchema = b.JSONSchema
	}
	return r
}

func (b *inferBody) hasSchema() bool { return len(b.JSONSchema) > 0 && b.JSONSchema.Kind() != 'n' }

func (b *inferBody) checkLengths(limits Limits) *Error {
	if b.Prompt == "" {
		return Invalid("prompt", "prompt is required and must be %s", fieldRequirements["prompt"])
	}
	text := len(b.Prompt)
	if b.System != nil {
		text += len(*b.System)
	}
	if limit := limits.MaxPromptBytes(); text > limit {
		return Invalid("prompt", "prompt and system have %d bytes together, more than the limit of %d; shorten them", text, limit)
	}
	for _, f := range []struct {
		name  string
		value string
		limit int
	}{
		{"base_model", b.BaseModel, MaxNameBytes},
		{"adapter_version", b.AdapterVersion, MaxNameBytes},
		{"domain", b.Domain, MaxDomainBytes},
	} {
		if len(f.value) > f.limit {
			return invalidField(f.name)
		}
	}
	for _, stop := range b.Stop {
		if len(stop) > MaxStopBytes {
			return invalidField("stop")
		}
	}
	return b.checkSchema(limits.MaxSchemaBytes())
}

func (b *inferBody) checkSchema(limit int) *Error {
	if !b.hasSchema() {
		return nil
	}
	if b.JSONSchema.Kind() != '{' {
		return invalidField("json_schema")
	}
	if len(b.JSONSchema) > limit {
		return Invalid("json_schema", "json_schema has %d bytes, more than the limit of %d; simplify it", len(b.JSONSchema), limit)
	}
	return nil
}

func invalidField(field string) *Error {
	return Invalid(field, "%s must be %s", field, fieldRequirements[field])
}

// rangeError is the error for the first field that the validator found out of range.
func rangeError(err error) *Error {
	var found validator.ValidationErrors
	if !errors.As(err, &found) || len(found) == 0 {
		return Internal(err)
	}
	name, _, _ := strings.Cut(found[0].Field(), "[") // stop[3] is a part of stop
	return invalidField(name)
}

// decodeError turns an error of the JSON package into one that tells the client what to change.
func decodeError(err error) *Error {
	var meaning *json.SemanticError
	if errors.As(err, &meaning) {
		field := FirstPathElement(meaning.JSONPointer)
		if errors.Is(meaning.Err, json.ErrUnknownName) {
			return unknownField(field)
		}
		if _, ok := fieldRequirements[field]; ok {
			return invalidField(field)
		}
		return Invalid("", "the body does not have the expected form at byte %d", meaning.ByteOffset)
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return syntaxError(syntax)
	}
	return Invalid("", "the body is not valid JSON")
}

func syntaxError(err *jsontext.SyntacticError) *Error {
	field := FirstPathElement(err.JSONPointer)
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return Invalid(Clip(field), "the body has the field %s twice; send it once", Quote(err.JSONPointer.LastToken()))
	}
	if _, ok := fieldRequirements[field]; !ok {
		field = ""
	}
	return Invalid(field, "the body is not valid JSON at byte %d: %s", err.ByteOffset, strings.TrimPrefix(err.Err.Error(), "jsontext: "))
}

func unknownField(field string) *Error {
	for _, known := range knownInferFields {
		if strings.EqualFold(known, field) {
			return Invalid(Clip(field), "unknown field %s; did you mean %q?", Quote(field), known)
		}
	}
	return Invalid(Clip(field), "unknown field %s; known are %s", Quote(field), strings.Join(knownInferFields, ", "))
}
