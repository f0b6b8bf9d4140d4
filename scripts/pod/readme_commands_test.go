package pod

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// readmeCommandsAnswer runs the curl commands of the README in their order. JSON output must have the fields that the
// README shows, and an answer or an error the same text; other output must not be empty.
func (p *pod) readmeCommandsAnswer(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := curlCommands(string(readme))
	if len(commands) < 5 {
		t.Fatalf("the README shows only %d curl lines: %q", len(commands), commands)
	}
	for _, c := range commands {
		command := strings.ReplaceAll(c.command, "localhost:8000", strings.TrimPrefix(p.url, "http://"))
		out, err := exec.CommandContext(t.Context(), "bash", "-c", "set -o pipefail; "+command).Output()
		if err != nil {
			t.Errorf("%s: %v: %s", command, err, out)
			continue
		}
		var got, shown object
		if json.Unmarshal([]byte(c.output), &shown) != nil {
			if len(out) == 0 {
				t.Errorf("%s: no output", command)
			}
			continue
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Errorf("%s: %v: %s", command, err, out)
			continue
		}
		if g, w := fieldNames(got), fieldNames(shown); !slices.Equal(g, w) {
			t.Errorf("%s: fields %q, want %q", command, g, w)
		}
		if got["result"] != shown["result"] || field(got, "error")["message"] != field(shown, "error")["message"] {
			t.Errorf("%s: %s; the README shows %s", command, out, c.output)
		}
	}
}

// readmeCommand is a command of the README and the first line of its output there.
type readmeCommand struct{ command, output string }

// curlCommands returns the curl commands in the console blocks. A command goes on over lines while a quote is open.
func curlCommands(text string) (examples []readmeCommand) {
	for i, block := range strings.Split(text, "```") {
		body, ok := strings.CutPrefix(block, "console\n")
		if i%2 == 0 || !ok {
			continue
		}
		var command []string
		for line := range strings.Lines(body) {
			line = strings.TrimSuffix(line, "\n")
			first, starts := strings.CutPrefix(line, "$ ")
			switch open := strings.Count(strings.Join(command, "\n"), "'")%2 == 1; {
			case starts && strings.HasPrefix(first, "curl "):
				command = []string{first}
			case len(command) > 0 && open:
				command = append(command, line)
			case len(command) > 0:
				examples = append(examples, readmeCommand{strings.Join(command, "\n"), line})
				command = nil
			}
		}
	}
	return examples
}

// fieldNames returns the names of an object's fields and of the objects in it.
func fieldNames(o object) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		names = append(names, name)
		if inner, ok := o[name].(object); ok {
			for _, n := range fieldNames(inner) {
				names = append(names, name+"."+n)
			}
		}
	}
	return names
}
