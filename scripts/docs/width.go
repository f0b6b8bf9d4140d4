package main

import (
	"errors"
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode/utf8"
)

// maxWidth is how many columns a line of a page or a comment may take; a tab counts as tabWidth.
const (
	maxWidth = 120
	tabWidth = 4
)

// unbroken are lines of a page that can't be broken: rows of tables, and definitions of links.
var unbroken = regexp.MustCompile(`^\s*\||^\[[^\]]+\]: `)

// leading begins a comment line in languages other than Go, by the file's ending.
var leading = map[string]string{".sh": "#", ".c": "//", ".h": "//", ".cpp": "//", ".rs": "//", ".js": "//", ".ts": "//"}

// checkWidths finds lines of pages and of comments that are too long to be read beside other things.
func checkWidths(root string) error {
	var problems []error
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if notOurs(d.Name()) && name != root {
				return filepath.SkipDir
			}
			return nil
		}
		found := longLines(filepath.Ext(name))
		if found == nil || strings.HasSuffix(name, ".capnp.go") {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		shown, _ := filepath.Rel(root, name)
		for _, line := range found(text) {
			problems = append(problems, fmt.Errorf("%s:%d: a line of more than %d columns", filepath.ToSlash(shown), line, maxWidth))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("look for long lines: %w", err)
	}
	return errors.Join(problems...)
}

// notOurs tells whether a folder holds what is built or fetched.
func notOurs(folder string) bool {
	switch folder {
	case "bin", "out", "dist", "node_modules", "testdata", "target":
		return true
	}
	return strings.HasPrefix(folder, ".")
}

// longLines gives what finds the numbers of long lines in files with this ending, or nil.
func longLines(ending string) func(text []byte) []int {
	switch {
	case ending == ".go":
		return longInGo
	case ending == ".md":
		return longInPage
	case leading[ending] != "":
		return func(text []byte) []int { return longComments(text, leading[ending]) }
	}
	return nil
}

// longInPage leaves out code blocks and what can't be broken.
func longInPage(text []byte) []int {
	var found []int
	inCode := false
	for i, line := range lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			inCode = !inCode
		}
		if !inCode && width(line) > maxWidth && !unbroken.MatchString(line) {
			found = append(found, i+1)
		}
	}
	return found
}

func longComments(text []byte, begin string) []int {
	var found []int
	for i, line := range lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), begin) && width(line) > maxWidth {
			found = append(found, i+1)
		}
	}
	return found
}

// longInGo finds lines that a comment stands on; long code without a comment is gofmt's and the reviewer's business.
func longInGo(text []byte) []int {
	var found []int
	all := lines(text)
	files := token.NewFileSet()
	file := files.AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, scanner.ScanComments)
	for {
		at, kind, comment := s.Scan()
		if kind == token.EOF {
			return found
		}
		if kind != token.COMMENT || strings.HasPrefix(comment, "//go:") { // a directive is one line
			continue
		}
		first := file.Line(at)
		for line := first; line <= first+strings.Count(comment, "\n") && line <= len(all); line++ {
			if width(all[line-1]) > maxWidth {
				found = append(found, line)
			}
		}
	}
}

// width is how many columns a line takes.
func width(line string) int {
	return utf8.RuneCountInString(line) + (tabWidth-1)*strings.Count(line, "\t")
}
