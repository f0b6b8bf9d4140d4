package settings

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Source of a value, from weak to strong.
type Source uint8

// Sources.
const (
	FromDefault Source = iota
	FromFile
	FromEnv
	FromFlag
)

// String returns the source in words.
func (s Source) String() string { return [...]string{"default", "file", "variable", "flag"}[s] }

// Values are the settings of one program. The getters panic for a name or kind that isn't in the list.
type Values struct {
	program        Owner
	set            map[string]value
	warnings       []string
	fileUnreadable bool // a file is configured and could not be read
}

type value struct {
	text   string
	parsed any
	source Source
	where  string
	wrong  bool // a value of a stronger source was given and is invalid
}

// Warnings are things that are probably mistakes, for the log.
func (v *Values) Warnings() []string { return slices.Clone(v.warnings) }

// IsSet reports whether somebody set the value, as opposed to the default.
func (v *Values) IsSet(env string) bool { return v.get(env).source != FromDefault }

// Source is where a value came from; where names the file and line, when it was the file.
func (v *Values) Source(env string) (s Source, where string) {
	got := v.get(env)
	return got.source, got.where
}

// Good reports whether these settings have the values that were meant: no file was unreadable, no stronger value
// invalid.
func (v *Values) Good(envs ...string) bool {
	return !v.fileUnreadable && !slices.ContainsFunc(envs, func(env string) bool { return v.get(env).wrong })
}

// Problem is a mistake in a value, under the name by which it was given.
func (v *Values) Problem(env, text string) Problem {
	s, got := Find(env), v.get(env)
	name := map[Source]string{FromFile: s.Path, FromFlag: "--" + s.Flag()}[got.source]
	return Problem{Where: got.where, Name: cmp.Or(name, env), Text: text}
}

// Text is the value as it was written; secrets are given as "***".
func (v *Values) Text(env string) string {
	if got := v.get(env); !Find(env).Secret || got.text == "" {
		return got.text
	}
	return "***"
}

func (v *Values) get(env string) value {
	got, ok := v.set[env]
	if !ok {
		panic("settings: no setting " + env)
	}
	return got
}

func valueAs[T any](v *Values, env string) T {
	got, ok := v.get(env).parsed.(T)
	if !ok {
		panic(fmt.Sprintf("settings: %s is a %s", env, Find(env).Kind))
	}
	return got
}

// String returns the value of a String or Enum.
func (v *Values) String(env string) string { return valueAs[string](v, env) }

// Bool returns the value of a Bool.
func (v *Values) Bool(env string) bool { return valueAs[bool](v, env) }

// Int returns the value of an Int.
func (v *Values) Int(env string) int { return valueAs[int](v, env) }

// Float returns the value of a Float.
func (v *Values) Float(env string) float64 { return valueAs[float64](v, env) }

// Duration returns the value of a Duration.
func (v *Values) Duration(env string) time.Duration { return valueAs[time.Duration](v, env) }

// Bytes returns the value of a Bytes.
func (v *Values) Bytes(env string) int64 { return valueAs[int64](v, env) }

// List returns the value of a List; the caller may keep and change it.
func (v *Values) List(env string) []string { return slices.Clone(valueAs[[]string](v, env)) }

// Rate returns the value of a Rate.
func (v *Values) Rate(env string) RateLimit { return valueAs[RateLimit](v, env) }
