package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// walkPage is the page whose walks through the code are checked step by step.
const walkPage = "docs/architecture.md"

var (
	// repositoryPath is a path of this repository in backticks, a file or a folder.
	repositoryPath = regexp.MustCompile("`((?:proxy|engine|schema|scripts|deploy|docs)/[A-Za-z0-9_./-]+)`")
	// walkHeading begins a walk; any other heading ends it.
	walkHeading = regexp.MustCompile(`^#+ .*file by file`)
	walkStep    = regexp.MustCompile(`^[0-9]+\. `)
	// walkPlace is what a step begins with: a file and the functions of it that do the work.
	walkPlace = regexp.MustCompile("^[0-9]+\\. `([a-z0-9_/]+\\.go)`((?:,? `[A-Za-z0-9_.]+`)+):")
	backticks = regexp.MustCompile("`([^`]+)`")
)

// checkReferences finds what the pages say of files and functions that aren't there (any more).
func checkReferences(root string) error {
	list, err := handWritten(root)
	if err != nil {
		return err
	}
	var problems []error
	walks := 0
	for _, page := range list {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(page)))
		if err != nil {
			return fmt.Errorf("read %s: %w", page, err)
		}
		problems = append(problems, checkPaths(root, page, text)...)
		if page == walkPage {
			found, wrong := checkWalks(root, page, text)
			walks += found
			problems = append(problems, wrong...)
		}
	}
	if walks == 0 {
		problems = append(problems, fmt.Errorf("%s: no step of a walk \"file by file\" found", walkPage))
	}
	return errors.Join(problems...)
}

// handWritten lists the pages at the root and under docs, by their slash paths. What changed in the past (CHANGELOG.md)
// may name what is gone.
func handWritten(root string) ([]string, error) {
	list := []string{}
	for _, folder := range []string{".", "docs"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			page, err := filepath.Rel(root, name)
			if err != nil {
				return err
			}
			switch {
			case d.IsDir() && folder == "." && page != ".":
				return filepath.SkipDir
			case filepath.Ext(name) == ".md" && page != "CHANGELOG.md":
				list = append(list, filepath.ToSlash(page))
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("list the pages: %w", err)
		}
	}
	return list, nil
}

// checkPaths finds paths that don't exist.
func checkPaths(root, page string, text []byte) []error {
	var problems []error
	for i, line := range lines(text) {
		for _, m := range repositoryPath.FindAllStringSubmatch(line, -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(m[1]))); err != nil {
				problems = append(problems, fmt.Errorf("%s:%d: there is no %s", page, i+1, m[1]))
			}
		}
	}
	return problems
}

// checkWalks looks at each step of the walks: it must begin with a file and functions that the file has.
func checkWalks(root, page string, text []byte) (steps int, problems []error) {
	inWalk := false
	for i, line := range lines(text) {
		if strings.HasPrefix(line, "#") {
			inWalk = walkHeading.MatchString(line)
		}
		if !inWalk || !walkStep.MatchString(line) {
			continue
		}
		steps++
		m := walkPlace.FindStringSubmatch(line)
		if m == nil {
			problems = append(problems, fmt.Errorf("%s:%d: a step begins with \"`file.go` `Function`, `Type.Method`:\"", page, i+1))
			continue
		}
		declared, err := functionsOf(filepath.Join(root, filepath.FromSlash(m[1])))
		if err != nil {
			problems = append(problems, fmt.Errorf("%s:%d: %w", page, i+1, err))
			continue
		}
		for _, name := range backticks.FindAllStringSubmatch(m[2], -1) {
			if !declared[name[1]] {
				problems = append(problems, fmt.Errorf("%s:%d: %s has no function %s", page, i+1, path.Base(m[1]), name[1]))
			}
		}
	}
	return steps, problems
}

// functionsOf gives the functions and methods (Type.Method) that a file declares.
func functionsOf(name string) (map[string]bool, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("read functions: %w", err)
	}
	declared := map[string]bool{}
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		declared[receiver(f)+f.Name.Name] = true
	}
	return declared, nil
}

// receiver is the name of a method's type with a dot, or nothing for a function.
func receiver(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return ""
	}
	t := f.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if generic, ok := t.(*ast.IndexExpr); ok {
		t = generic.X
	}
	if name, ok := t.(*ast.Ident); ok {
		return name.Name + "."
	}
	return ""
}

func lines(text []byte) []string {
	var list []string
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		list = append(list, s.Text())
	}
	return list
}
