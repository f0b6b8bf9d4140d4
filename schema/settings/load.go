package settings

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrHelp and ErrVersion are returned by Load when a flag asked for the help or the version; nothing else was checked then.
var (
	ErrHelp    = errors.New("help was asked for")
	ErrVersion = errors.New("version was asked for")
)

// Error is everything that is wrong with the settings.
type Error struct{ Problems []Problem }

// Problem is one mistake.
type Problem struct {
	Where string // "config.yaml:12", "variable", "flag"
	Name  string // the key, variable or flag as the user wrote it
	Text  string // what is wrong and, if possible, what to do
}

func (p Problem) String() string { return fmt.Sprintf("%s %s: %s", p.Where, p.Name, p.Text) }

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Source of a value, from weak to strong.
type Source uint8

// Sources.
const (
	FromDefault Source = iota
	FromFile
	FromEnv
	FromFlag
)

// String gives the source in words.
func (s Source) String() string { return [...]string{"default", "file", "variable", "flag"}[s] }

// Values are the settings of one program. The getters panic for a name or kind that isn't in the list.
type Values struct {
	program  Owner
	set      map[string]value
	warnings []string
	unread   bool // the file is there and could not be read
}

type value struct {
	text   string
	parsed any
	source Source
	where  string
	wrong  bool // a stronger value was given and could not be used
}

// Load reads the settings of a program from its arguments (without the program's name and subcommand), its environment and the file
// that CONFIG_FILE or --config-file names. The error is ErrHelp, ErrVersion or an *Error with every mistake in all of them; beside the
// last one come the values that are good, so that the program can look for what doesn't fit together before it tells (see Check). The
// whole file is checked, keys of the other program included; of the environment only this program's variables are.
func Load(program Owner, args, environ []string, readFile func(string) ([]byte, error)) (*Values, error) {
	l := loader{program: program, v: &Values{program: program, set: make(map[string]value)}}
	flags, err := l.flags(args)
	if err != nil {
		return nil, err
	}
	env := l.environment(environ)

	l.defaults()
	if name := cmp.Or(flags["CONFIG_FILE"], env["CONFIG_FILE"]); name != "" {
		l.file(name, readFile)
	}
	for _, s := range All() {
		if text, ok := env[s.Env]; ok {
			l.take(s, text, FromEnv, "variable", s.Env)
		}
		if text, ok := flags[s.Env]; ok {
			l.take(s, text, FromFlag, "flag", "--"+s.Flag())
		}
	}
	if len(l.problems) > 0 {
		return l.v, &Error{l.problems}
	}
	return l.v, nil
}

// Check adds what a program found to the error of Load. Nil when nothing is wrong.
func Check(loaded error, found []Problem) error {
	var known *Error
	if errors.As(loaded, &known) {
		found = slices.Concat(known.Problems, found)
	}
	if len(found) == 0 {
		return loaded
	}
	return &Error{found}
}

type loader struct {
	program  Owner
	v        *Values
	problems []Problem
}

func (l *loader) problem(where, name, format string, args ...any) {
	l.problems = append(l.problems, Problem{where, name, fmt.Sprintf(format, args...)})
}

func (l *loader) defaults() {
	for _, s := range All() {
		parsed, err := s.parse(s.Default)
		if err != nil {
			panic(fmt.Sprintf("settings: default %q of %s: %v", s.Default, s.Env, err))
		}
		l.v.set[s.Env] = value{text: s.Default, parsed: parsed, source: FromDefault, where: "default"}
	}
}

// take checks a value and keeps it.
func (l *loader) take(s *Setting, text string, source Source, where, name string) {
	parsed, err := s.parse(text)
	if err != nil {
		shown := fmt.Sprintf("%q ", text)
		if s.Secret {
			shown = ""
		}
		l.problem(where, name, "%s%v", shown, err)
		l.spoil(s)
		return
	}
	l.v.set[s.Env] = value{text: text, parsed: parsed, source: source, where: where}
}

// spoil notes that the value in hand isn't the one that was meant.
func (l *loader) spoil(s *Setting) {
	v := l.v.set[s.Env]
	v.wrong = true
	l.v.set[s.Env] = v
}

