package settings

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrHelp and ErrVersion are returned by Load when a flag asked for the help or the version; nothing else was checked
// then.
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

// Load reads the settings of a program from its arguments (without the program's name and subcommand), its environment
// and the file that CONFIG_FILE or --config-file names. The error is ErrHelp, ErrVersion or an *Error with every
// mistake in all of them; with the last one come the values that are valid, so that the program can check how they fit
// together before it reports (see Check). The whole file is checked, keys of the other program included; of the
// environment only this program's variables are.
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
			l.setValue(s, text, FromEnv, "variable", s.Env)
		}
		if text, ok := flags[s.Env]; ok {
			l.setValue(s, text, FromFlag, "flag", "--"+s.Flag())
		}
	}
	if len(l.problems) > 0 {
		return l.v, &Error{l.problems}
	}
	return l.v, nil
}

// Check adds the problems that a program found to the error of Load. Nil when nothing is wrong.
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

// setValue checks a value and keeps it.
func (l *loader) setValue(s *Setting, text string, source Source, where, name string) {
	parsed, err := s.parse(text)
	if err != nil {
		shown := fmt.Sprintf("%q ", text)
		if s.Secret {
			shown = ""
		}
		l.problem(where, name, "%s%v", shown, err)
		l.markWrong(s)
		return
	}
	l.v.set[s.Env] = value{text: text, parsed: parsed, source: source, where: where}
}

// markWrong notes that the value kept for a setting isn't the one that was meant.
func (l *loader) markWrong(s *Setting) {
	v := l.v.set[s.Env]
	v.wrong = true
	l.v.set[s.Env] = v
}

// environment selects this program's variables. An empty one counts as not set, since deployment tools can't leave one
// out. Names that are nearly a setting's give a warning.
func (l *loader) environment(environ []string) map[string]string {
	env := make(map[string]string)
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		s := Find(name)
		switch {
		case s == nil:
			if near := closestName(name, variables()); near != "" && len(name) >= minWarnNameBytes && editDistance(name, near) == 1 {
				l.v.warnings = append(l.v.warnings, fmt.Sprintf("variable %s is not a setting; did you mean %s?", name, near))
			}
		case s.Owner.Uses(l.program) && text != "":
			env[name] = text
		}
	}
	return env
}

// minWarnNameBytes keeps short names of other programs' variables from being taken for misspelt ones.
const minWarnNameBytes = 9

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
