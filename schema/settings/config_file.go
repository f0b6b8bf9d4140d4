package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes bounds the configuration file.
const maxFileBytes = 1 << 20

// file checks the whole file and takes its values, those of the other program too.
func (l *loader) file(name string, readFile func(string) ([]byte, error)) {
	text, err := readFile(name)
	l.v.fileUnreadable = true
	if err != nil {
		l.problem("file", name, "can't be read: %v", err)
		return
	}
	if len(text) > maxFileBytes {
		l.problem("file", name, "has %d bytes, more than %d", len(text), maxFileBytes)
		return
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		l.problem("file", name, "is not YAML: %v", err)
		return
	}
	l.v.fileUnreadable = false
	if len(document.Content) == 0 {
		return // nothing but comments
	}
	f := fileReader{l, filepath.Base(name)}
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		l.problem("file", name, "holds more than one YAML document")
	}
	f.section(document.Content[0], "")
}

type fileReader struct {
	*loader
	name string
}

func (f *fileReader) position(n *yaml.Node) string { return fmt.Sprintf("%s:%d", f.name, n.Line) }

// section reads a mapping whose keys are below path.
func (f *fileReader) section(n *yaml.Node, path string) {
	if isNull(n) {
		return // a section whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		f.problem(f.position(n), strings.TrimSuffix(path, "."), "must hold keys below it, not %s", kindName(n))
		return
	}
	lines := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, child := n.Content[i], n.Content[i+1]
		full := path + key.Value
		if first, twice := lines[key.Value]; twice {
			f.problem(f.position(key), full, "is there twice, first in line %d", first)
			continue
		}
		lines[key.Value] = key.Line
		s := findPath(full)
		switch {
		case s != nil:
			f.value(s, key, child)
		case isSection(full):
			f.section(child, full+".")
		default:
			f.problem(f.position(key), full, "is not a setting%s", suggestPath(full))
		}
	}
}

func (f *fileReader) value(s *Setting, key, n *yaml.Node) {
	text, err := scalarText(s, n)
	if err != nil {
		f.problem(f.position(key), s.Path, "%v", err)
		f.markWrong(s)
		return
	}
	f.setValue(s, text, FromFile, f.position(key), s.Path)
}

// scalarText returns a node's value as it would be written in a variable.
func scalarText(s *Setting, n *yaml.Node) (string, error) {
	switch {
	case isNull(n):
		return "", errors.New("has no value; comment the key out to get the default")
	case n.Kind == yaml.ScalarNode:
		if (s.Kind == String || s.Kind == Enum) && n.Tag == "!!bool" && s.Choices == nil {
			return "", errors.New("must be text, not a bool; quote it if it is meant")
		}
		return n.Value, nil
	case n.Kind == yaml.SequenceNode && s.Kind == List:
		elements := make([]string, len(n.Content))
		for i, element := range n.Content {
			if element.Kind != yaml.ScalarNode || isNull(element) || strings.Contains(element.Value, ",") {
				return "", fmt.Errorf("element %d must be plain text without a comma", i+1)
			}
			elements[i] = element.Value
		}
		return strings.Join(elements, ","), nil
	}
	return "", fmt.Errorf("must be a %s, not %s", s.Kind, kindName(n))
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	return "a single value"
}

func findPath(path string) *Setting {
	for _, s := range All() {
		if s.Path == path && path != "" {
			return s
		}
	}
	return nil
}

func isSection(path string) bool {
	for _, s := range All() {
		if strings.HasPrefix(s.Path, path+".") {
			return true
		}
	}
	return false
}