// environment picks this program's variables. An empty one counts as not set, since deployment tools can't leave one out. Names that
// are nearly a setting's give a warning.
func (l *loader) environment(environ []string) map[string]string {
	env := make(map[string]string)
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		s := Find(name)
		switch {
		case s == nil:
			if near := nearest(name, variables()); near != "" && len(name) >= minWarnLength && distance(name, near) == 1 {
				l.v.warnings = append(l.v.warnings, fmt.Sprintf("variable %s is not a setting; did you mean %s?", name, near))
			}
		case s.Owner.Uses(l.program) && text != "":
			env[name] = text
		}
	}
	return env
}

// minWarnLength keeps short names of other programs' variables from being taken for misspelt ones.
const minWarnLength = 9

// flags reads --name=value, --name value, and --name alone for bools; one dash does as well.
func (l *loader) flags(args []string) (map[string]string, error) {
	flags := make(map[string]string)
	for i := 0; i < len(args); i++ {
		name, text, given := strings.Cut(args[i], "=")
		bare := strings.TrimPrefix(strings.TrimPrefix(name, "-"), "-")
		switch {
		case bare == name || bare == "":
			l.problem("argument", args[i], "is not expected here; settings are given as --name=value")
			continue
		case bare == "h" || bare == "help":
			return nil, ErrHelp
		case bare == "version":
			return nil, ErrVersion
		}
		s := findFlag(bare)
		switch {
		case s == nil:
			l.problem("flag", name, "is not a setting%s", suggest(bare, flagNames(l.program), "--"))
			continue
		case !s.Owner.Uses(l.program):
			l.problem("flag", name, "is a setting of the %s", s.Owner)
			continue
		case !given && s.Kind == Bool:
			text = "true"
		case !given:
			if i+1 >= len(args) {
				l.problem("flag", name, "needs a value")
				continue
			}
			i++
			text = args[i]
		}
		flags[s.Env] = text
	}
	return flags, nil
}

func findFlag(name string) *Setting {
	for _, s := range All() {
		if s.Flag() == name {
			return s
		}
	}
	return nil
}

// Warnings are things that are probably mistakes, for the log.
func (v *Values) Warnings() []string { return slices.Clone(v.warnings) }

// IsSet tells whether somebody set the value, as opposed to the default.
func (v *Values) IsSet(env string) bool { return v.get(env).source != FromDefault }

// Source tells where a value came from; where names the file and line, when it was the file.
func (v *Values) Source(env string) (s Source, where string) {
	got := v.get(env)
	return got.source, got.where
}

// Good tells whether these settings have the values that were meant, as far as anybody can tell.
func (v *Values) Good(envs ...string) bool {
	return !v.unread && !slices.ContainsFunc(envs, func(env string) bool { return v.get(env).wrong })
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

func typed[T any](v *Values, env string) T {
	got, ok := v.get(env).parsed.(T)
	if !ok {
		panic(fmt.Sprintf("settings: %s is a %s", env, Find(env).Kind))
	}
	return got
}

// String gives the value of a String or Enum.
func (v *Values) String(env string) string { return typed[string](v, env) }

// Bool gives the value of a Bool.
func (v *Values) Bool(env string) bool { return typed[bool](v, env) }

// Int gives the value of an Int.
func (v *Values) Int(env string) int { return typed[int](v, env) }

// Float gives the value of a Float.
func (v *Values) Float(env string) float64 { return typed[float64](v, env) }

// Duration gives the value of a Duration.
func (v *Values) Duration(env string) time.Duration { return typed[time.Duration](v, env) }

// Bytes gives the value of a Bytes.
func (v *Values) Bytes(env string) int64 { return typed[int64](v, env) }

// List gives the value of a List; the caller may keep and change it.
func (v *Values) List(env string) []string { return slices.Clone(typed[[]string](v, env)) }

// Rate gives the value of a Rate.
func (v *Values) Rate(env string) RateLimit { return typed[RateLimit](v, env) }
