package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// staleFiles returns an error for every file that differs from what the tables say, and for every dashboard and rule
// file that isn't in a table.
func staleFiles(root string, files []generatedFile) error {
	var problems []error
	known := make(map[string]bool)
	for _, f := range files {
		known[filepath.Base(f.path)] = true
		current, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(f.path)))
		if err != nil || !bytes.Equal(current, f.content) {
			problems = append(problems, fmt.Errorf("%s is stale; run: go run ./scripts/rules", f.path))
		}
	}
	for _, pattern := range []string{"deploy/grafana/dashboards/*.json", "deploy/prometheus/*.rules.yaml"} {
		found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			return err
		}
		for _, name := range found {
			if !known[filepath.Base(name)] {
				problems = append(problems, fmt.Errorf("%s is in no table of scripts/rules; remove it", name))
			}
		}
	}
	return errors.Join(problems...)
}

func writeFiles(root string, files []generatedFile) error {
	for _, f := range files {
		name := filepath.Join(root, filepath.FromSlash(f.path))
		if current, err := os.ReadFile(name); err == nil && bytes.Equal(current, f.content) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("make folder of %s: %w", name, err)
		}
		if err := os.WriteFile(name, f.content, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		fmt.Fprintln(os.Stderr, "wrote", f.path)
	}
	return nil
}
