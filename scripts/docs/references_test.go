package main

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// repository makes files in a directory of the test's own.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		if err := write(filepath.Join(root, filepath.FromSlash(name)), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReferencesOfTheRepository(t *testing.T) {
	if err := checkReferences(filepath.Join("..", "..")); err != nil {
		t.Error(err)
	}
}

func TestWidthsOfTheRepository(t *testing.T) {
	if err := checkWidths(filepath.Join("..", "..")); err != nil {
		t.Error(err)
	}
}

func TestCheckReferences(t *testing.T) {
	const code = "package server\n\ntype Server struct{}\n\nfunc (s *Server) infer() {}\n\nfunc New() {}\n\ntype list[T any] struct{}\n\nfunc (l list[T]) len() {}\n"
	for name, tc := range map[string]struct{ walk, want string }{
		"all there":          {"1. `proxy/server/infer.go` `Server.infer`, `New`, `list.len`: it\n   goes on in `proxy/server`.", ""},
		"function gone":      {"1. `proxy/server/infer.go` `Server.admit`:", "docs/architecture.md:3: infer.go has no function Server.admit"},
		"method of no type":  {"1. `proxy/server/infer.go` `infer`:", "has no function infer"},
		"file gone":          {"1. `proxy/server/gone.go` `New`:", "there is no proxy/server/gone.go"},
		"path in the text":   {"1. `proxy/server/infer.go` `New`:\n\nSee `proxy/queue`.", "docs/architecture.md:5: there is no proxy/queue"},
		"step without place": {"1. The server reads the request.", "docs/architecture.md:3: a step begins with"},
		"no walk":            {"## Else", "no step of a walk"},
		"walk without steps": {"Text.", "no step of a walk"},
	} {
		t.Run(name, func(t *testing.T) {
			root := repository(t, map[string]string{
				"proxy/server/infer.go":   code,
				"docs/architecture.md":    "## One request, file by file\n\n" + tc.walk + "\n",
				"CHANGELOG.md":            "`proxy/flight` was renamed.\n",
				"scripts/other/README.md": "`proxy/flight`: pages elsewhere are not looked at.\n",
			})
			err := checkReferences(root)
			switch {
			case tc.want == "" && err != nil:
				t.Error(err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestCheckWidths(t *testing.T) {
	long := strings.Repeat("word ", 25)
	for name, tc := range map[string]struct {
		file, text string
		wrong      bool
	}{
		"page":                  {"docs/a.md", long, true},
		"page, short":           {"docs/a.md", "word", false},
		"row of a table":        {"docs/a.md", "| " + long + " |", false},
		"code block":            {"docs/a.md", "```\n" + long + "\n```", false},
		"after a code block":    {"docs/a.md", "```\n```\n" + long, true},
		"comment":               {"a.go", "package a\n\n// " + long, true},
		"comment behind code":   {"a.go", "package a\n\nvar x = 1 // " + long, true},
		"block comment":         {"a.go", "package a\n\n/*\n" + long + "\n*/", true},
		"code":                  {"a.go", "package a\n\nvar x = `" + long + "`", false},
		"comment sign in code":  {"a.go", "package a\n\nvar x = `// " + long + "`", false},
		"directive":             {"a.go", "package a\n\n//go:generate " + long, false},
		"tabs count":            {"a.go", "package a\n\nfunc f() {\n\t\t// " + long[:112] + "\n}", true},
		"the same without tabs": {"a.go", "package a\n\nfunc f() {\n// " + long[:112] + "\n}", false},
		"script":                {"a.sh", "# " + long, true},
		"script's code":         {"a.sh", "echo " + long, false},
		"what was built":        {"node_modules/a.md", long, false},
		"generated":             {"schema/a.capnp.go", "package a\n\n// " + long, false},
	} {
		t.Run(name, func(t *testing.T) {
			root := repository(t, map[string]string{tc.file: tc.text + "\n"})
			err := checkWidths(root)
			if wrong := err != nil; wrong != tc.wrong {
				t.Errorf("found: %v", err)
			}
			if tc.wrong && !strings.Contains(err.Error(), tc.file+":") {
				t.Errorf("%v doesn't name the file", err)
			}
		})
	}
}

func TestUnreadableRepositoryIsAnError(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "gone")
	if err := checkReferences(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("references: %v", err)
	}
	if err := checkWidths(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("widths: %v", err)
	}
}
