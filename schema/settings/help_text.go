package settings

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// WriteUsage writes the settings of a program as its help shows them, section by section.
func WriteUsage(w io.Writer, program Owner) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "Settings, as --flag=value, as variable or in the file (flag over variable over file over default):")
	section := "-"
	for _, s := range All() {
		if !s.Owner.Uses(program) {
			continue
		}
		if top, _, _ := strings.Cut(s.Path, "."); top != section && s.Path != "" {
			section = top
			fmt.Fprintf(b, "\n%s:\n", section)
		}
		fmt.Fprintf(b, "  --%s (%s)\n      %s\n", s.Flag(), s.Env, s.Help)
		fmt.Fprintf(b, "      %s%s\n", s.Kind, details(s))
	}
	fmt.Fprint(b, "\n  --help       this text\n  --version    version of the program\n")
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write help: %w", err)
	}
	return nil
}

func details(s *Setting) string {
	var b strings.Builder
	if r := s.Range(); r != "" {
		b.WriteString(", " + r)
	}
	if s.Default != "" {
		b.WriteString(", default " + s.Default)
	}
	if s.Path != "" {
		b.WriteString(", file " + s.Path)
	}
	return b.String()
}
