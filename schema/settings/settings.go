// Package settings lists every setting of the two programs and loads them: flag over environment over file over
// default. Both programs read the same configuration file; each checks the whole of it and uses its own keys. All
// mistakes are reported at once, with the line for the file. docs/settings.md and the example configuration are
// generated from the list.
//
// The list and the checks of values need only the standard library; config_file.go alone imports a YAML parser, for the
// line numbers. What a setting does isn't known here, nor whether settings fit together: that is for each program's
// config.go.
package settings

import (
	"strings"
	"time"
)

// Kind is the type of a setting's value.
type Kind string

// Kinds of values.
const (
	String   Kind = "string"
	Bool     Kind = "bool"     // true, false, yes, no, on, off, 1, 0
	Int      Kind = "int"      // decimal
	Float    Kind = "number"   // decimal
	Duration Kind = "duration" // 300ms, 10s, 2m, 1h30m
	Bytes    Kind = "bytes"    // 1048576, 512KiB, 8MiB, 1GiB
	List     Kind = "list"     // a,b,c; in the file also a YAML list
	Rate     Kind = "rate"     // N/second, N/minute, N/hour, N/day; 0 or off
	Enum     Kind = "choice"   // one of Choices
)

// Owner is the program that uses a setting.
type Owner string

// Owners of settings.
const (
	Proxy  Owner = "proxy"
	Engine Owner = "engine"
	Both   Owner = "both"
)

// Uses reports whether a program reads settings of the owner o.
func (o Owner) Uses(program Owner) bool { return o == Both || o == program }

// Setting is one line of the list. Its name is its environment variable.
type Setting struct {
	Env       string // HOST
	Path      string // server.host, place in the file; empty: it can't be set there
	Kind      Kind
	Default   string   // as it would be written in a variable
	Min       string   // lowest value of numbers, durations and bytes; empty: none
	Max       string   // highest value; empty: none
	Choices   []string // of Enum
	Items     int      // most elements of a list; 0: no bound
	Owner     Owner
	Secret    bool // never printed
	Help      string
	check     func(string) error   // further check of a value, or of each element of a list
	checkList func([]string) error // further check of a list whose elements are valid
}

// Flag is the name of the command-line flag, without dashes: the variable in lower case with dashes.
func (s *Setting) Flag() string { return strings.ReplaceAll(strings.ToLower(s.Env), "_", "-") }

// Section is the part of Path before the last dot.
func (s *Setting) Section() string {
	i := strings.LastIndexByte(s.Path, '.')
	if i < 0 {
		return ""
	}
	return s.Path[:i]
}

// Key is the part of Path after the last dot.
func (s *Setting) Key() string { return s.Path[strings.LastIndexByte(s.Path, '.')+1:] }

// Range describes the valid values; empty when the kind does.
func (s *Setting) Range() string {
	switch {
	case len(s.Choices) > 0:
		return strings.Join(s.Choices, ", ")
	case s.Min != "" && s.Max != "":
		return s.Min + " to " + s.Max
	case s.Min != "":
		return "at least " + s.Min
	case s.Max != "":
		return "at most " + s.Max
	}
	return ""
}

// All returns every setting, section by section. Callers may change the slice, not what it points to.
func All() []*Setting {
	all := make([]*Setting, len(settingsTable))
	for i := range settingsTable {
		all[i] = &settingsTable[i]
	}
	return all
}

// Find returns the setting of an environment variable, or nil.
func Find(env string) *Setting { return byEnv[env] }

var byEnv = func() map[string]*Setting {
	m := make(map[string]*Setting, len(settingsTable))
	for i := range settingsTable {
		m[settingsTable[i].Env] = &settingsTable[i]
	}
	return m
}()

// RateLimit is a value of kind Rate: Count per Per. A Count of 0 means no limit.
type RateLimit struct {
	Count int
	Per   time.Duration
}
