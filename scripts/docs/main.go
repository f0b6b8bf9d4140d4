// Docs writes the pages that are made from the lists of settings and metrics (docs/settings.md, docs/metrics.md and
// deploy/config.example.yaml), and the OpenAPI document out of what the endpoints say of themselves. With -check it
// writes nothing and fails when one of them isn't current, when a page names a file or a function that isn't there, and
// when a line of a page or a comment is too long.
//
//	go run ./scripts/docs [-check]
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	check := flag.Bool("check", false, "write nothing; fail when a page is stale")
	root := flag.String("root", ".", "root of the repository")
	flag.Parse()
	err := run(*root, *check)
	if *check {
		err = errors.Join(err, checkReferences(*root), checkWidths(*root))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

// page is one generated file.
type page struct {
	path string
	text []byte
}

func pages(root string) ([]page, error) {
	openAPI, err := openAPIPage(root)
	return []page{
		{"docs/settings.md", settingsPage()},
		{"docs/metrics.md", metricsPage()},
		{"deploy/config.example.yaml", exampleConfig()},
		openAPI,
	}, err
}

func run(root string, check bool) error {
	list, err := pages(root)
	if err != nil {
		return err
	}
	var problems []error
	for _, p := range list {
		name := filepath.Join(root, filepath.FromSlash(p.path))
		current, err := os.ReadFile(name)
		if err == nil && bytes.Equal(current, p.text) {
			continue
		}
		if check {
			problems = append(problems, fmt.Errorf("%s is stale; run: go run ./scripts/docs", p.path))
			continue
		}
		if err := write(name, p.text); err != nil {
			problems = append(problems, err)
			continue
		}
		fmt.Println("wrote", p.path)
	}
	return errors.Join(problems...)
}

func write(name string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("make folder of %s: %w", name, err)
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
